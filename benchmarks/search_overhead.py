"""Seconds that a search spends on a trial beyond training it: proposing, starting, records, checkpoints, the driver.

A worker imports torch once, with its first trial; from the second on a trial should cost less than a second beside its own epochs.
One trial runs at a time here, so the time between the ends of two trials belongs to the second of them.

    uv run python -m benchmarks.search_overhead [--trials 12]
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import typer
from rich.table import Table

from trainables.console import open_console
from trainables.record import read_records

SPACE = """
run: {trials: 8, epochs: 2, grace: 2}
view: {size: 32}
augment: {flip: 0.5}
model: {backbone: test_efficientnet, weights: none}
optimizer: {lr: {float: [1.0e-3, 1.0e-2], log: true}}
"""


def main(trials: Annotated[int, typer.Option(min=3, help="Trials of the search.")] = 8) -> None:
    """Run a search of small trials as a user would, and account for its time from the records."""
    root = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "overhead.yaml"
        space.write_text(SPACE)
        command = [sys.executable, "-m", "tuner.run", "--space", str(space), "--name", "overhead", "--trials", str(trials)]
        options = ["--cpus-per-trial", str(os.cpu_count()), "--no-dashboard"]
        start = perf_counter()
        environment = {**os.environ, "PYTHONPATH": str(root)}
        subprocess.run([*command, *options], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        whole = perf_counter() - start
        run = Path(folder) / "runs" / "overhead"
        records = read_records(run)
        ends = [(run / "trials" / record.folder.name / "result.json").stat().st_mtime for record in records]
    training = [sum(report["seconds"] for report in record.reports) for record in records]
    beyond = [end - before - trained for before, end, trained in zip(ends, ends[1:], training[1:], strict=False)]

    table = Table("seconds", "median", "least", "most")
    table.add_row("training, a trial", f"{median(training[1:]):.3f}", f"{min(training[1:]):.3f}", f"{max(training[1:]):.3f}")
    table.add_row("beyond training, from the second trial on", f"{median(beyond):.3f}", f"{min(beyond):.3f}", f"{max(beyond):.3f}")
    table.add_row("whole command", f"{whole:.1f}", "", "")
    open_console().print(table)
    figures = {"seconds_beyond_training": round(median(beyond), 4), "most": round(max(beyond), 4), "whole_command": round(whole, 1)}
    print(json.dumps({**figures, "trials": trials, "python": platform.python_version(), "cores": os.cpu_count()}))


if __name__ == "__main__":
    typer.run(main)
