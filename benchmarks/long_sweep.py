"""What a long search costs its driver: time and memory a trial, time a report, and the start of a search that is resumed.

The trials train nothing: they write a record and report a few made-up epochs. All else is as in a real search: proposals by TPE, ASHA,
records, Ray Tune with real workers.

    uv run python -m benchmarks.long_sweep [--trials 1000]
"""

import json
import os
import platform
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, process_time
from typing import Annotated, Any

import tuner  # noqa: F401  # isort: skip - first, since it sets what Ray reads when it is imported

import numpy as np
import typer
from ray import tune
from rich.table import Table

from search_spaces.read import read_space
from trainables.config import TrialConfig, choosers
from trainables.console import open_console
from trainables.data.images import Images
from trainables.data.layouts.contest import contest_scheme
from trainables.data.splits import Split
from trainables.data.training import Data
from trainables.record import (
    EpochReport,
    Predictions,
    Record,
    Result,
    end_record,
    start_record,
    trial_folder,
    write_predictions,
    write_reports,
    write_result,
)
from trainables.trial import Job
from tuner import cluster
from tuner.board import Board
from tuner.prepare import Plan
from tuner.requests import Inbox
from tuner.resume import Stock, settle, take_stock
from tuner.searchers.study import StudySearcher
from tuner.searchers.tpe import TPE
from tuner.settings import RunSettings
from tuner.stoppers.pruner import Pruner, never_stopped
from tuner.stoppers.soft_stop import SoftStop
from tuner.training import search

EPOCHS = 3
IMAGES = 100  # of the made-up validation
SPACE = """
run: {epochs: 3, grace: 1}
model: {backbone: {choice: [small, medium, large]}, dropout: {float: [0.0, 0.5]}}
optimizer: {lr: {float: [1.0e-5, 1.0e-1], log: true}}
loss:
  name: {choice: [cross_entropy, focal]}
  gamma: {float: [0.5, 4.0], when: {loss/name: focal}}
"""


def pretend(proposal: dict[str, Any], job: Job) -> None:
    """Write and report what a trial would, without training."""
    number, config = proposal["number"], TrialConfig.from_values(proposal["values"])
    folder = trial_folder(job.run, number)
    start_record(folder, config)
    result = Result("interrupted", "at work", 1, job.data.split.hash, "none", job.code)
    write_result(folder, result)
    write_predictions(folder, Predictions(tuple(map(str, range(IMAGES))), [np.full((IMAGES, 18), 1 / 18)], 1))
    reports, quality = [], random.Random(number).random()
    for epoch in range(1, EPOCHS + 1):
        score = quality * epoch / EPOCHS
        report = EpochReport(
            epoch=epoch,
            train_loss=1.0,
            score=score,
            accuracy=score,
            target_scores={},
            lr=1e-3,
            seconds=0.01,
            photos=IMAGES,
            distinct=IMAGES,
            largest_repeat=1,
            images_per_second=1e4,
            peak_memory=100.0,
            micro_batch=0,
            best_epoch=epoch,
            last=epoch == EPOCHS,
        )
        reports.append(asdict(report))
        write_reports(folder, reports)
        if report.last:
            end_record(folder, "finished", f"trained all {EPOCHS} epochs")
        tune.report({"number": number, "best": score, **asdict(report)})


def main(trials: Annotated[int, typer.Option(min=100, help="Trials of the search.")] = 1000) -> None:
    """Run a search of trials that train nothing, then rebuild it from its records, and account for the driver's time and memory."""
    console = open_console(file=open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "long"
        (run / "trials").mkdir(parents=True)
        cluster.log_to(run / "ray.log")
        cluster.start(None, dashboard=False)
        plan = make_plan(run, trials)
        job = Job(run, Data(plan.images, Split(plan.images.groups, 0, "none"), {}, {}), "benchmark", 1)
        board = Board(trials, EPOCHS, "nothing", plan.settings.score())
        samples, done = [], Event()
        watcher = Thread(target=watch, args=(board, samples, done), daemon=True)
        watcher.start()
        start = perf_counter()
        search(plan, job, cluster.Slots(1, 0.0), Stock(), board, SoftStop(None), Inbox(plan.run), console, trainable=pretend)
        whole = perf_counter() - start
        done.set()
        watcher.join()

        start = perf_counter()
        stock = take_stock(run, plan.space, plan.fixed, retry=True)
        settings = plan.settings
        spared = never_stopped(0.05)
        stock = settle(stock, run, Pruner(settings.stopper(), settings.score(), spared=spared, decided=lambda number, decision: None))
        proposing = [proposal_seconds(plan, stock.kept[: trials // 5]), proposal_seconds(plan, stock.kept)]
        resuming = perf_counter() - start
        cluster.stop()

    early, late = between(samples, 0.1, 0.3, trials), between(samples, 0.8, 1.0, trials)
    growth = (late["memory"] - early["memory"]) / (late["trial"] - early["trial"]) / 1e3
    table = Table("figure", "first trials", "last trials")
    table.add_row("driver's CPU time a trial, ms", f"{early['cpu'] * 1e3:.1f}", f"{late['cpu'] * 1e3:.1f}")
    table.add_row("of these a proposal by TPE, ms", *(f"{seconds * 1e3:.1f}" for seconds in proposing))
    table.add_row("wall time a trial, ms", f"{early['wall'] * 1e3:.1f}", f"{late['wall'] * 1e3:.1f}")
    table.add_row("growth of the driver's memory a trial, KB", "", f"{growth:.1f}")
    table.add_row("whole search, s", "", f"{whole:.1f}")
    table.add_row("resuming: from reading the records to the next proposal, s", "", f"{resuming:.2f}")
    open_console(width=120).print(table)
    figures = {
        "cpu_ms_first": round(early["cpu"] * 1e3, 2),
        "cpu_ms_last": round(late["cpu"] * 1e3, 2),
        "growth_kb": round(growth, 1),
        "proposal_ms_first": round(proposing[0] * 1e3, 2),
        "proposal_ms_last": round(proposing[1] * 1e3, 2),
        "resuming_s": round(resuming, 2),
        "whole_s": round(whole, 1),
    }
    print(json.dumps({**figures, "trials": trials, "python": platform.python_version(), "cores": os.cpu_count()}))


def proposal_seconds(plan: Plan, known: Sequence[Record]) -> float:
    """Seconds of a proposal that knows these trials."""
    trials = plan.settings.trials
    searcher = StudySearcher(plan.space, plan.fixed, sampler=TPE.make, seed=0, trials=trials, slots=lambda: 99, earlier=known)
    searcher.suggest("first")
    start = perf_counter()
    for number in range(10):
        searcher.suggest(str(number))
    return (perf_counter() - start) / 10


def make_plan(run: Path, trials: int) -> Plan:
    """A plan over a made-up space and images that are not there."""
    file = run.parent / "space.yaml"
    file.write_text(SPACE)
    scheme = contest_scheme((30, 60))
    none = np.zeros(0, dtype=int)
    images = Images(run, (), none, np.zeros((0, 3), dtype=int), scheme)
    return Plan(
        run,
        read_space(file, choosers=choosers()),
        RunSettings(trials=trials, epochs=EPOCHS, grace=1),
        seed=0,
        fixed={"epochs": EPOCHS, "seed": 0},
        targets=(),
        configurations=[],
        views=[],
        folder=run,
        images=images,
        split_of=None,
    )


def watch(board: Board, samples: list[tuple[int, float, float, float]], done: Event) -> None:
    """Note (trials ended, wall time, the driver's CPU time, its memory in bytes) twice a second."""
    page = os.sysconf("SC_PAGE_SIZE")
    while not done.wait(0.5):
        ended = sum(row.state != "running" for row in board.rows.values())
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * page
        samples.append((ended, perf_counter(), process_time(), memory))


def between(samples: list[tuple[int, float, float, float]], low: float, high: float, trials: int) -> dict[str, float]:
    """Costs a trial among those from one share of the search to another."""
    chosen = [sample for sample in samples if low * trials <= sample[0] <= high * trials]
    (first, wall, cpu, _), (last, wall_after, cpu_after, memory) = chosen[0], chosen[-1]
    count = max(1, last - first)
    return {"trial": last, "memory": memory, "wall": (wall_after - wall) / count, "cpu": (cpu_after - cpu) / count}


if __name__ == "__main__":
    typer.run(main)
