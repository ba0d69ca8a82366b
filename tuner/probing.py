"""Before a search proposes anything: a linear probe of every backbone and view that its space can draw.

Each is a trial like any other (see `trainables.probe`), with a number after the baseline's and beside those that --trials counts. What they
scored decides which backbone and view the search tries first, and which ones it draws more often while it knows little.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError
from rich.console import Console
from rich.table import Table

from analysis.evaluation.scoring import guess_score
from analysis.evaluation.search.probes import ProbeRow, ProbeTable, probes_of, write_probes
from analysis.members.trials import Sample
from search_spaces.schema import Space
from trainables.baseline import FIRST, baseline_of
from trainables.build import build_parts
from trainables.config import TrialConfig
from trainables.data.names import some
from trainables.data.targets import read_task
from trainables.data.training import Data
from trainables.data.views import View
from trainables.devices import device_here
from trainables.extensions import load
from trainables.metrics import Metric, metric_of
from trainables.models.backbone import build_backbone
from trainables.probe import nearest, probe_features
from trainables.probe_config import METHODS
from trainables.progress import progress_bar
from trainables.record import (
    DAMAGE,
    Predictions,
    Record,
    end_record,
    list_trials,
    ranked,
    read_config,
    read_predictions,
    read_record,
    read_result,
    trial_folder,
)
from trainables.registry import ConfigError, Mistake
from trainables.storage import Folder
from trainables.trial import Job, fetched, train
from trainables.validation import pooled_score
from tuner.board import clock
from tuner.candidates import NOTHING, candidates
from tuner.cluster import Slots
from tuner.prepare import Plan
from tuner.resume import quarantine, verify
from tuner.stoppers.soft_stop import SoftStop

MOST = 12  # probes of a search
LOOKS = {False: 60_000, True: 2_000_000}  # images of 224x224 that all probes look at, at most, without and with a GPU
SHARE, LONGEST = 0.1, 600.0  # of a time budget, and without one seconds: how long the probes before a search may take
NEAREST = "k-NN"  # beside the METHODS of trials
GOOD = 0.5  # of the way from guessing to the best score that there is; above it fine-tuning may begin with the probe's heads
PATIENCE = 2  # backbones whose weights could not be had before no hub is asked again
TRIED = 2  # backbones and views whose trials come right after the baseline


def probe(plan: Plan, job: Job, slots: Slots, soft_stop: SoftStop, console: Console, *, rehearsed: bool, seconds: float = math.inf) -> None:
    """Train the probes that are not trained yet, and show what all of them scored in a table, which the run keeps.

    Args:
        rehearsed: whether the weights of all backbones are known to be there.
        seconds: that the probes may take; those that would take longer, at the pace of the first ones, are left out for good.
    """
    wanted, metric = candidates(plan.space, plan.fixed, [tasks[0] for tasks in plan.kinds().values()]), plan.settings.score()
    if not wanted:
        console.print(f"No probe: {NOTHING}; the search begins from scratch.", soft_wrap=True, highlight=False)
        return
    if not rehearsed:
        wanted = list(_with_weights(wanted, console))
    known = probes_of(job.run)
    neighbours, left_out = known.neighbours, known.left_out if seconds < math.inf else []
    wanted = [one for one in wanted if name_of(one) not in left_out]
    if not wanted:
        return
    kept = affordable(wanted, len(job.data.split.train) + len(job.data.split.valid), on_gpu=slots.gpus > 0)
    if left := [name_of(one) for one in wanted[len(kept) :]]:
        console.print(f"{len(left)} probes are left out, to begin soon: {some(left)}", style="yellow", soft_wrap=True)
    numbered = with_numbers(job.run, kept)
    todo = {
        number: config
        for number, config in numbered.items()
        if not _is_told(trial_folder(job.run, number), number in neighbours or config.model.is_zero_shot)
    }
    measured = {row.trial: row.seconds for row in known.rows if row.trial in numbered}
    began = monotonic()

    def keep_table() -> None:
        """Write what is known now."""
        rows = [row for row in map(partial(_probe_row, job), numbered.items()) if row]
        measured.update({row.trial: row.seconds for row in rows if row.trial})
        rows += [row for number, row in neighbours.items() if number in numbered]
        rows.sort(key=lambda row: (-metric.sign * row.score, row.trial is None))
        guess = guess_of(job.data, next(iter(numbered.values())))
        write_probes(job.run, ProbeTable(metric.name, guess, rows, neighbours, left_out))

    def late(waiting: Mapping[int, TrialConfig]) -> list[int]:
        """Those for which there is no time, which is said."""
        found = too_long(waiting, [(numbered[one], took) for one, took in measured.items()], seconds - (monotonic() - began), slots())
        if found:
            names = [name_of(numbered[number]) for number in found]
            left_out.extend(names)
            keep_table()
            words = f"{len(names)} probes are left out, as all would take longer than the {clock(seconds)} that there are for them"
            console.print(f"{words}: {some(names)}", style="yellow", soft_wrap=True, highlight=False)
        return found

    with progress_bar("linear probes of what the space's backbones see", len(todo)) as advance:
        for number, found in _train(todo, job, slots, soft_stop, late, console):
            advance(1)
            if found is not None:
                config, own = numbered[number], job.of_fold(numbered[number].data.fold).data
                neighbours[number] = _row(config, own, found.heads, NEAREST, None, found.seconds, found.milliseconds)
            keep_table()
    table = probes_of(job.run)
    if todo and table.rows:
        console.print(table_of(table, metric))


def affordable(configs: Sequence[TrialConfig], images: int, *, on_gpu: bool) -> Sequence[TrialConfig]:
    """As many of the probes, from the first on, as are not too many and do not look at too many pixels; at least one."""
    looks = np.cumsum([images * one.view.height * one.view.width / 224**2 for one in configs])
    return configs[: max(1, min(MOST, int((looks <= LOOKS[on_gpu]).sum())))]


def name_of(config: TrialConfig) -> str:
    """What a probe is called: its backbone, the weights that are no hub's, its view, and whether texts make its heads."""
    model = config.model
    weights = "" if model.weights == "imagenet" else f" ({Path(model.weights).name})"
    return f"{'zero-shot ' if model.is_zero_shot else ''}{model.backbone}{weights} at {View.of(config.view)}"


def too_long(waiting: Mapping[int, TrialConfig], measured: Sequence[tuple[TrialConfig, float]], left: float, slots: int) -> list[int]:
    """The numbers of the probes that there is no time for, the longest first; none before one is measured.

    A probe takes in proportion to its pixels what those of its backbone took, or all of them where none of these has ended.

    Args:
        measured: probes that have ended, and their seconds.
        left: seconds for all that are waiting.
        slots: probes at a time.
    """
    if not measured:
        return []

    def pace(own: Sequence[tuple[TrialConfig, float]]) -> float:
        return sum(took for _, took in own) / sum(map(pixels, (config for config, _ in own)))

    def pixels(config: TrialConfig) -> int:
        return config.view.height * config.view.width

    takes = {}
    for number, config in waiting.items():
        same = [one for one in measured if (one[0].model.backbone, one[0].model.weights) == (config.model.backbone, config.model.weights)]
        takes[number] = pace(same or measured) * pixels(config)
    found = []
    for number in sorted(takes, key=lambda one: (-takes[one], one)):
        if sum(takes.values()) / slots <= left:
            break
        found.append(number)
        del takes[number]
    return found


def _with_weights(configs: Sequence[TrialConfig], console: Console) -> Iterator[TrialConfig]:
    """The probes whose weights can be had; why others cannot is said once for each backbone."""
    known: dict[tuple[str, str], bool] = {}
    refused = 0
    for config in configs:
        name = config.model.backbone, config.model.weights
        if name not in known:
            try:
                if refused >= PATIENCE and config.model.weights == "imagenet":
                    raise ConfigError([Mistake("model/weights", f"not asked for, as {refused} others could not be had")])
                build_backbone(config.model, (config.view.height, config.view.width))
                known[name] = True
            except ConfigError as error:
                known[name], refused = False, refused + 1
                console.print(
                    f"No probe of {config.model.backbone}: {error}", style="yellow", soft_wrap=True, highlight=False, markup=False
                )
        if known[name]:
            yield config


def table_of(found: ProbeTable, metric: Metric) -> Table:
    """The probes and their nearest neighbours, best first."""
    title = f"Frozen features, by {metric.title} on validation; guessing scores {found.guess:.3f}"
    table = Table(title=title, title_justify="left", box=None)
    for column in ("trial", metric.title, "95 % CI", "seconds", "ms an image"):
        table.add_column(column, justify="right")
    several = len({row.predicts for row in found.rows}) > 1
    for column in (*(["predicts"] if several else []), "heads", "backbone", "weights", "view"):
        table.add_column(column, overflow="fold")
    for row in found.rows:
        low, high = row.interval
        trial = "-" if row.trial is None else str(row.trial)
        figures = (f"{row.score:.3f}", f"{low:.3f} - {high:.3f}", f"{row.seconds:.1f}", f"{row.milliseconds:.1f}")
        # A file's folder would take up the line.
        predicts = [row.predicts] if several else []
        table.add_row(trial, *figures, *predicts, row.method, row.backbone, Path(row.weights).name, row.view)
    return table


def with_numbers(run: Folder, configs: Sequence[TrialConfig]) -> dict[int, TrialConfig]:
    """The probes by their numbers: those that they have already, else the first free ones after the baseline's.

    A record of a probe that is damaged is quarantined, so that it is trained again.
    """
    numbers: dict[int, TrialConfig] = {}
    taken = {FIRST}
    for folder in list_trials(run):
        number, config = int(folder.name), None
        with suppress(ConfigError, *DAMAGE):
            config = read_config(folder)[0]
        taken.add(number)
        if config in configs and config not in numbers.values():
            numbers[number] = config
            try:
                verify(read_record(folder))
            except DAMAGE:
                quarantine(folder, run)
    free = (number for number in count(FIRST + 1) if number not in taken)
    return dict(sorted((numbers | {next(free): config for config in configs if config not in numbers.values()}).items()))


@dataclass(frozen=True, eq=False)
class Neighbours:
    """What k-NN answers for the validation images."""

    heads: list[np.ndarray]  # (n, columns) per head
    seconds: float
    milliseconds: float  # that the network takes for an image


def probe_there(number: int, values: dict[str, Any], job: Job) -> Neighbours | None:
    """Train one probe that has not ended, in a process of Ray's; None where that failed, which its record says, and for a zero-shot one,
    whose neighbours are those of the linear probe."""
    load(job.extensions)
    config = TrialConfig.from_values(values)
    own, folder = fetched(job.of_fold(config.data.fold), View.of(config.view)), trial_folder(job.run, number)
    if not _has_ended(folder):
        train(number, config, own, report=lambda report: None)
    result = read_result(folder)
    if result is None or result.state != "finished" or config.model.is_zero_shot:
        return None
    start = perf_counter()
    device = device_here()
    parts = build_parts(config, own.data, device)
    features = probe_features(parts)
    heads = nearest(parts, features)
    return Neighbours(heads, perf_counter() - start, 1000 * features[0].seconds)


def _train(
    todo: Mapping[int, TrialConfig],
    job: Job,
    slots: Slots,
    soft_stop: SoftStop,
    late: Callable[[Mapping[int, TrialConfig]], Iterable[int]],
    console: Console,
) -> Iterator[tuple[int, Neighbours | None]]:
    """The numbers of the probes as they end, and what k-NN answers with the same features.

    Args:
        late: which of those that have not begun are not to begin.
    """
    share = {"num_cpus": slots.cpus, "num_gpus": slots.gpus, "max_calls": 1 if slots.gpus else 0}
    shared, train_one = ray.put(job), ray.remote(**share)(probe_there)
    waiting, running = dict(todo), {}
    while (waiting or running) and not soft_stop.asked:
        while waiting and len(running) < slots():
            number = next(iter(waiting))
            running[train_one.remote(number, waiting.pop(number).values(), shared)] = number
        for ended in ray.wait(list(running), timeout=0.5)[0]:
            number, found = running.pop(ended), None
            try:
                found = ray.get(ended)
            except RayError as error:
                end_record(trial_folder(job.run, number), "failed", str(error).strip().splitlines()[-1], "crash")
            result = read_result(trial_folder(job.run, number))
            if result is None or result.state != "finished":
                why = result.reason if result else "its process died"
                console.print(f"The probe of {todo[number].model.backbone} failed: {why}", style="yellow", soft_wrap=True, highlight=False)
            yield number, found
        for number in late(waiting):
            del waiting[number]
    for one in running:
        ray.cancel(one, force=True)


def _is_told(folder: Folder, neighbours: bool) -> bool:
    """Whether nothing is missing of a probe: a command that died may have left its record, and not yet what its neighbours say.

    Args:
        neighbours: whether that is known, or nobody asks for it.
    """
    return _has_ended(folder) and (neighbours or read_record(folder).result.state != "finished")


def _has_ended(folder: Folder) -> bool:
    with suppress(*DAMAGE):
        result = read_record(folder).result
        return result.state == "finished" or (result.state == "failed" and result.cause != "crash")
    return False


def _probe_row(job: Job, numbered: tuple[int, TrialConfig]) -> ProbeRow | None:
    number, config = numbered
    folder = trial_folder(job.run, number)
    if not _has_ended(folder) or not (report := read_record(folder).best):
        return None
    data, heads, method = job.of_fold(config.data.fold).data, read_predictions(folder).heads, METHODS[config.model.heads]
    return _row(config, data, heads, method, number, report["seconds"], 1000 / report["images_per_second"])


def _row(
    config: TrialConfig, data: Data, heads: list[np.ndarray], method: str, trial: int | None, seconds: float, milliseconds: float
) -> ProbeRow:
    ids = tuple(data.images.ids[row] for row in data.split.valid)
    score, interval = pooled_score([(config, Predictions(ids, heads, 1))], data.images, data.split)
    view, predicts = str(View.of(config.view)), ", ".join(read_task(config.task, data.images.scheme).scheme.names)
    return ProbeRow(config.model.backbone, config.model.weights, view, method, trial, score, interval, seconds, milliseconds, predicts)


def guess_of(data: Data, config: TrialConfig) -> float:
    """The score on validation of the best answer that looks at no image."""
    images, task = data.images, read_task(config.task, data.images.scheme)
    metric = metric_of(config.metric, task.scheme)
    whole = Sample.of(images)
    return guess_score(whole.take(data.split.valid), whole.take(data.split.train), task.scheme.of_kind(metric.target), metric, config.seed)


# What the search makes of it


def shown_by(space: Space, record: Record) -> dict[str, Any]:
    """The searched values, by path, of the backbone, its statistics and the view that a probe used."""
    drawn = space.drawn(record.config.values())
    paths = ("model/backbone", "model/weights", "normalize")
    return {path: value for path, value in drawn.items() if path in paths or path.startswith("view/")}


def first_tries(space: Space, probes: Sequence[Record], metric: Metric, guess: float) -> list[dict[str, Any]]:
    """What the search tries after the baseline: that with the backbones and views of the best probes, by path.

    The first one begins with the probe's heads, where the space can draw that and the probe is good: at least GOOD of the way from
    guessing to the best score that there is.
    """
    begin, best = baseline_of(space), ranked(probes, metric.sign)
    tries: list[dict[str, Any]] = []
    for record in best:
        one = begin | shown_by(space, record)
        if not tries and _is_good(record.best["score"], guess, metric):
            heads = record.config.model.heads
            one |= {p.path: heads for p in space.parameters if p.path == "model/heads" and p.domain.holds(heads)}
        if one != begin and one not in tries:
            tries.append(one)
    return tries[:TRIED]


def _is_good(score: float, guess: float, metric: Metric) -> bool:
    perfect = metric.bounds[1] if metric.sign > 0 else metric.bounds[0]
    return metric.sign * (score - guess) >= GOOD * metric.sign * (perfect - guess)


def prior_of(space: Space, probes: Sequence[Record], metric: Metric) -> list[dict[str, Any]]:
    """The searched values of the backbone and view of each probe, best first, each once."""
    found = [shown_by(space, record) for record in ranked(probes, metric.sign)]
    return [one for place, one in enumerate(found) if one and one not in found[:place]]
