"""How soon does a search find a good configuration? Regret against epochs trained, in worlds where the truth is known.

A world has a space of choices, numbers and conditions, a true final score for each configuration, and learning curves with noise; it is
drawn from a seed. Where curves are `benign`, the order after two epochs says much of the order at the end (rank correlation 0.95);
where they are `crossing`, small learning rates and strong regularisation begin slowly and win (0.56; 0.49 was measured on 240 real people).
Searchers and pruners are the real ones, as a run has them; nothing is trained, and Ray is not started. One to four trials run at a time,
by the seed. What is compared is paired: each entry meets the same worlds.

Regret is the best possible true score less the best true score, without noise, that any trial has shown so far; a trial that was stopped
has shown what it reached. `to random's best`: epochs after which the mean regret is what random search ends with. `patience saves`: the
share of the epochs after the moment at which run/patience would have ended the search, and the regret that this costs.

    uv run python -m benchmarks.search [--seeds 30] [--entry tpe+asha] [--kind crossing]
"""

import heapq
import json
import math
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer
from optuna.samplers import TPESampler
from rich.table import Table

from search_spaces.read import read_space
from search_spaces.schema import Choice, Domain, Space, same
from trainables.baseline import baseline_of
from trainables.config import choosers
from trainables.console import open_console
from trainables.metrics import DEFAULT, METRICS
from trainables.record import Decision
from trainables.registry import nearest
from tuner.patience import expected
from tuner.searchers import SEARCHERS
from tuner.searchers.sampling import Ask, MakeSampler
from tuner.searchers.study import StudySearcher
from tuner.searchers.unit import to_unit
from tuner.settings import RunSettings
from tuner.stoppers.history import History, Stopper, TrialReport
from tuner.stoppers.pruner import Pruner, never_stopped

SPACE = """
task: {choice: [joint, heads]}
model:
  backbone: {choice: [first, second, third, fourth, fifth]}
  dropout:  {float: [0.0, 0.5]}
loss:
  name:      {choice: [cross_entropy, focal]}
  smoothing: {float: [0.0, 0.2]}
  gamma:     {float: [0.5, 4.0]}
mix:
  name:  {choice: [none, mixup, cutmix]}
  alpha: {float: [0.1, 2.0], log: true}
sampler: {name: {choice: [shuffle, weighted]}}
optimizer:
  name: {choice: [adamw, sgd]}
  lr:   {float: [1.0e-4, 1.0e-1], log: true}
  weight_decay: {float: [1.0e-5, 1.0e-1], log: true}
"""
BEST = 0.8  # the true score of the best configuration
CHANCE = 0.1
NOISE = 0.012  # standard deviation of a validation score
# The most that a number costs where it is far from its best value.
COSTS = {"optimizer/lr": 0.4, "optimizer/weight_decay": 0.08, "model/dropout": 0.08, "loss/smoothing": 0.03, "loss/gamma": 0.05}
COSTS["mix/alpha"] = 0.05
SGD = 0.3  # by how much of its range sgd's best learning rate is higher
KINDS = ("benign", "crossing")


@dataclass(frozen=True)
class World:
    """What is true of each configuration."""

    space: Space
    kind: str
    of_choice: Mapping[str, np.ndarray]  # by path: what each value costs
    optimum: Mapping[str, float]  # by path: the best place of a number in its range, 0 to 1
    seed: int

    def score(self, drawn: Mapping[str, Any]) -> float:
        """The true final score of drawn values."""
        cost = 0.0
        for path, place in self.places(drawn).items():
            if path in self.of_choice:
                cost += self.of_choice[path][round(place)]
            else:
                best = self.optimum[path]
                if path == "optimizer/lr" and drawn["optimizer/name"] == "sgd":
                    best = min(best + SGD, 1.0)
                cost += COSTS[path] * (place - best) ** 2 / 0.5
        return max(BEST - cost, CHANCE)

    def curve(self, number: int, drawn: Mapping[str, Any], epochs: int) -> tuple[np.ndarray, np.ndarray]:
        """The scores (epochs,) of a trial, true and as they are reported."""
        rng = np.random.default_rng([self.seed, number])
        places, slowness = self.places(drawn), rng.normal(0, 0.15)
        if self.kind == "crossing":
            mixed = 0.0 if drawn["mix/name"] == "none" else 1.0
            slowness += 3.0 * (0.5 - places["optimizer/lr"]) + 1.5 * (places["model/dropout"] - 0.5) + 1.0 * (mixed - 0.5)
            slowness += 1.0 * (self.score(drawn) - 0.6) / 0.1 + 0.5
        time = 2.0 * math.exp(min(max(slowness, -1.0), 2.0))
        epoch = np.arange(1, epochs + 1)
        true = CHANCE + (self.score(drawn) - CHANCE) * (1 - np.exp(-epoch / time)) / (1 - math.exp(-epochs / time))
        return true, true + rng.normal(0, NOISE, epochs)

    def places(self, drawn: Mapping[str, Any]) -> dict[str, float]:
        """By path: the place of a number in its range, 0 to 1, or of a choice among its values."""
        domains = {parameter.path: parameter.domain for parameter in self.space.parameters}
        return {path: place_of(domains[path], value) for path, value in drawn.items()}


def place_of(domain: Domain, value: Any) -> float:
    """The place of a number in its range, 0 to 1, or of a choice among its values."""
    if isinstance(domain, Choice):
        return next(float(place) for place, one in enumerate(domain.values) if same(one, value))
    return to_unit(domain, value)


def make_space() -> Space:
    """The space of all worlds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "space.yaml"
        file.write_text(SPACE)
        return read_space(file, choosers=choosers())


def make_world(space: Space, kind: str, seed: int) -> World:
    """A world: in each choice one value is best, and each number has a best place that is not at an end."""
    rng, of_choice, optimum = np.random.default_rng(seed), {}, {}
    for parameter in space.parameters:
        if isinstance(parameter.domain, Choice):
            costs = rng.uniform(0.02, 0.1, len(parameter.domain.values))
            costs[rng.integers(len(costs))] = 0
            of_choice[parameter.path] = costs
        else:
            optimum[parameter.path] = float(rng.uniform(0.15, 0.85))
    return World(space, kind, of_choice, optimum, seed)


@dataclass(frozen=True)
class Entry:
    """What is compared: what proposes, and what stops."""

    make: MakeSampler
    stopper: Stopper


SETTINGS = RunSettings(grace=2)


def of_run(pruner: str) -> Stopper:
    """A pruner as a run has it."""
    return SETTINGS.model_copy(update={"pruner": pruner}).stopper()


def halving(name: str, cutoff_of: Callable[[list[float], float], float | None]) -> Stopper:
    """Successive halving by the default rungs; a trial passes with at least the cutoff, of the others' scores and its own."""
    rungs = of_run("asha").rungs

    def decide(history: History, trial: TrialReport) -> Decision | None:
        if trial.epoch not in rungs:
            return None
        others = list(history.at(trial.epoch).values())
        cutoff = cutoff_of(others, trial.score)
        return Decision(trial.epoch, trial.score, len(others), cutoff, cutoff is None or trial.score >= cutoff, name)

    return Stopper(name, name, SETTINGS.epochs, rungs, decide)


def optunas_cutoff(others: list[float], own: float) -> float:
    """Of Optuna's SuccessiveHalvingPruner: the best third passes, the trial itself counted, of fewer than six the best."""
    scores = sorted([*others, own], reverse=True)
    return scores[max(int(len(scores) // SETTINGS.reduction) - 1, 0)]


def strict_cutoff(others: list[float], own: float) -> float | None:
    """Of earlier versions: the best third passes, however well the rung predicts the end."""
    return float(np.percentile(others, (1 - 1 / SETTINGS.reduction) * 100)) if others else None


def earlier_tpe(ask: Ask) -> TPESampler:
    """Optuna's, as earlier versions took it."""
    return TPESampler(seed=ask.own_seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=ask.startup)


NONE, STRICT = of_run("none"), halving("strict", strict_cutoff)
ENTRIES: dict[str, Entry] = {
    "random": Entry(SEARCHERS["random"].make, NONE),
    "earlier tpe": Entry(earlier_tpe, NONE),
    "earlier tpe+asha": Entry(earlier_tpe, STRICT),
    "earlier tpe+optuna's halving": Entry(earlier_tpe, halving("optuna", optunas_cutoff)),
    "tpe": Entry(SEARCHERS["tpe"].make, NONE),
    "tpe+earlier asha": Entry(SEARCHERS["tpe"].make, STRICT),
    "tpe+asha": Entry(SEARCHERS["tpe"].make, of_run("asha")),
    "tpe+hyperband": Entry(SEARCHERS["tpe"].make, of_run("hyperband")),
    "tpe+median": Entry(SEARCHERS["tpe"].make, of_run("median")),
}


@dataclass(frozen=True)
class Found:
    """What a search found in a world."""

    regret: np.ndarray  # (budget,) after each epoch that was trained, by any trial
    pruned: float  # share of the trials that ended
    distance: float  # mean distance of a proposal to the nearest earlier one, 0 to 1
    values: float  # share of all values of choices that were tried
    trials: int
    patient: int  # epochs after which run/patience would have ended it

    @property
    def saved(self) -> float:
        """The share of the epochs that it would have saved."""
        return 1 - self.patient / len(self.regret)

    @property
    def lost(self) -> float:
        """The regret that it would have cost."""
        return float(self.regret[self.patient - 1] - self.regret[-1])


def search(entry: Entry, world: World, slots: int, budget: int, planned: int, patience: int = 0) -> Found:
    """Play a search whose trials train at the same time, at paces of their own."""
    epochs, metric = SETTINGS.epochs, METRICS[DEFAULT]
    pruner = Pruner(entry.stopper, metric, spared=never_stopped(SETTINGS.keep_running), decided=lambda number, decision: None)
    searcher = StudySearcher(
        world.space,
        {"epochs": epochs, "seed": 0},
        sampler=entry.make,
        seed=world.seed,
        trials=planned,
        slots=lambda: slots,
        metric=metric,
        baseline=baseline_of(world.space),
    )
    running: list[tuple[float, int]] = []  # when a trial reports next, and its number
    curves: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    done, pace, proposals, regret = {}, {}, [], []
    best, pruned, now = CHANCE, 0, 0.0
    reached: dict[int, float] = {}
    patient = budget
    while len(regret) < budget:
        while len(running) < slots:
            proposal = searcher.suggest(str(len(curves)))
            assert isinstance(proposal, dict)
            number, drawn = proposal["number"], world.space.drawn(proposal["values"])
            proposals.append(drawn)
            curves[number], done[number] = world.curve(number, drawn, epochs), 0
            pace[number] = float(np.random.default_rng([world.seed, 1, number]).uniform(0.7, 1.3))
            heapq.heappush(running, (now + pace[number], number))
        now, number = heapq.heappop(running)
        done[number] += 1
        true, shown = (scores[: done[number]] for scores in curves[number])
        best = max(best, float(true[-1]))
        regret.append(BEST - best)
        last = done[number] == epochs
        report = {"number": number, "epoch": done[number], "score": float(shown[-1]), "best": float(shown.max()), "last": last}
        stopped = pruner.stops(number, report, {})
        pruned += stopped
        # Of the report at which a trial is stopped Ray tells only at its end.
        if not stopped:
            searcher.on_trial_result(str(number), report)
        if stopped or last:
            reached[number] = report["best"]
            more = expected([reached[one] for one in sorted(reached)], patience) if patience else None
            if more and more.gain < NOISE:
                patient = min(patient, len(regret))
            searcher.on_trial_complete(str(number), report)
        else:
            heapq.heappush(running, (now + pace[number], number))
    ended = len(curves) - len(running)
    distance, values = distance_to_earlier(world, proposals), share_of_values(world, proposals)
    return Found(np.array(regret), pruned / max(ended, 1), distance, values, ended, patient)


def distance_to_earlier(world: World, proposals: Sequence[Mapping[str, Any]]) -> float:
    """Mean, over proposals, of the distance to the nearest earlier one.

    A distance is the mean over all parameters: of numbers by their place, of choices 0 or 1, likewise where one lacks the parameter.
    """
    rows = np.full((len(proposals), len(world.space.parameters)), np.nan)
    choice = np.array([isinstance(parameter.domain, Choice) for parameter in world.space.parameters])
    for row, drawn in zip(rows, proposals, strict=True):
        places = world.places(drawn)
        row[:] = [places.get(parameter.path, np.nan) for parameter in world.space.parameters]
    found = []
    for number in range(1, len(rows)):
        apart = np.abs(rows[:number] - rows[number])
        apart = np.where(choice, apart > 0, apart)
        lacking = np.isnan(rows[:number]), np.isnan(rows[number])
        apart = np.where(lacking[0] | lacking[1], lacking[0] != lacking[1], apart)
        found.append(apart.mean(axis=1).min())
    return float(np.mean(found))


def share_of_values(world: World, proposals: Sequence[Mapping[str, Any]]) -> float:
    """The share of all values of choices that some proposal has."""
    tried = {(path, place) for drawn in proposals for path, place in world.places(drawn).items() if path in world.of_choice}
    return len(tried) / sum(map(len, world.of_choice.values()))


@dataclass(frozen=True)
class Job:
    """One search of a table."""

    kind: str
    entry: str
    seed: int
    budget: int
    planned: int
    patience: int


def carry_out(job: Job) -> Found:
    """Play it, in a process of its own."""
    world = make_world(make_space(), job.kind, job.seed)
    return search(ENTRIES[job.entry], world, 1 + job.seed % 4, job.budget, job.planned, job.patience)


def early_correlation(kind: str, seeds: int) -> float:
    """Spearman's rank correlation of the scores after two epochs with those at the end, over random configurations."""
    space, found = make_space(), []
    for seed in range(seeds):
        world = make_world(space, kind, seed)
        searcher = StudySearcher(space, {"epochs": 10, "seed": 0}, sampler=SEARCHERS["random"].make, seed=seed, trials=1, slots=lambda: 99)
        curves = []
        for number in range(60):
            proposal = searcher.suggest(str(number))
            assert isinstance(proposal, dict)
            curves.append(world.curve(number, space.drawn(proposal["values"]), 10)[1])
        ranks = np.array(curves)[:, [1, -1]].argsort(axis=0).argsort(axis=0)
        found.append(np.corrcoef(ranks.T)[0, 1])
    return float(np.mean(found))


def main(
    seeds: Annotated[int, typer.Option(min=2, help="Worlds of each kind.")] = 30,
    budget: Annotated[int, typer.Option(min=20, help="Epochs that a search may train.")] = 270,
    planned: Annotated[int, typer.Option(min=1, help="Trials that the searcher is told of.")] = 27,
    entry: Annotated[list[str] | None, typer.Option(help=f"{', '.join(ENTRIES)}; repeat it. Default: all. random is always there.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help=f"{', '.join(KINDS)}; repeat it. Default: both.")] = None,
    against: Annotated[str, typer.Option(help="The entry that differences are to.")] = "earlier tpe+asha",
    first: Annotated[int, typer.Option(min=0, help="Seed of the first world; what is the default today was chosen on 0 to 29.")] = 0,
    patience: Annotated[int, typer.Option(min=0, help="run/patience, whose end of each search is shown; 0: none.")] = 20,
    processes: Annotated[int, typer.Option(min=1, help="Searches that are played at a time.")] = 2,
) -> None:
    """Print, by kind of curve and entry, the regret at the end and when random search's is reached."""
    for name, table in [*((one, ENTRIES) for one in [*(entry or []), against]), *((one, KINDS) for one in kind or [])]:
        if name not in table:
            raise typer.BadParameter(f"{name!r} does not exist{nearest(name, list(table))}; choose one of {', '.join(table)}")
    start, worlds = perf_counter(), range(first, first + seeds)
    names, kinds = list(dict.fromkeys(["random", against, *(entry or ENTRIES)])), kind or list(KINDS)
    jobs = [Job(one, name, seed, budget, planned, patience) for one, name, seed in product(kinds, names, worlds)]
    with ProcessPoolExecutor(processes) if processes > 1 else nullcontext() as pool:
        results = pool.map(carry_out, jobs, chunksize=4) if pool else map(carry_out, jobs)
        found = dict(zip(((job.kind, job.entry, job.seed) for job in jobs), results, strict=True))
    columns = (
        "to random's best",
        "regret at the end",
        f"less {against}'s",
        "pruned",
        "trials",
        "distance",
        "values tried",
        "patience saves",
        "and costs",
    )
    shown = Table("curves", "entry", *columns)
    figures: dict[str, Any] = {}
    for one in kinds:
        figures[f"{one}_correlation"] = round(early_correlation(one, min(seeds, 10)), 2)
        of_random, of_other = ([found[one, name, seed] for seed in worlds] for name in ("random", against))
        for name in names:
            row = row_of([found[one, name, seed] for seed in worlds], of_random, of_other)
            figures[f"{one}_{name}"] = row
            shown.add_row(
                one,
                name,
                str(row["epochs"] or "-"),
                f"{row['regret']:.4f} ± {row['error']:.4f}",
                f"{row['difference']:+.4f} ± {row['error of it']:.4f}",
                f"{100 * row['pruned']:.0f} %",
                f"{row['trials']:.0f}",
                f"{row['distance']:.3f}",
                f"{100 * row['values']:.0f} %",
                f"{100 * row['saved']:.0f} %",
                f"{row['lost']:.4f}",
            )
    open_console(width=170).print(shown)
    seconds = round(perf_counter() - start)
    run = {
        "seeds": seeds,
        "first": first,
        "budget": budget,
        "planned": planned,
        "patience": patience,
        "seconds": seconds,
        "python": platform.python_version(),
    }
    print(json.dumps({**figures, **run, "cores": os.cpu_count()}))


def row_of(searches: Sequence[Found], of_random: Sequence[Found], of_other: Sequence[Found]) -> dict[str, Any]:
    """The figures of an entry from its searches, paired with those of random search and of what it is compared with."""
    regrets, randoms, others = (np.stack([one.regret for one in each]) for each in (searches, of_random, of_other))
    reached = np.flatnonzero(regrets.mean(axis=0) <= randoms[:, -1].mean() + 1e-12)
    regret, error = mean_and_error(regrets[:, -1])
    difference, error_of_it = mean_and_error(regrets[:, -1] - others[:, -1])
    row = {"epochs": int(reached[0]) + 1 if len(reached) else None, "regret": round(regret, 4), "error": round(error, 4)}
    row |= {"difference": round(difference, 4), "error of it": round(error_of_it, 4)}
    return row | {name: round(mean_and_error(np.array([getattr(one, name) for one in searches]))[0], 3) for name in MEANS}


MEANS = ("pruned", "trials", "distance", "values", "saved", "lost")  # of Found


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


if __name__ == "__main__":
    typer.run(main)
