"""One trial as Ray Tune runs it: a thin adapter between `fit`, the record and Tune."""

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from ray import tune
from tensorboardX import FileWriter
from tensorboardX.summary import hparams, scalar

from trainables.checkpoint import Card, pack_model, pack_progress, unpack_progress
from trainables.config import ConfigError, TrialConfig
from trainables.loop import DivergedError, EpochReport, Progress, fit
from trainables.metrics import METRIC
from trainables.parts import Data, build_parts
from trainables.record import (
    MODEL,
    Predictions,
    Result,
    end_record,
    read_last,
    read_reports,
    start_record,
    trial_folder,
    write_last,
    write_predictions,
    write_reports,
    write_result,
    write_whole,
)

LIBRARIES = ("torch", "timm", "albumentations", "numpy", "pillow", "ray", "optuna")
AT_WORK = "its process died, or is still at work"


@dataclass(frozen=True)
class Job:
    """What all trials of a run share."""

    run: Path
    data: Data
    code: str  # version of this project
    threads: int  # CPU threads a trial may use


def run_trial(proposal: dict[str, Any], job: Job) -> None:
    """Train one proposed configuration to its end, reporting every epoch to Tune and to its record.

    Args:
        proposal: `number` of the trial and the nested `values` of its configuration.
    """
    train(proposal["number"], TrialConfig.from_values(proposal["values"]), job, report=tune.report)


def train(number: int, config: TrialConfig, job: Job, report: Callable[[dict[str, Any]], None]) -> None:
    """Train a trial and keep its record; `report` is told of each epoch and may end the trial by raising.

    A trial that stopped half-way, because its process died, goes on after its last whole epoch.
    """
    folder = trial_folder(job.run, number)
    torch.set_num_threads(job.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    start_record(folder, config)
    reports = read_reports(folder)  # of an attempt whose process died
    best, reason = (reports[-1]["best_epoch"], AT_WORK) if reports else (0, "ended before its first report")
    result = Result("interrupted", reason, best, job.data.split.hash, _device_name(device), job.code, versions())
    write_result(folder, result)
    writer = FileWriter(str(folder))
    try:
        parts = build_parts(config, job.data, device, threads=job.threads if device.type == "cuda" else 0)
        last = read_last(folder)
        progress = unpack_progress(last, parts) if last else Progress()
        reports = reports[: progress.epoch]
        _write_settings(writer, config)
        card = Card(config, job.data.photos.scheme)
        valid_ids = tuple(job.data.photos.ids[index] for index in job.data.split.valid)
        for epoch in fit(parts, config.train, epochs=config.epochs, seed=config.seed, progress=progress):
            reports.append(asdict(epoch.report))
            result = replace(result, reason=AT_WORK, best_epoch=epoch.progress.best_epoch)
            if epoch.report.best_epoch == epoch.report.epoch:
                write_whole(folder / MODEL, pack_model(parts.model, card))
                write_predictions(folder, Predictions(valid_ids, epoch.probabilities))
            write_reports(folder, reports)
            write_result(folder, result)
            # Last, so that a process which dies in between does this epoch again instead of leaving a gap in the reports.
            if not epoch.report.last:
                write_last(folder, pack_progress(parts, epoch.progress))
            _write_scalars(writer, epoch.report, reports[epoch.progress.best_epoch - 1])
            if epoch.report.last:
                end_record(folder, "finished", _why_it_ended(epoch.report, config))
            report({"number": number, "best": epoch.progress.best_score, **asdict(epoch.report)})
    except (DivergedError, ConfigError, torch.cuda.OutOfMemoryError) as error:
        # An outcome, not a crash: Tune would train it again and fail again.
        reason = str(error).splitlines()[0]
        end_record(folder, "failed", reason)
        report({"number": number, "failed": reason})
    finally:
        # The next trial reuses this process; nothing of this one may stay, least of all GPU memory.
        writer.close()
        parts = None
        if device.type == "cuda":
            torch.cuda.empty_cache()


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide what a trial computes."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def _why_it_ended(report: EpochReport, config: TrialConfig) -> str:
    if report.epoch == config.epochs:
        return f"trained all {config.epochs} epochs"
    return f"no better score for {config.train.patience} epochs"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()}, {os.cpu_count()} cores)"


def _write_settings(writer: FileWriter, config: TrialConfig) -> None:
    """TensorBoard's HParams page reads the settings here and takes the last value of `best/macro_f1` as the trial's result.

    Both are in the file from the first epoch on, so a stopped trial and a killed one are on the page with their best epoch.
    """
    flat = {}
    for name, value in config.values().items():
        for key, item in value.items() if isinstance(value, dict) else {"": value}.items():
            flat[f"{name}/{key}".rstrip("/")] = item if isinstance(item, (int, float, str)) else str(item)
    experiment, session, _ = hparams(flat, {f"best/{METRIC}": None})
    for summary in (experiment, session):
        writer.add_summary(summary)


def _write_scalars(writer: FileWriter, report: EpochReport, best: dict[str, Any]) -> None:
    shown = {
        METRIC: report.macro_f1,
        f"best/{METRIC}": best[METRIC],
        "accuracy": report.accuracy,
        "train_loss": report.train_loss,
        "learning_rate": report.lr,
        "images_per_second": report.images_per_second,
        **{f"attribute_f1/{name}": score for name, score in report.attribute_f1.items()},
    }
    for tag, value in shown.items():
        writer.add_summary(scalar(tag, value), global_step=report.epoch)
    writer.flush()
