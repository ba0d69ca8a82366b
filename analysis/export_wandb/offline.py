"""Runs in W&B's offline format, which its own client writes."""

import os

# Read when it is imported: it would report its errors to its makers.
os.environ["WANDB_ERROR_REPORTING"] = "false"

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import wandb

from analysis.evaluation.search.exported import Epoch, ExportedRun, ExportedTrial, Plain
from trainables.storage import Folder, local_file


def write_trial(run: ExportedRun, trial: ExportedTrial, out: Path, project: str) -> Path:
    """The folder of a trial's run."""
    facts: dict[str, Plain] = {"state": trial.state, "reason": trial.reason, **trial.best}
    name = trial.name.replace("/", "-")
    return _write(run, f"trial {trial.name}", name, "trial", trial.parameters, trial.curves, facts, trial.files, out, project)


def write_answer(run: ExportedRun, out: Path, project: str) -> Path:
    """The folder of what is of the whole run: what all trials share, the answer and its scores."""
    return _write(run, run.name, "answer", "answer", run.parameters, (), run.values, run.files, out, project)


def _write(
    run: ExportedRun,
    title: str,
    name: str,
    kind: str,
    parameters: Mapping[str, Plain],
    curves: Iterable[Epoch],
    facts: Mapping[str, Plain],
    files: Mapping[str, Folder],
    out: Path,
    project: str,
) -> Path:
    number = f"{run.key}-{name}"
    for earlier in (out / "wandb").glob(f"offline-run-*-{number}"):
        shutil.rmtree(earlier)
    settings = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True, x_disable_meta=True)
    about = {"project": project, "name": title, "id": number, "group": run.name, "job_type": kind, "config": dict(parameters)}
    with wandb.init(**about, mode="offline", dir=out, settings=settings) as begun:
        for epoch in curves:
            begun.log(epoch.values, step=epoch.number)
        begun.summary.update(dict(facts))
        for path, file in files.items():
            place = Path(begun.dir) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with local_file(file) as local:
                shutil.copy(local, place)
            begun.save(place, base_path=begun.dir, policy="now")
        return Path(begun.dir).parent
