"""A run as experiment trackers take one: each trial's parameters, curves and files as plain values."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.evaluation.fitted_ensemble import FILE, read_ensemble, read_trial_models
from analysis.evaluation.search.reading import Search, SearchedTrial, State, is_finite, read_search
from analysis.evaluation.search.summary import SUMMARY, summary_of
from trainables.record import FINALISTS, MODEL, SPACE, SPLIT, RunError, trial_folder
from trainables.storage import Folder

MEASURED = ("train_loss", "accuracy", "lr", "seconds", "images_per_second", "peak_memory")  # of a report, beside its scores
OF_TRIAL = ("config.json", "result.json", "reports.jsonl", "valid.npz", MODEL)
OF_RUN = (
    *("run.json", SPACE, SPLIT, "fidelity.json", SUMMARY, "report/index.html"),
    *(f"ensemble/{name}" for name in (FILE, "scores.json", "per_class.csv", "confusion.png")),
)

Plain = str | int | float | bool


@dataclass(frozen=True)
class Epoch:
    """A point of a trial's curves."""

    number: int  # the first is 1
    seconds: float  # of training and validation since the trial began
    values: dict[str, float]


@dataclass(frozen=True)
class ExportedTrial:
    """One trial."""

    name: str  # `7`, or `finalists/3`
    state: State
    reason: str
    begun: float | None  # seconds since 1970; None where the store does not say
    parameters: dict[str, Plain]  # every setting by its path; lists and what is null as JSON
    curves: tuple[Epoch, ...]
    best: dict[str, float]  # the best epoch, and the score that it has by `best/<metric>`
    files: dict[str, Folder]  # by their names
    content: str  # changes when any of these does


@dataclass(frozen=True)
class ExportedRun:
    """A run, the trials of its race included."""

    name: str
    key: str  # the same whenever this run is exported: of its name and its split
    parameters: dict[str, Plain]
    values: dict[str, float]  # the best score on validation; of the answer its score on the hold-out, its interval, its gain
    files: dict[str, Folder]  # by their paths in the run
    ensemble: Folder | None  # one that can predict
    trials: tuple[ExportedTrial, ...]
    damaged: tuple[str, ...]  # what could not be read, and why


def exported(run: Folder) -> ExportedRun:
    """Read a run, whatever state it is in. Raises: RunError where run.json cannot be read."""
    search = read_search(run)
    race = read_search(run / FINALISTS) if (run / FINALISTS / "run.json").is_file() else None
    card, summary = search.card, summary_of(run)
    facts = {name: summary[name] for name in ("space", "data", "metric", "direction", "predicts", "command", "refit_of")}
    ensemble, mistake = _ensemble(run)
    return ExportedRun(
        name=search.name,
        key=hashlib.sha256(f"{search.name}\n{card.split}".encode()).hexdigest()[:16],
        parameters=_plain(facts | {"seed": card.seed, "split": card.split}),
        values=_scores(summary),
        files=_there(run, OF_RUN),
        ensemble=ensemble,
        trials=(*_trials(search, ""), *(_trials(race, f"{FINALISTS}/") if race else ())),
        damaged=(*summary["damaged"], *(f"{FINALISTS}/{one}" for one in (race.damaged if race else ())), *mistake),
    )


def _ensemble(run: Folder) -> tuple[Folder | None, tuple[str, ...]]:
    """The folder of the ensemble, or why it cannot predict; neither where there is none."""
    folder = run / "ensemble"
    if not (folder / FILE).is_file():
        return None, ()
    try:
        read_trial_models(folder, read_ensemble(folder))
    except RunError as error:
        return None, (f"the ensemble: {error}",)
    return folder, ()


def _trials(search: Search, prefix: str) -> Iterator[ExportedTrial]:
    for trial in search.trials:
        folder = trial_folder(search.folder, trial.number)
        files = _there(folder, OF_TRIAL)
        texts = [file.read_bytes() for name, file in files.items() if name.endswith((".json", ".jsonl"))]
        yield ExportedTrial(
            name=f"{prefix}{trial.number}",
            state=trial.state,
            reason=trial.reason,
            begun=_written(folder / "config.json"),
            parameters=_plain(trial.settings),
            curves=tuple(_curves(trial, search.metric.name)),
            best=_best(trial, search.metric.name),
            files=files,
            content=hashlib.sha256(b"\n".join([*texts, repr(list(files)).encode()])).hexdigest()[:16],
        )


def _curves(trial: SearchedTrial, metric: str) -> Iterator[Epoch]:
    seconds = 0.0
    for report in trial.reports:
        seconds += report.get("seconds", 0.0)
        shown = {metric: report["score"], **{f"{metric}/{name}": score for name, score in report.get("target_scores", {}).items()}}
        shown |= {name: report.get(name) for name in MEASURED}
        yield Epoch(int(report["epoch"]), seconds, {name: float(value) for name, value in shown.items() if is_finite(value)})


def _best(trial: SearchedTrial, metric: str) -> dict[str, float]:
    epoch = next((epoch for epoch, score in trial.curve if score == trial.score), None)
    return {} if trial.score is None or epoch is None else {f"best/{metric}": trial.score, "best/epoch": float(epoch)}


def _scores(summary: dict[str, Any]) -> dict[str, float]:
    metric, best, answer = summary["metric"], summary["best"], summary["answer"]
    found = {f"best/{metric}": best["score"], "best/trial": best["trial"]} if best else {}
    if answer:
        found |= dict(zip(("answer/low", "answer/high"), answer["interval"], strict=True))
        found |= {f"answer/{metric}": answer["score"], "answer/gain_over_best_single": answer["gain_over_best_single"]["gain"]}
    return {name: float(value) for name, value in found.items() if is_finite(value)}


def _plain(values: dict[str, Any]) -> dict[str, Plain]:
    return {name: value if isinstance(value, (str, int, float, bool)) else json.dumps(value) for name, value in values.items()}


def _there(folder: Folder, names: tuple[str, ...]) -> dict[str, Folder]:
    return {name: file for name in names if (file := folder / name).is_file()}


def _written(file: Folder) -> float | None:
    return file.stat().st_mtime if isinstance(file, Path) else None
