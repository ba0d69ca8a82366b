"""One trial as Ray Tune runs it: a thin adapter between `fit`, the record and Tune."""

import errno
import gc
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Any, Self

import ray
import torch
from ray import tune
from ray._raylet import setproctitle  # pyrefly: ignore[missing-module-attribute]

from trainables.build import build_parts
from trainables.card import Card
from trainables.checkpoint import begin_from, pack_model, pack_progress, unpack_progress
from trainables.config import TrialConfig
from trainables.curves import Curves
from trainables.data.images import ImageError
from trainables.data.shipping import ensure_view
from trainables.data.training import Data
from trainables.data.view_store import view_cache
from trainables.data.views import View, ViewFile
from trainables.devices import device_here
from trainables.extensions import Extension, ExtensionError, fault_of, hashes, load
from trainables.loop import DivergedError, Progress, next_micro_batch
from trainables.models.offline import offline_words
from trainables.models.settings import ModelConfig
from trainables.probe import epochs_of
from trainables.record import (
    FIRST,
    MODEL,
    Cause,
    Predictions,
    Result,
    end_record,
    read_last,
    read_reports,
    read_result,
    start_record,
    trial_folder,
    write_last,
    write_predictions,
    write_reports,
    write_result,
)
from trainables.registry import ConfigError
from trainables.storage import UNWRITABLE, Folder, write_atomically
from trainables.versions import device_name, versions

SMALL = 16 * 2**20  # bytes of a state that is written after every epoch, in some hundredths of a second
SPARED = 20.0  # seconds of training for each second that goes into writing a larger one
AT_WORK = "its process died, or is still running"

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Shelf:
    """Where the nodes of a cluster get the decoded images that they do not have."""

    actor: Any  # answers `piece(view, contents)` on the node that has the image files


@dataclass(frozen=True)
class Job:
    """What all trials of a run share."""

    run: Folder
    data: Data
    code: str  # version of this project
    threads: int  # CPU threads a trial may use
    shelf: Shelf | None = None  # None: every trial runs where the images are
    others: Mapping[int, Data] = field(default_factory=dict)  # by the fold that validates, where that is not the one of `data`
    searched: tuple[str, ...] = ()  # paths of the settings that differ among the trials
    extensions: tuple[Extension, ...] = ()  # which the trials' settings may name; a process executes them before it reads any

    def of_fold(self, fold: int) -> Self:
        """The job with the data of which this fold validates."""
        return replace(self, data=self.others.get(fold, self.data))


class Pace:
    """When to write what is needed to continue, so that a large model with short epochs spends at most a twentieth of its time on it.

    The first epoch of a process always writes and shows what a write costs. A process that ends loses the training since the last
    write, some `SPARED` times as long as a write takes, or one epoch; a soft stop ends it as suddenly, in Tune's hands.
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._size = 0
        self._cost = self._written = 0.0

    @property
    def due(self) -> bool:
        return self._size <= SMALL or self._clock() - self._written >= SPARED * self._cost

    def write(self, folder: Folder, pack: Callable[[], bytes]) -> None:
        start = self._clock()
        content = pack()
        write_last(folder, content)
        self._written = self._clock()
        self._size, self._cost = len(content), self._written - start


class Superseded(Exception):
    """Another process has taken over this trial; this one must not write any more."""


def run_trial(proposal: dict[str, Any], job: Job) -> None:
    """Train one proposed configuration to its end, reporting every epoch to Tune and to its record.

    Args:
        proposal: `number` of the trial and the nested `values` of its configuration.
    """
    number = proposal["number"]
    try:
        load(job.extensions)
    except ExtensionError as error:
        tune.report({"number": number, "halt": f"node {socket.gethostname()}: {error}", "no_room": False})
        return
    config = TrialConfig.from_values(proposal["values"])
    if not (job.run / "run.json").is_file():
        lost = f"node {socket.gethostname()} cannot read {job.run}: give --storage a folder that all nodes share, or an object store"
        tune.report({"number": number, "halt": lost, "no_room": False})
        return
    # What Ray's dashboard, top and nvidia-smi show. Ray names the process after the class that all trials share at every call of it.
    name = f"ray::trial {number} {config.model.backbone}"
    setproctitle(name)

    def report(metrics: dict[str, Any]) -> None:
        tune.report(metrics)
        setproctitle(name)

    try:
        train(number, config, fetched(job.of_fold(config.data.fold), View.of(config.view)), report)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        no_room = error.errno != errno.EROFS
        tune.report({"number": number, "halt": f"{job.run}: {error.strerror}", "no_room": no_room})


def fetched(job: Job, view: View) -> Job:
    """The job with the view in this node's own cache, brought there from the shelf where it is missing."""
    shelf = job.shelf
    if shelf is None:
        return job

    piece = shelf.actor.piece

    def here(views: Mapping[View, ViewFile]) -> Mapping[View, ViewFile]:
        file = ensure_view(views[view], view_cache(), lambda contents: ray.get(piece.remote(view, contents)))
        return {**views, view: file}

    extra = tuple(replace(extra, views=here(extra.views)) for extra in job.data.extra)
    return replace(job, data=replace(job.data, views=here(job.data.views), extra=extra))


def train(number: int, config: TrialConfig, job: Job, report: Report, clock: Callable[[], float] = monotonic) -> None:
    """Train a trial and keep its record; `report` is called after each epoch and may end the trial by raising.

    A trial that stopped half-way, because its process died, resumes after the last epoch whose state was written (see `Pace`). Epochs
    that were reported since are trained again for their tensors only: the record of them stands. `report` first gets every
    epoch that it holds once more. One whose batch does not fit the GPU resumes from there too, with the batch in smaller parts.

    A failure of the trial itself is reported as {"number", "failed", "cause"}. Raises: OSError when the record cannot be written.
    """
    folder = trial_folder(job.run, number)
    torch.set_num_threads(job.threads)
    device = device_here()
    try:
        result = _begin(folder, config, job, device)
        reports = read_reports(folder)
        # Not all need have been heard: an earlier process died before it could say so, or outlived its command for some epochs.
        for line in reports:
            report({"number": number, "best": reports[line["best_epoch"] - 1]["score"], **line})
        while True:
            try:
                _train(number, config, job, report, device, result, Pace(clock))
                return
            except torch.cuda.OutOfMemoryError as error:
                smaller = next_micro_batch(config.train.batch_size, result.micro_batch)
                if smaller is None:
                    _fail(folder, number, error, "memory", report)
                    return
                result = _with_parts_of(smaller, folder, config, result)
            # Only here does nothing refer to the failed attempt's tensors any more.
            _free(device)
    except DivergedError as error:
        _fail(folder, number, error, "diverged", report)
    except ConfigError as error:
        _fail(folder, number, error, "settings", report)
    except ImageError as error:
        _fail(folder, number, error, "photo", report)
    except Superseded:
        return
    except Exception as error:
        if not (fault := fault_of(error)):
            raise
        _fail(folder, number, ExtensionError(fault), "settings", report)
    finally:
        # The next trial reuses this process; nothing of this one may stay, least of all GPU memory.
        _free(device)


def _begin(folder: Folder, config: TrialConfig, job: Job, device: torch.device) -> Result:
    start_record(folder, config)
    earlier, reports = read_result(folder), read_reports(folder)
    best, reason = (reports[-1]["best_epoch"], AT_WORK) if reports else (0, "ended before its first report")
    result = Result(
        "interrupted",
        reason,
        best,
        job.data.split.hash,
        device_name(device),
        job.code,
        versions(),
        attempt=earlier.attempt + 1 if earlier else 1,
        threads=job.threads,
        micro_batch=earlier.micro_batch if earlier else 0,
        notes=earlier.notes if earlier else tuple(weights_notes(config.model)),
        extensions=hashes(job.extensions),
    )
    write_result(folder, result)
    return result


def weights_notes(config: ModelConfig) -> Iterator[str]:
    """Where ImageNet weights come from that no hub gave, in words."""
    for name in filter(None, (config.backbone, config.second)):
        if config.weights == "imagenet" and (package := offline_words(name)):
            yield f"the imagenet weights of {name} are those of the package {package}"


def _train(number: int, config: TrialConfig, job: Job, report: Report, device: torch.device, result: Result, pace: Pace) -> None:
    folder = trial_folder(job.run, number)
    curves = Curves(folder, config, result.attempt, job.searched)
    try:
        threads = job.threads if device.type != "cpu" else 0
        parts = build_parts(config, job.data, device, threads=threads, micro_batch=result.micro_batch)
        if config.data.goes_on:
            begin_from(folder / FIRST, parts)
        state = read_last(folder)
        progress = unpack_progress(state, parts) if state else Progress()
        reports = list(read_reports(folder))
        known_scores = [line["score"] for line in reports]
        valid_ids = tuple(job.data.images.ids[index] for index in job.data.split.valid)
        for epoch in epochs_of(config, parts, progress, known_scores):
            _still_ours(folder, result)
            number_of_epoch, last = epoch.report.epoch, epoch.report.last
            best = None if epoch.report.score is None else epoch.progress.best_score
            if number_of_epoch > len(reports):
                reports.append(asdict(epoch.report))
                result = replace(result, reason=AT_WORK, best_epoch=epoch.progress.best_epoch)
                if epoch.report.best_epoch == number_of_epoch:
                    card = Card(config, job.data.images.scheme, number_of_epoch)
                    write_atomically(folder / MODEL, pack_model(parts.evaluated, card))
                    write_predictions(folder, Predictions(valid_ids, epoch.probabilities, number_of_epoch))
                # Before the reports: an epoch that is drawn twice is one point, one that is missing stays a gap.
                curves.add(epoch.report, best)
                write_reports(folder, reports)
                write_result(folder, result)
            # After the reports, so that a process which dies in between does this epoch again instead of leaving a gap in them.
            if last:
                end_record(folder, "finished", why_it_ended(number_of_epoch, config))
            elif pace.due:
                pace.write(folder, partial(pack_progress, parts, epoch.progress))
            report({"number": number, "best": best, **reports[number_of_epoch - 1]})
    finally:
        curves.close()


def why_it_ended(epoch: int, config: TrialConfig) -> str:
    """The reason of a finished trial, in words."""
    if config.model.is_probe:
        return "made its heads of texts" if config.model.is_zero_shot else "fitted its heads to frozen features"
    if epoch == config.epochs:
        return f"trained all {config.epochs} epochs"
    return f"no better score for {config.train.patience} epochs"


def _still_ours(folder: Folder, result: Result) -> Result:
    """The trial's result as it stands now. Raises: Superseded."""
    now = read_result(folder)
    if now is None or now.attempt != result.attempt:
        raise Superseded
    return now


def _with_parts_of(images: int, folder: Folder, config: TrialConfig, result: Result) -> Result:
    result = _still_ours(folder, result)
    note = (
        f"out of GPU memory in epoch {len(read_reports(folder)) + 1}: batches of {config.train.batch_size} are split into parts of {images}"
    )
    result = replace(result, micro_batch=images, notes=(*result.notes, note))
    write_result(folder, result)
    return result


def _fail(folder: Folder, number: int, error: Exception, cause: Cause, report: Report) -> None:
    # An outcome, not a crash: Tune would train it again and fail again.
    reason = str(error).splitlines()[0]
    end_record(folder, "failed", reason, cause)
    report({"number": number, "failed": reason, "cause": cause})


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
    elif device.type == "mps":
        gc.collect()
        torch.mps.empty_cache()
