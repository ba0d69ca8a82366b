"""What a run or a trial leaves, for comparing it with what another one left."""

import hashlib
import json
from pathlib import Path
from typing import Any

CLOCKS = {"seconds", "milliseconds", "images_per_second", "peak_memory"}
LOGS = {".lock", "ray.log"}
RETOLD = {"summary.json", "trials.parquet"}  # what the other files say, with times of day


def remains(folder: Path) -> dict[str, Any]:
    """What follows from the settings alone, by file: all but logs, clocks, and how many processes it took."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not is_trace(file)]
    return {str(file.relative_to(folder)): what_lasts(file) for file in files}


def partials(folder: Path) -> list[Path]:
    """Files that were never renamed into their place."""
    return list(folder.rglob("*.partial"))


def is_trace(file: Path) -> bool:
    return file.name in LOGS or file.name in RETOLD or file.name.startswith("events.") or file.suffix == ".partial"


def what_lasts(file: Path) -> Any:
    if file.name == "reports.jsonl":
        return timeless(file.read_text().splitlines())
    if file.name == "result.json":
        return {key: value for key, value in json.loads(file.read_text()).items() if key != "attempt"}
    if file.name == "probe.json":
        found = json.loads(file.read_text())
        return found | {
            "rows": list(map(_untimed, found["rows"])),
            "neighbours": {n: _untimed(row) for n, row in found["neighbours"].items()},
        }
    # Short, for a failure that can be read.
    return hashlib.sha256(file.read_bytes()).hexdigest()


def timeless(lines: list[str]) -> list[dict[str, Any]]:
    """Reports without what was measured."""
    return [_untimed(json.loads(line)) for line in lines]


def _untimed(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in CLOCKS}
