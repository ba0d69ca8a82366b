"""CPU seconds that it takes to fit each ensemble, on as many simulated members and images as a long search over a large data set has.

Each is fitted again for every part of the groups and for every size of ensemble that is compared, so seconds here are minutes there.
Models that are stacked take more work a member and are for few, so they have a library of their own size.

    uv run python -m benchmarks.ensembles [--members 200] [--images 10000] [--stacked-members 20] [--stacked-images 2000] [--score accuracy]
"""

import json
import os
import platform
from time import process_time
from typing import Annotated

import numpy as np
import sklearn
import typer
from rich.table import Table

from analysis.votes import ENSEMBLES
from trainables.console import open_console
from trainables.metrics import DEFAULT, METRICS

CLASSES = 18
STACKED = ("stack",)
SHOTS = 7  # images of a group


def main(
    members: Annotated[int, typer.Option(min=1, help="Members that vote.")] = 200,
    images: Annotated[int, typer.Option(min=1, help="Images that their vote is fitted on.")] = 10_000,
    stacked_members: Annotated[int, typer.Option(min=1, help="Members that are stacked.")] = 20,
    stacked_images: Annotated[int, typer.Option(min=1, help="Images that they are stacked on.")] = 2000,
    score: Annotated[str, typer.Option(metavar="METRIC", help=f"What they are fitted for: {', '.join(METRICS)}.")] = DEFAULT,
) -> None:
    """Fit every ensemble once and print what it took, and what it is worth on as many images of other groups."""
    small, large = (stacked_members, stacked_images), (members, images)
    metric = METRICS[score]
    table = Table("ensemble", "members", "images", "CPU seconds to fit", f"{metric.title} there", f"{metric.title} on other groups")
    seconds = {}
    for size, names in ((large, [name for name in ENSEMBLES if name not in STACKED]), (small, STACKED)):
        fitted, other = (simulate(size[0], size[1], CLASSES, seed=seed) for seed in (0, 1))
        for name in names:
            start = process_time()
            ensemble = ENSEMBLES[name](*fitted, metric)
            seconds[name] = process_time() - start
            scores = [metric.score(target, ensemble(answers)) for answers, target, _ in (fitted, other)]
            table.add_row(name, str(size[0]), f"{size[1]:,}", f"{seconds[name]:.2f}", *(f"{score:.4f}" for score in scores))
    open_console(width=120).print(table)
    figures = {f"{name}_cpu_s": round(value, 3) for name, value in seconds.items()}
    sizes = {"members": members, "images": images, "stacked_members": stacked_members, "stacked_images": stacked_images, "classes": CLASSES}
    machine = {"python": platform.python_version(), "scikit-learn": sklearn.__version__, "cores": os.cpu_count()}
    print(json.dumps({**figures, **sizes, "metric": score, **machine}))


def simulate(members: int, images: int, classes: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (members, images, classes) of members that differ in skill, best first, with true classes and groups (images,).

    Some classes are rare, and an image or a group that is hard for one member is so for the others.
    """
    rng = np.random.default_rng(seed)
    groups = np.arange(images) // SHOTS
    target = rng.choice(classes, size=images, p=np.geomspace(1, 0.1, classes) / np.geomspace(1, 0.1, classes).sum())
    noise = 1.2 * rng.standard_normal((groups[-1] + 1, classes))[groups] + rng.standard_normal((images, classes))
    seen = 4 * np.eye(classes)[target] + noise
    skills = np.linspace(1, 0.5, members)
    probabilities = np.empty((members, images, classes))
    for member, skill in enumerate(skills):
        logits = skill * seen + 1.2 * rng.standard_normal((images, classes))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities[member] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities, target, groups


if __name__ == "__main__":
    typer.run(main)
