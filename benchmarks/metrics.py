"""How often the interval of each metric holds the true score, and what the evidence of many classes takes in memory.

A sample is 200 groups of a large population, seven images each, in which images of a group err together and some classes are rare. An
interval that is right holds the score of the whole population in 95 of 100 samples.

    uv run python -m benchmarks.metrics [--samples 1000] [--metric accuracy]

    uv run python -m benchmarks.metrics --memory
"""

import json
import resource
from time import perf_counter
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from analysis.evaluation.uncertainty import optimism, simultaneous_gains
from trainables.console import open_console
from trainables.metrics import METRICS
from trainables.metrics.evidence import evidence, label_evidence

GROUPS, SHOTS, POPULATION = 200, 7, 50_000
SHARES = np.array([0.30, 0.22, 0.16, 0.12, 0.08, 0.06, 0.04, 0.02])  # of the classes
ANSWERS, MANY, LARGE, IMAGES = 9, 1000, 10_000, 50_000


def main(
    samples: Annotated[int, typer.Option(min=1, help="Samples of which each has an interval.")] = 1000,
    metric: Annotated[list[str] | None, typer.Option(help="A metric; repeat it. All by default.")] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Measure memory instead, over a thousand classes.")] = False,
) -> None:
    """Print a table and one line of JSON."""
    print(json.dumps(measure_memory() if memory else measure_coverage(samples, metric or list(METRICS))))


def measure_coverage(samples: int, names: list[str]) -> dict[str, float]:
    """By metric: intervals that hold the score of the whole population, of 100."""
    truth, probabilities = simulate(POPULATION, seed=0)
    table = Table("metric", "of all", "intervals that hold it, of 100", "below it", "above it", "mean width", "ms")
    held = {}
    for name in names:
        metric = METRICS[name]
        true = metric.score(truth.ravel(), probabilities.reshape(-1, len(SHARES)))
        start, found = perf_counter(), []
        for seed in range(samples):
            rng = np.random.default_rng(seed)
            chosen = rng.integers(POPULATION, size=GROUPS)
            whose = np.repeat(np.arange(GROUPS), SHOTS)
            sample = evidence(metric, truth[chosen].ravel(), probabilities[chosen].reshape(-1, len(SHARES)), whose)
            found.append(sample.interval(rng))
        low, high = np.array(found).T
        below, above = (100 * share.mean() for share in (high < true, low > true))
        held[name] = round(100 - below - above, 1)
        cells = (f"{true:.4f}", f"{held[name]:.1f}", f"{below:.1f}", f"{above:.1f}", f"{(high - low).mean():.4f}")
        table.add_row(metric.title, *cells, f"{1000 * (perf_counter() - start) / samples:.0f}")
    open_console(width=120).print(table)
    return {**held, "samples": samples, "groups": GROUPS}


def simulate(groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True classes (groups, images) and probabilities (groups, images, classes)."""
    rng = np.random.default_rng(seed)
    classes = len(SHARES)
    own = rng.choice(classes, size=groups, p=SHARES)
    truth = np.where(rng.random((groups, SHOTS)) < 0.8, own[:, None], rng.choice(classes, size=(groups, SHOTS), p=SHARES))
    noise = 1.3 * rng.standard_normal((groups, 1, classes)) + rng.standard_normal((groups, SHOTS, classes))
    powers = np.exp(3.0 * np.eye(classes)[truth] + np.log(SHARES) / 2 + noise)
    return truth, powers / powers.sum(axis=2, keepdims=True)


def simulate_tags(groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether images have each tag (groups, images, tags), alike within a group, and probabilities likewise."""
    rng = np.random.default_rng(seed)
    own = rng.random((groups, 1, len(SHARES))) < SHARES
    truth = np.where(rng.random((groups, SHOTS, len(SHARES))) < 0.8, own, rng.random((groups, SHOTS, len(SHARES))) < SHARES)
    noise = 1.3 * rng.standard_normal((groups, 1, len(SHARES))) + rng.standard_normal(truth.shape)
    return truth, 1 / (1 + np.exp(1.5 - 3.0 * truth - noise))


def simulate_numbers(groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (groups, images) around one of their group, and predicted ones (groups, images, 1) that err alike within a group."""
    rng = np.random.default_rng(seed)
    truth = 20 + 60 * rng.random((groups, 1)) + 2 * rng.standard_normal((groups, SHOTS))
    return truth, (truth + 5 * rng.standard_normal((groups, 1)) + 3 * rng.standard_normal(truth.shape))[..., None]


def measure_memory() -> dict[str, float]:
    """Peak memory of nine answers over a thousand classes with all that is asked of them, in MB, and seconds."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    start, rng = perf_counter(), np.random.default_rng(0)
    truth, whose = rng.integers(MANY, size=IMAGES), rng.integers(LARGE, size=IMAGES)
    metric, answers = METRICS["f1_macro"], []
    for skill in np.linspace(0.5, 0.8, ANSWERS):
        answers.append(
            label_evidence(metric, truth, np.where(rng.random(IMAGES) < skill, truth, rng.integers(MANY, size=IMAGES)), whose, MANY)
        )
    limits = [one.interval(np.random.default_rng(0)) for one in answers]
    gains = simultaneous_gains(answers[1:], answers[0], np.random.default_rng(0))
    luck = optimism(answers, np.random.default_rng(0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    table = Table("answers", "classes", "groups", "images", "MB before", "MB at most", "seconds")
    seconds = perf_counter() - start
    table.add_row(*(f"{number:,.0f}" for number in (ANSWERS, MANY, LARGE, IMAGES, before, peak, seconds)))
    open_console(width=120).print(table, f"best {limits[-1]}, gain {gains[-1]}, {luck}")
    return {"mb_before": round(before), "mb_at_most": round(peak), "seconds": round(seconds)}


if __name__ == "__main__":
    typer.run(main)
