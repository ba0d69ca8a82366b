"""How well the class priors of images without labels are known: expectation maximisation (EM) beside the confusion matrix (BBSE).

A world has 200 validation groups and 300 others, seven images each, and a model that errs alike on images of a group and is worst at the
rarest value. Its share among the others stays, or grows from 7 to 20 of 100. BBSE has the bootstrap and the rule of earlier versions: a
shift counts only where it is larger than the model's error rate.

    uv run python -m benchmarks.shift [--worlds 60] [--sharpness 1.6]
"""

import json
from dataclasses import dataclass
from time import process_time
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from analysis.evaluation.shift import LEVEL, estimate, recalled, unmixed
from trainables.console import open_console
from trainables.metrics.confusion import confusion
from trainables.metrics.evidence import draw_groups, interval
from trainables.progress import progress_bar

LEARNED, SHIFTED = np.array([0.47, 0.46, 0.07]), np.array([0.42, 0.38, 0.20])
RAREST = 2
IMAGES = 7  # of a group
DRAWS = 400


@dataclass(frozen=True)
class World:
    """A model's answers on both kinds of images."""

    valid: np.ndarray  # (n, values) probabilities
    target: np.ndarray  # (n,)
    groups: np.ndarray  # (n,)
    others: np.ndarray  # (k, values) probabilities


@dataclass(frozen=True)
class Found:
    """What one way finds in one world."""

    shares: np.ndarray  # (values,)
    intervals: np.ndarray  # (values, 2)
    significant: bool


def world(seed: int, priors: np.ndarray, groups: int = 200, others: int = 300, sharpness: float = 1.6) -> World:
    """Validation groups with the learned priors, and others with these."""
    rng = np.random.default_rng(seed)

    def draw(count: int, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        group = np.repeat(np.arange(count), IMAGES)
        target = rng.choice(len(shares), size=count, p=shares)[group]
        own, shared = rng.standard_normal((len(group), len(shares))), rng.standard_normal((count, len(shares)))[group]
        powers = LEARNED**0.5 * np.exp(1.6 * (sharpness * np.eye(len(shares))[target] + 0.8 * shared + 0.8 * own))
        return powers / powers.sum(axis=1, keepdims=True), target, group

    valid, target, group = draw(groups, LEARNED)
    return World(valid, target, group, draw(others, priors)[0])


def by_em(one: World, rng: np.random.Generator, draws: int = DRAWS) -> Found:
    """As analysis.ensemble does it."""
    shift = estimate("value", one.valid, one.target, one.groups, LEARNED, one.others, rng, draws)
    return Found(np.array(shift.em), np.array(shift.em_intervals), shift.significant)


def by_bbse(one: World, rng: np.random.Generator, draws: int = DRAWS) -> Found:
    """As earlier versions did it: validation groups are drawn, and the others' predicted values, of a seventh of the images."""
    values, answered = len(LEARNED), one.valid.argmax(axis=1)
    predicted = np.bincount(one.others.argmax(axis=1), minlength=values) / len(one.others)
    mistakes = recalled(confusion(one.target, answered, values))
    shares = unmixed(mistakes, predicted, LEARNED)
    cells = np.zeros((one.groups.max() + 1, values * values))
    np.add.at(cells, (one.groups, one.target * values + answered), 1)
    counts = (draw_groups(len(cells), rng, draws) @ cells).reshape(-1, values, values)
    independent = len(one.others) // IMAGES
    again = rng.multinomial(independent, (independent * predicted + mistakes @ LEARNED) / (independent + 1), size=draws) / independent
    drawn = unmixed(recalled(counts), again, LEARNED)
    seen = counts.sum(axis=2) / counts.sum(axis=(1, 2))[:, None] - np.bincount(one.target, minlength=values) / len(one.target)
    chance = drawn - LEARNED - seen
    errors = np.maximum(chance.std(axis=0), 1e-9)
    farthest, by_chance = np.abs((shares - LEARNED) / errors).max(), np.abs((chance - chance.mean(axis=0)) / errors).max(axis=1)
    p = (1 + (by_chance >= farthest).sum()) / (1 + draws)
    clear = np.abs(predicted - LEARNED).max() > (answered != one.target).mean()
    return Found(shares, np.array([interval(column) for column in drawn.T]), bool(p < LEVEL and clear))


WAYS = {"em": by_em, "bbse": by_bbse}


def figures(found: list[Found], priors: np.ndarray) -> dict[str, float]:
    """Of the rarest value: RMSE of its share and width of its interval. Over all values, how often an interval holds the truth."""
    shares, intervals = np.stack([one.shares for one in found]), np.stack([one.intervals for one in found])
    held = (intervals[..., 0] <= priors) & (priors <= intervals[..., 1])
    return {
        "rmse": round(float(np.sqrt(((shares - priors)[:, RAREST] ** 2).mean())), 4),
        "width": round(float((intervals[:, RAREST, 1] - intervals[:, RAREST, 0]).mean()), 4),
        "coverage": round(float(held.mean()), 3),
        "found": round(float(np.mean([one.significant for one in found])), 3),
    }


def main(
    worlds: Annotated[int, typer.Option(min=1, help="Worlds with and without a shift.")] = 60,
    sharpness: Annotated[float, typer.Option(help="How well the model separates values.")] = 1.6,
) -> None:
    """Print a table, and one line of JSON."""
    table = Table("", "", "RMSE of the rarest share", "width of its 95 % interval", "intervals that hold the truth", "a shift is found")
    line: dict[str, float] = {}
    start = process_time()
    with progress_bar("estimating", 2 * worlds) as done:
        for name, priors in (("shift", SHIFTED), ("none", LEARNED)):
            found: dict[str, list[Found]] = {way: [] for way in WAYS}
            for seed in range(worlds):
                one = world(seed, priors, sharpness=sharpness)
                for way, by in WAYS.items():
                    found[way].append(by(one, np.random.default_rng(seed)))
                done(1)
            for way, results in found.items():
                values = figures(results, priors)
                table.add_row("7 to 20 of 100" if name == "shift" else "no shift", way.upper(), *map(str, values.values()))
                line |= {f"{way}_{name}_{what}": value for what, value in values.items()}
    open_console(width=140).print(table)
    print(json.dumps({**line, "worlds": worlds, "sharpness": sharpness, "cpu_seconds": round(process_time() - start)}))


if __name__ == "__main__":
    typer.run(main)
