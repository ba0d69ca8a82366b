"""Seconds from giving a command to a search's first reported epoch, part by part.

Quickstart over the drawn people, once with nothing decoded and once with everything. Parts that run beside each other do not add up.
Where Python may not keep the byte code of libraries, every process compiles them again, which takes three times as long: the line says so.

    uv run python -m benchmarks.startup
"""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from time import sleep, time

from rich.table import Table

from trainables.console import open_console
from tuner.prepare import demo_people

ROOT = Path(__file__).parent.parent
# What the command says at the end of a part.
SAID = {
    "checked: options, space, table": re.compile("trials of at most"),
    "decoded and split": re.compile(r"\d+ images of \d+ "),
    "preflight done, Ray up, Tune imported": re.compile("trials at a time"),
}
IMPORTED = {"the checks": "tuner.searching", "the driver": "tuner.training", "a worker": "trainables.trial"}


def main() -> None:
    """Start quickstart twice, stop it after its first epoch, and print when each part had ended."""
    console = open_console()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SWEEPVOTE_CACHE"] = str(Path(folder) / "cache")
        demo_people(console)
        imports = {words: import_seconds(module) for words, module in IMPORTED.items()}
        cold, warm = (first_epoch(Path(folder), name) for name in ("cold", "warm"))
    table = Table("seconds until", "nothing decoded", "all decoded")
    for part in warm:
        table.add_row(part, f"{cold[part]:.1f}", f"{warm[part]:.1f}")
    for words, seconds in imports.items():
        table.add_row(f"imports of {words}, alone", "", f"{seconds:.1f}")
    console.print(table)
    torch = find_spec("torch")
    compiled = bool(torch and torch.origin and Path(cache_from_source(torch.origin)).is_file())
    figures = {"cold": cold, "warm": warm, "imports": imports, "byte_code_kept": compiled}
    print(json.dumps({**figures, "python": platform.python_version(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}))


def import_seconds(module: str) -> float:
    """Seconds of a process that does nothing else."""
    start = time()
    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, check=True)
    return round(time() - start, 1)


def first_epoch(folder: Path, name: str) -> dict[str, float]:
    """Seconds from the start of a search until each part had ended."""
    start = time()
    command = [sys.executable, "-m", "tuner.run", "--space", "quickstart", "--name", name, "--no-dashboard"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = folder / "runs" / name
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        ended = {part: when - start for part, when in said(process)}
        ended["first trial begins"] = first_file(run, "config.json", process) - start
        ended["first epoch is reported"] = first_file(run, "reports.jsonl", process) - start
        os.kill(process.pid, signal.SIGTERM)
        process.communicate()
    up, *_ = re.findall(r"^(\S+ \S+) INFO ray.*Started a local Ray instance", (run / "ray.log").read_text(), re.MULTILINE)
    ended["Ray is up"] = datetime.strptime(up, "%Y-%m-%d %H:%M:%S,%f").timestamp() - start
    return {part: round(seconds, 1) for part, seconds in sorted(ended.items(), key=lambda item: item[1])}


def said(process: subprocess.Popen) -> Iterator[tuple[str, float]]:
    """Each part with the time at which the command says that it has ended."""
    left = dict(SAID)
    for line in process.stdout or ():
        for part in [part for part, words in left.items() if words.search(line)]:
            del left[part]
            yield part, time()
        if not left:
            return
    raise SystemExit(f"the search ended with {process.wait()} before its first trial")


def first_file(run: Path, name: str, process: subprocess.Popen) -> float:
    """When the first such file of a trial was written."""
    while not (files := list(run.glob(f"trials/*/{name}"))):
        if process.poll() is not None:
            raise SystemExit(f"the search ended with {process.returncode} before its first epoch")
        sleep(0.05)
    return min(file.stat().st_mtime for file in files)


if __name__ == "__main__":
    main()
