"""What a crop around the face is worth, on drawn people whose faces are small and anywhere in the image.

The same small network from scratch, once on whole images and once on what MTCNN finds, on the same people and with the same seeds;
a third time on the portraits of the demo, where the face fills the image and a crop can gain little.

    uv run python -m benchmarks.face_crop [--people 120] [--epochs 15] [--seeds 3] [--size 64] [--target mask]
"""

import json
import tempfile
from pathlib import Path
from statistics import mean
from typing import Annotated

import torch
import typer
from rich.table import Table

from trainables.build import build_parts
from trainables.config import TrialConfig
from trainables.console import open_console
from trainables.data.layouts.reading import read_images
from trainables.data.splits import split_groups
from trainables.data.training import Data
from trainables.data.views import View, build_views
from trainables.loop import fit
from trainables.progress import progress_bar
from trainables.registry import ConfigError, Mistake
from tuner.demo.drawing import FAR, PORTRAIT
from tuner.demo.writing import write_people

FRAMINGS = {"far": FAR, "portrait": PORTRAIT}
CROPS = {"none": {"crop": "none"}, "face": {"crop": "face", "margin": 0.4}}
FOLDS = 4


def main(
    people: Annotated[int, typer.Option(help="Drawn people, with seven images each.")] = 120,
    epochs: Annotated[int, typer.Option(help="Of every training.")] = 15,
    seeds: Annotated[int, typer.Option(help="Trainings of each kind, each with another fold and seed.")] = 3,
    size: Annotated[int, typer.Option(help="Pixels of a side.")] = 64,
    backbone: Annotated[str, typer.Option(help="Any timm network; it has no weights to begin with.")] = "test_efficientnet",
    target: Annotated[str, typer.Option(help="What is predicted: mask, gender, age or joint.")] = "mask",
    threads: Annotated[int, typer.Option(help="CPU threads of a step.")] = 1,
) -> None:
    """Train with and without the crop, and print the best macro F1 on validation of each."""
    if not 1 <= seeds <= FOLDS:
        raise ConfigError([Mistake("--seeds", f"is {seeds}; give one from 1 to {FOLDS}, as each validates on another of {FOLDS} folds")])
    torch.set_num_threads(threads)
    scores: dict[str, list[float]] = {}
    missed: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch, progress_bar("trainings", len(FRAMINGS) * len(CROPS) * seeds) as advance:
        for framing, placed in FRAMINGS.items():
            folder = write_people(Path(scratch, framing), people=people, seed=0, framing=placed, quirks=False)
            for crop, view in CROPS.items():
                name, scores[name] = f"{framing}, crop {crop}", []
                for seed in range(seeds):
                    values = {
                        "task": target,
                        "epochs": epochs,
                        "seed": seed,
                        "data": {"folds": FOLDS, "fold": seed},
                        "view": view | {"size": size},
                        "augment": {"flip": 0.5},
                        "model": {"backbone": backbone, "weights": "none"},
                        "optimizer": {"lr": 4e-3},
                    }
                    score, missed[name] = best_score(TrialConfig.from_values(values), folder, Path(scratch, "cache"))
                    scores[name].append(score)
                    advance(1)
    report(scores, missed, {"people": people, "epochs": epochs, "size": size, "backbone": backbone, "target": target})


def best_score(config: TrialConfig, folder: Path, cache: Path) -> tuple[float, float]:
    """The best score on validation, and the share of images with no detected face."""
    images = read_images(folder, config.data)
    files = build_views(images, [View.of(config.view)], cache)
    data = Data.of(images, split_groups(images, config.data, seed=0), files, with_statistics=False)
    parts = build_parts(config, data, torch.device("cpu"))
    epochs = fit(parts, config.train, epochs=config.epochs, seed=config.seed)
    return max(epoch.report.score or 0.0 for epoch in epochs), len(files.without_face) / len(images)


def report(scores: dict[str, list[float]], missed: dict[str, float], settings: dict[str, object]) -> None:
    table = Table("faces and crop", "macro F1", "lowest", "highest", "no face detected")
    for name, values in scores.items():
        table.add_row(name, *(f"{value:.3f}" for value in (mean(values), min(values), max(values))), f"{missed[name]:.1%}")
    open_console().print(table)
    print(json.dumps({"scores": scores, "missed": missed, **settings}))


if __name__ == "__main__":
    typer.run(main)
