"""Resuming a run: what its records say, and what is done with each trial. Ray's own experiment state is not read."""

import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import safe_open

from search_spaces.schema import Space, as_drawn, flat, holds, nested
from trainables.config import TrialConfig
from trainables.record import (
    DAMAGE,
    FIRST,
    LAST,
    MODEL,
    EpochReport,
    Record,
    drop_last,
    end_record,
    list_trials,
    read_config,
    read_last,
    read_predictions,
    read_record,
)
from trainables.registry import ConfigError, UnknownEntryError
from trainables.storage import Folder, local_file, move_tree
from trainables.trial import why_it_ended
from tuner.runs import numbered
from tuner.stoppers.pruner import Pruner

REPORTS = TypeAdapter(list[EpochReport])


@dataclass(frozen=True)
class Damaged:
    """A record that cannot be used."""

    folder: Folder
    why: str
    values: dict[str, Any] | None  # of its configuration, where that can still be read and has a place in the space

    def __str__(self) -> str:
        return f"trial {self.folder.name} ({self.why})"


@dataclass(frozen=True)
class Stock:
    """What becomes of the trials of a resumed run."""

    ended: tuple[Record, ...] = ()  # stay as they are
    going_on: tuple[Record, ...] = ()  # from the last epoch whose state was written
    misfits: tuple[Record, ...] = ()  # were interrupted, and the edited space has no place for them
    damaged: tuple[Damaged, ...] = ()  # are quarantined and trained again
    probes: tuple[Record, ...] = ()  # were trained before the search, whose space does not draw them
    unknown: tuple[Damaged, ...] = ()  # stay as they are: intact, but their settings name parts that this version does not have

    @property
    def kept(self) -> tuple[Record, ...]:
        """The trials that will not run again, by number."""
        return tuple(sorted((*self.ended, *self.misfits), key=lambda record: record.number))

    @property
    def proposals(self) -> dict[int, dict[str, Any]]:
        """The configurations to train further or again, by number."""
        values = {record.number: record.config.values() for record in self.going_on}
        return values | {int(item.folder.name): item.values for item in self.damaged if item.values}


def take_stock(run: Folder, space: Space, fixed: Mapping[str, Any], *, retry: bool) -> Stock:
    """Read every record and decide; nothing is changed yet.

    Args:
        fixed: values that the run adds to every configuration.
        retry: whether trials whose process died too often get another chance.
    """
    ended, going_on, misfits, damaged, unknown, probes = [], [], [], [], [], []
    for folder in list_trials(run):
        try:
            record = read_record(folder)
            verify(record)
        except UnknownEntryError as error:
            unknown.append(Damaged(folder, str(error), None))
            continue
        except DAMAGE as error:
            values = _values(folder)
            again = values if values and fits(space, values, fixed) else None
            damaged.append(Damaged(folder, f"{type(error).__name__}: {error}", again))
            continue
        if record.config.model.is_probe and not fits(space, record.config.values(), fixed):
            probes.append(record)
            continue
        open_ended = record.result.state == "interrupted" or (retry and record.result.cause == "crash")
        if not open_ended or (record.reports and record.reports[-1]["last"]):
            ended.append(record)
        elif fits(space, record.config.values(), fixed):
            going_on.append(record)
        else:
            misfits.append(record)
    return Stock(*map(tuple, (ended, going_on, misfits, damaged, probes, unknown)))


def settle(stock: Stock, run: Folder, pruner: Pruner) -> Stock:
    """Quarantine damaged records, write missing final states, and let the pruner decide on reports that have not reached it."""
    for item in stock.damaged:
        quarantine(item.folder, run)
    ended, going_on = [], []
    for record in stock.ended:
        if record.result.state in ("interrupted", "failed") and record.reports and record.reports[-1]["last"]:
            end_record(record.folder, "finished", why_it_ended(len(record.reports), record.config))
            record = read_record(record.folder)
        if record.result.state in ("finished", "stopped"):
            # Its process may have died between the final state and this.
            drop_last(record.folder)
        ended.append(record)
    pruner.recall((*ended, *stock.going_on, *stock.misfits))
    for record in stock.going_on:
        if record.reports and pruner.stops_earlier(record):
            end_record(record.folder, "stopped", pruner.reasons[record.number])
            ended.append(read_record(record.folder))
        else:
            going_on.append(record)
    return replace(stock, ended=tuple(ended), going_on=tuple(going_on))


def verify(record: Record) -> None:
    """Raises: one of DAMAGE when a file of the record cannot be used, or files that belong together do not fit."""
    reports, result = REPORTS.validate_python(record.reports), record.result
    epochs = [report.epoch for report in reports]
    if epochs != list(range(1, len(epochs) + 1)):
        raise ValueError(f"reports.jsonl holds the epochs {epochs}")
    if result.best_epoch > len(epochs) or (epochs and not result.best_epoch and result.state != "interrupted"):
        raise ValueError(f"result.json names epoch {result.best_epoch} the best, reports.jsonl holds {len(epochs)}")
    if result.state == "finished" and not (reports and reports[-1].last):
        raise ValueError("result.json says finished, and reports.jsonl does not hold the last epoch")
    if epochs:
        if result.attempt == 0:
            raise ValueError("result.json is missing")
        read_predictions(record.folder)
    if record.has_model:
        _verify_weights(record.model)
    elif epochs and result.state == "interrupted":
        raise ValueError(f"{MODEL} is missing")
    if record.config.data.goes_on and result.state == "interrupted":
        _verify_weights(record.folder / FIRST)
    if (result.state == "interrupted" or result.cause == "crash") and not (reports and reports[-1].last):
        done = _epochs_done(read_last(record.folder))
        # It is written after the first report, and after some of the later ones.
        if not min(len(epochs), 2) - 1 <= done <= len(epochs):
            raise ValueError(f"{LAST} is of epoch {done}, the last report of epoch {len(epochs)}")


def _verify_weights(weights: Folder) -> None:
    with local_file(weights) as file, safe_open(file, framework="pt"):
        pass


def _epochs_done(last: bytes | None) -> int:
    if last is None:
        return 0
    try:
        return torch.load(io.BytesIO(last), map_location="cpu", weights_only=True)["progress"]["epoch"]
    except (RuntimeError, UnpicklingError, IndexError) as error:
        raise ValueError(f"{LAST}: {str(error).splitlines()[0]}") from None


def fits(space: Space, values: Mapping[str, Any], fixed: Mapping[str, Any]) -> bool:
    """Whether a space, with what the run adds, can draw this very configuration."""
    given = flat(values)
    drawn: dict[str, Any] = {}
    for parameter in space.parameters:
        if holds(parameter.when, space.settled(drawn) | dict(fixed)):
            drawn[parameter.path] = as_drawn(parameter.domain, given.get(parameter.path))
            if not parameter.domain.holds(drawn[parameter.path]):
                return False
    return TrialConfig.from_values(nested(space.settled(drawn) | dict(fixed))) == TrialConfig.from_values(values)


def quarantine(folder: Folder, run: Folder) -> Folder:
    """Move a trial's folder to the run's damaged ones, under a name that is free."""
    names = numbered(folder.name, first=folder.name)
    place = next(run / "damaged" / name for name in names if not (run / "damaged" / name).exists())
    place.parent.mkdir(parents=True, exist_ok=True)
    move_tree(folder, place)
    return place


def _values(folder: Folder) -> dict[str, Any] | None:
    with suppress(ConfigError, *DAMAGE):
        return read_config(folder)[0].values()
    return None
