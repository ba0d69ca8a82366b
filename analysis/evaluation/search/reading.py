"""Reading a run for the report: every trial that was begun, however it ended; what is damaged is named, not fatal."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from PIL.Image import DecompressionBombError
from pydantic import TypeAdapter

from analysis.evaluation.fidelity import Fidelity
from analysis.evaluation.search.probes import TABLE, ProbeTable, read_probes
from analysis.evaluation.search.space import Dimension
from analysis.members.trials import metric_of
from search_spaces.read import read_space
from search_spaces.schema import Space, flat
from trainables.commands import typed
from trainables.metrics import Metric
from trainables.record import (
    DAMAGE,
    SPACE,
    Decision,
    Record,
    RunCard,
    RunError,
    list_trials,
    name_of,
    read_json,
    read_record,
    read_run,
    searched_run,
)
from trainables.storage import Folder, local_file

State = Literal["finished", "stopped", "interrupted", "failed"]
STATES: tuple[State, ...] = ("finished", "stopped", "interrupted", "failed")
Read = TypeVar("Read")
FIDELITIES = TypeAdapter(tuple[Fidelity, ...])


@dataclass(frozen=True)
class SearchedTrial:
    """One trial as the report shows it."""

    number: int
    state: State
    reason: str
    score: float | None  # on validation at its best epoch; None where none was reported
    curve: tuple[tuple[int, float], ...]  # (epoch, score), by epoch
    seconds: float  # of training and validation, all epochs
    device: str
    settings: dict[str, Any]  # all, by path
    values: dict[str, Any]  # the searched ones that it drew, by path
    decisions: tuple[Decision, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    reports: tuple[Mapping[str, Any], ...] = ()  # as reports.jsonl has them


@dataclass(frozen=True)
class Search:
    """A run and its trials, by number."""

    name: str
    folder: Folder
    card: RunCard
    metric: Metric
    trials: tuple[SearchedTrial, ...]
    space: tuple[Dimension, ...]
    space_text: str
    fidelity: tuple[Fidelity, ...]
    probes: ProbeTable
    damaged: tuple[str, ...]  # files that could not be read, and why

    @property
    def called(self) -> str:
        """What a command is given for it."""
        return name_of(self.folder)

    @property
    def scored(self) -> tuple[SearchedTrial, ...]:
        """The trials that have a score."""
        return tuple(trial for trial in self.trials if trial.score is not None)


def read_searches(folders: Sequence[Folder]) -> list[Search]:
    """The runs in the order of their folders. Raises: RunError, naming each of them, for runs in which no trial has a score."""
    searches = [read_search(folder) for folder in folders]
    mistakes = [_nothing_to_tell(search) for search in searches if not search.scored]
    if mistakes:
        raise RunError("\n".join(mistakes))
    return searches


def read_search(folder: Folder) -> Search:
    """One run. Raises: RunError when run.json is damaged or names a metric that is not known."""
    card, damaged = read_run(folder), []
    text = lenient(folder, SPACE, lambda file: file.read_text(), "", damaged)
    space = lenient(folder, SPACE, _space, None, damaged)
    dimensions = tuple(map(Dimension.of, space.parameters)) if space else ()
    fidelity = lenient(folder, "fidelity.json", lambda file: FIDELITIES.validate_python(read_json(file, "fidelity")["rungs"]), (), damaged)
    probes = lenient(folder, TABLE, read_probes, ProbeTable(), damaged)
    trials = []
    for place in list_trials(folder):
        try:
            trials.append(_searched_trial(read_record(place), space, dimensions))
        except DAMAGE as error:
            damaged.append(damage(f"trials/{place.name}", error))
    metric = metric_of(folder, card)
    return Search(folder.resolve().name, folder, card, metric, tuple(trials), dimensions, text, fidelity, probes, tuple(damaged))


def _space(file: Folder) -> Space:
    with local_file(file) as local:
        return read_space(local)


def _searched_trial(record: Record, space: Space | None, dimensions: Sequence[Dimension]) -> SearchedTrial:
    values, result = record.config.values(), record.result
    # A probe is none of the space's own trials.
    drawn = space.drawn(values) if space and not record.config.model.is_probe else {}
    curve = [(int(report["epoch"]), report["score"]) for report in record.reports if is_finite(report["score"])]
    return SearchedTrial(
        number=record.number,
        state=result.state,
        reason=result.reason,
        score=dict(curve).get(result.best_epoch),
        curve=tuple(sorted(curve)),
        seconds=float(sum(report.get("seconds", 0.0) for report in record.reports)),
        device=result.device,
        settings=flat(values),
        # A record may be of an earlier version of the space.
        values={one.path: drawn[one.path] for one in dimensions if one.path in drawn and one.takes(drawn[one.path])},
        decisions=record.decisions,
        versions=tuple(result.versions.items()) + ((("sweepvote", result.code),) if result.code else ()),
        reports=record.reports,
    )


def is_finite(value: Any) -> bool:
    """Whether it is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def damage(name: str, error: Exception) -> str:
    """What is said of a file that cannot be read."""
    return f"{name} ({type(error).__name__}: {str(error).partition(chr(10))[0]})"


def lenient(run: Folder, name: str, read: Callable[[Folder], Read], otherwise: Read, damaged: list[str]) -> Read:
    """What a file of the run holds; `otherwise` where it is not there, or damaged, which is noted."""
    try:
        return read(run / name) if (run / name).is_file() else otherwise
    except (*DAMAGE, AttributeError, DecompressionBombError) as error:  # AttributeError: something is no table of its own
        damaged.append(damage(name, error))
        return otherwise


def _nothing_to_tell(search: Search) -> str:
    counts = [f"{count} {state}" for state in STATES if (count := sum(trial.state == state for trial in search.trials))]
    counts += [f"{len(search.damaged)} damaged: {'; '.join(search.damaged[:5])}"] if search.damaged else []
    if search.card.refit_of and any(trial.seconds for trial in search.trials):
        words = f"{search.name}: its trials had no validation split, so there is no score to report"
        return f"{words}; name the run that it refits: --run {name_of(searched_run(search.folder, search.card))}"
    there = ", ".join(counts) or "it has no trials"
    go_on = typed(f"tuner.run --resume {search.called}")
    return f"{search.name}: no trial has a score yet ({there}). Resume it until one has finished: {go_on}"
