"""What a run or a trial leaves, for comparing it with what another one left."""

import hashlib
import json
from pathlib import Path
from typing import Any

CLOCKS = {"seconds", "images_per_second", "peak_memory"}
LOGS = {".lock", "ray.log"}


def remains(folder: Path) -> dict[str, Any]:
    """What follows from the settings alone, by file: all but logs, clocks, and how many processes it took."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not is_trace(file)]
    return {str(file.relative_to(folder)): what_lasts(file) for file in files}


def partials(folder: Path) -> list[Path]:
    """Files that were never renamed into their place."""
    return list(folder.rglob("*.partial"))


def is_trace(file: Path) -> bool:
    return file.name in LOGS or file.name.startswith("events.") or file.suffix == ".partial"


def what_lasts(file: Path) -> Any:
    if file.name == "reports.jsonl":
        return timeless(file.read_text().splitlines())
    if file.name == "result.json":
        return {key: value for key, value in json.loads(file.read_text()).items() if key != "attempt"}
    # Short, for a failure that can be read.
    return hashlib.sha256(file.read_bytes()).hexdigest()


def timeless(lines: list[str]) -> list[dict[str, Any]]:
    """Reports without what was measured."""
    return [{key: value for key, value in json.loads(line).items() if key not in CLOCKS} for line in lines]
