"""How often is what a search ends with truly worse than its baseline? In worlds where the truth is known.

A search whose noise is larger than what its configurations differ by may choose one that is worse than what one would have trained without
searching: Overtuning in Hyperparameter Optimization, Schneider et al., AutoML 2025, found it in about one search in ten. The worlds are
those of `benchmarks.decision`, with groups for five folds; the baseline is a trial of the better half, drawn by the seed, as what one sets
by hand is better than most of what is drawn. `best trial` and `answer` are chosen on one fold, as without finalists: the highest score, and
what the rule of analysis.ensemble lets answer. For the two others the best four trials, the baseline among them, are raced over the folds
with the test of a race; of those that are left the highest score, and what the rule lets answer on all folds.

What is not simulated: a model of each fold is trained anew in truth, and here answers like the one of the search.

    uv run python -m benchmarks.winner [--worlds 20] [--kind spread]
"""

import json
import os
import platform
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from time import perf_counter
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from analysis.evaluation.decide import Options, decide
from analysis.evaluation.nested import MemberOptions
from benchmarks.decision import KINDS, LOSS, Answers, as_known
from trainables.console import open_console
from trainables.metrics import DEFAULT, METRICS
from trainables.metrics.evidence import evidence
from trainables.registry import nearest
from tuner.finalists import who_stays
from tuner.racing import DEFAULT as FINALISTS

FOLDS = 5
WAYS = ("best trial", "answer", "best finalist", "finalists' answer")


@dataclass(frozen=True)
class Job:
    """One search of a table."""

    kind: str
    seed: int


def carry_out(job: Job) -> list[float]:
    """By how much each of WAYS truly beats the baseline, in the metric's unit."""
    kind = KINDS[job.kind]
    valid, test = replace(kind, groups=kind.groups * FOLDS).world(job.seed)
    by_skill = np.argsort(kind.skills)[::-1]
    baseline = int(np.random.default_rng([job.seed, 1]).choice(by_skill[: (len(by_skill) + 1) // 2]))
    fold = valid.groups % FOLDS
    first = part(valid, fold == 0)
    best_first = np.argsort(-scores(first), kind="stable")
    finalists = [baseline, *(trial for trial in best_first if trial != baseline)][:FINALISTS]
    left = race(valid, fold, finalists, job.seed)
    chosen = [
        [best_first[0]],
        range(len(kind.skills)),
        [left[int(np.argmax(scores(valid, left)))]],
        left,
    ]
    known = [first, first, valid, valid]
    own = true_score(part(valid, fold == 0), test, [baseline])
    return [true_score(groups, test, list(trials)) - own for groups, trials in zip(known, chosen, strict=True)]


def part(answers: Answers, rows: np.ndarray) -> Answers:
    """Some images (n,) of bool."""
    return Answers(answers.probabilities[:, rows], answers.target[rows], answers.groups[rows])


def scores(answers: Answers, trials: Sequence[int] | None = None) -> np.ndarray:
    """The score (trials,) of each, or of some."""
    every = range(len(answers.probabilities)) if trials is None else trials
    return np.array([METRICS[DEFAULT].score(answers.target, answers.probabilities[trial]) for trial in every])


def race(valid: Answers, fold: np.ndarray, finalists: Sequence[int], seed: int) -> list[int]:
    """Those that are left after all folds: after each, whoever is significantly worse goes."""
    left, metric = list(finalists), METRICS[DEFAULT]
    for stage in range(1, FOLDS):
        if len(left) == 1:
            break
        seen = part(valid, fold <= stage)
        members = [evidence(metric, seen.target, seen.probabilities[trial], seen.groups) for trial in left]
        left = [trial for trial, stays in zip(left, who_stays(members, seed, stage, FOLDS - 1), strict=True) if stays]
    return left


def true_score(valid: Answers, test: Answers, trials: Sequence[int]) -> float:
    """What the rule lets answer of some trials, by these groups, is worth."""
    some = [Answers(one.probabilities[list(trials)], one.target, one.groups) for one in (valid, test)]
    candidates, known, true = as_known(*some)
    if len(candidates) == 1:
        return float(scores(some[1])[0])
    decision = decide(Options(MemberOptions(top=min(3, len(candidates))), steps=()), candidates, known, lambda names, trials: {})
    answer = decision.pipelines[decision.choice.answer]
    return float(known.metric.score(true.truth(answer.scheme), answer(true.predicted)))


def main(
    worlds: Annotated[int, typer.Option(min=1, help="Worlds of each kind.")] = 20,
    kind: Annotated[list[str] | None, typer.Option(help=f"{', '.join(KINDS)}; repeat it. Default: all.")] = None,
    first: Annotated[int, typer.Option(min=0, help="Seed of the first world.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Searches that are played at a time.")] = 2,
) -> None:
    """Print, by kind of world, the share of searches that end truly worse than their baseline by more than 0.005, and the mean gain."""
    for one in kind or []:
        if one not in KINDS:
            raise typer.BadParameter(f"{one!r} does not exist{nearest(one, list(KINDS))}; choose one of {', '.join(KINDS)}")
    start, kinds = perf_counter(), kind or list(KINDS)
    jobs = [Job(name, seed) for name, seed in product(kinds, range(first, first + worlds))]
    with ProcessPoolExecutor(processes) if processes > 1 else nullcontext() as pool:
        found = list(pool.map(carry_out, jobs, chunksize=2) if pool else map(carry_out, jobs))
    gains = {name: np.array([row for job, row in zip(jobs, found, strict=True) if job.kind == name]) for name in kinds}
    gains["all"] = np.array(found)
    table = Table("world", *WAYS, title=f"Truly worse than the baseline by more than {LOSS} (mean gain over it)", title_justify="left")
    for name, rows in gains.items():
        table.add_row(name, *(f"{100 * worse(column):.1f} % ({column.mean():+.3f})" for column in rows.T))
    open_console(width=140).print(table)
    figures = {
        way: {"worse": round(worse(column), 4), "gain": round(float(column.mean()), 4)}
        for way, column in zip(WAYS, gains["all"].T, strict=True)
    }
    run = {"worlds": len(jobs), "first": first, "seconds": round(perf_counter() - start)}
    print(json.dumps({**figures, **run, "python": platform.python_version(), "cores": os.cpu_count()}))


def worse(gains: np.ndarray) -> float:
    """The share of gains (n,) that are losses."""
    return float((gains < -LOSS).mean())


if __name__ == "__main__":
    typer.run(main)
