"""What a time budget buys: macro F1 on images that were put aside, by the answer of a whole command.

A data set in the contest's layout is divided: some people are put aside, and their images become its eval images, without labels. Of one
in another layout the images of a table are put aside that says what each shows. Then each way is given the same time, one after the other,
from the command to the answer:

    uv run python -m benchmarks.answer --data photos --space resnet.yaml --budget 10m [--aside 240] [--way search --way today] [--set ...]
    uv run python -m benchmarks.answer --data flowers --answers flowers-test.csv --space effnet.yaml --budget 10m

    search     the defaults: probes, search, finalists, vote
    today      as before there were probes and finalists: the search has all the time, then the best three vote
    random     the same with random search
    baseline   one trial, the first start entry or the space's defaults
    probe      linear probes alone
"""

import csv
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from trainables.console import open_console
from trainables.data.layouts.contest import contest_scheme
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig
from trainables.metrics import METRICS
from trainables.metrics.evidence import label_evidence
from tuner.cli import seconds

OLD = ("--set", "run/probe=false", "--finalists", "0")
WAYS: dict[str, tuple[str, ...]] = {
    "search": (),
    "today": OLD,
    "random": (*OLD, "--searcher", "random"),
    "baseline": (*OLD, "--trials", "1"),
    "probe": ("--finalists", "0", "--trials", "1"),
}


@dataclass(frozen=True)
class Aside:
    """Images whose labels were put aside, by their names, in order."""

    truth: np.ndarray  # (n,) classes
    groups: np.ndarray  # (n,) people, or whose images are alike
    names: tuple[str, ...]
    classes: tuple[str, ...]  # as an answer says them


def main(
    data: Annotated[Path, typer.Option(help="A folder in the contest's layout, or with --answers in any.")],
    space: Annotated[str, typer.Option(help="A YAML file, or a shipped space.")],
    answers: Annotated[
        Path | None,
        typer.Option(help="A table image,label of images in --data that are put aside. [default: of --aside people]", show_default=False),
    ] = None,
    budget: Annotated[float, typer.Option(parser=seconds, metavar="TIME", help="From the command to the answer.")] = 600.0,
    aside: Annotated[int, typer.Option(min=1, help="People put aside.")] = 240,
    seed: Annotated[int, typer.Option(min=0, help="Of who is put aside, and of each search.")] = 0,
    way: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(WAYS)}; repeat it. [default: all]", show_default=False)] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="As for tuner.run.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Where the runs are kept. [default: nowhere]", show_default=False)] = None,
) -> None:
    """Print what each way answers for the images put aside, with 95 % CIs over their people, and the time it took."""
    console, figures = open_console(width=140), {}
    table = Table("way", "macro F1 (95 % CI)", "accuracy", "seconds", "trials")
    with TemporaryDirectory(prefix="answer-") as made:
        folder, storage = Path(made) / "data", (runs or Path(made) / "runs").resolve()
        asked = Path(made) / "asked"
        hidden = put_images_aside(data, folder, answers, asked, seed) if answers else put_aside(data, folder, aside, seed)
        for name in way or WAYS:
            begun = perf_counter()
            words = ["--space", space, "--data", str(folder), "--storage", str(storage), "--name", name, "--seed", str(seed)]
            words += ["--time-budget", f"{budget:g}s", "--answer", "--no-dashboard", *WAYS[name]]
            words += [word for change in changes or () for word in ("--set", change)]
            subprocess.run([sys.executable, "-m", "tuner.run", *words], check=True, stdout=subprocess.DEVNULL)
            took = perf_counter() - begun
            ensemble = storage / name / "ensemble"
            answer = predicted(ensemble, asked, Path(made) / "answers.csv") if answers else submitted(ensemble / "submission.csv")
            score, (low, high), accuracy = grade(hidden, answer, seed)
            trials = len(list((storage / name).glob("trials/*/result.json")))
            table.add_row(name, f"{score:.3f} ({low:.3f}-{high:.3f})", f"{accuracy:.3f}", f"{took:.0f}", str(trials))
            figures[name] = {"f1_macro": round(score, 4), "low": round(low, 4), "high": round(high, 4), "seconds": round(took, 1)}
    console.print(table)
    machine = {"python": platform.python_version(), "cores": os.cpu_count()}
    print(json.dumps({**figures, "budget": budget, "aside": len(np.unique(hidden.groups)), "seed": seed, "space": space, **machine}))


def put_aside(data: Path, folder: Path, people: int, seed: int, train: int | None = None) -> Aside:
    """Copy a data set, with some people as its eval images, without their labels in any file, and so many others to train on, or all.

    Raises: typer.BadParameter for a folder that is not there, or has too few people.
    """
    settings = DataConfig(cuts=(30, 60))
    if not data.is_dir():
        raise typer.BadParameter(f"{data}: no such folder", param_hint="--data")
    images = read_images(data, settings)
    everyone = np.unique(images.groups)
    if people >= len(everyone):
        raise typer.BadParameter(f"{people} people cannot be put aside: {data} has {len(everyone)}", param_hint="--aside")
    rng = np.random.default_rng(seed)
    chosen = set(rng.choice(everyone, people, replace=False).tolist())
    others = np.random.default_rng([seed, 1]).permutation([group for group in everyone.tolist() if group not in chosen])
    unused = chosen | set(others[train:].tolist() if train is not None else ())
    source = data / "train"
    with (source / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    out = {Path(name).parts[0] for name, group in zip(images.ids, images.groups.tolist(), strict=True) if group in unused}
    (folder / "train" / "images").mkdir(parents=True)
    (folder / "eval" / "images").mkdir(parents=True)
    kept = [row for row in rows if row["path"] not in out]
    for row in kept:
        shutil.copytree(source / "images" / row["path"], folder / "train" / "images" / row["path"])
    _write(folder / "train" / "train.csv", list(rows[0]), [list(row.values()) for row in kept])
    labels = contest_scheme((30, 60)).joint(images.labels)
    hidden = [row for row, group in enumerate(images.groups.tolist()) if group in chosen]
    rng.shuffle(hidden)
    names = []
    for number, row in enumerate(hidden):
        file = source / "images" / images.ids[row]
        names.append(f"{number:05}{file.suffix}")
        shutil.copy(file, folder / "eval" / "images" / names[-1])
    _write(folder / "eval" / "info.csv", ["ImageID", "ans"], [[name, 0] for name in names])
    return Aside(labels[hidden], images.groups[hidden], tuple(names), tuple(map(str, range(18))))


def put_images_aside(data: Path, folder: Path, answers: Path, asked: Path, seed: int) -> Aside:
    """Copy a data set without the images of a table `image,label`, and these into a folder of their own, by names that tell nothing.

    Raises: typer.BadParameter for a table or images of it that are not there, or one of other columns.
    """
    if not answers.is_file():
        raise typer.BadParameter(f"{answers}: no such file", param_hint="--answers")
    with answers.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"image", "label"} <= rows[0].keys():
        raise typer.BadParameter(f"{answers} needs rows, and columns image and label", param_hint="--answers")
    labels = {row["image"]: row["label"] for row in rows}
    if missing := [image for image in labels if not (data / image).is_file()]:
        raise typer.BadParameter(f"{len(missing)} images of {answers} are not in {data}, first {missing[0]}", param_hint="--answers")
    apart = {data / image for image in labels}
    shutil.copytree(data, folder, ignore=lambda place, names: [name for name in names if Path(place) / name in apart])
    for place in sorted((one for one in folder.rglob("*") if one.is_dir()), reverse=True):
        if not any(place.iterdir()):
            place.rmdir()
    asked.mkdir()
    images = np.random.default_rng(seed).permutation(list(labels)).tolist()
    names = [f"{number:05}{Path(image).suffix}" for number, image in enumerate(images)]
    for image, name in zip(images, names, strict=True):
        shutil.copy(data / image, asked / name)
    classes = sorted(set(labels.values()))
    return Aside(np.array([classes.index(labels[image]) for image in images]), np.arange(len(images)), tuple(names), tuple(classes))


def submitted(submission: Path) -> dict[str, str]:
    """The answer for each image of a submission."""
    with submission.open(newline="") as file:
        return {row["ImageID"]: row["ans"] for row in csv.DictReader(file)}


def predicted(ensemble: Path, photos: Path, out: Path) -> dict[str, str]:
    """The answer of an ensemble's one target for each image of a folder; `out` is written."""
    words = ["--ensemble", str(ensemble), "--photos", str(photos), "--out", str(out)]
    subprocess.run([sys.executable, "-m", "analysis.predict", *words], check=True, stdout=subprocess.DEVNULL)
    with out.open(newline="") as file:
        return {row[0]: row[1] for row in list(csv.reader(file))[1:]}


def grade(hidden: Aside, answers: Mapping[str, str], seed: int) -> tuple[float, tuple[float, float], float]:
    """Macro F1 of answers over all classes, with those that only an answer says, its 95 % CI over groups, and their accuracy."""
    classes = [*hidden.classes, *sorted({*answers.values()} - {*hidden.classes})]
    answer = np.array([classes.index(answers[name]) for name in hidden.names])
    found = label_evidence(METRICS["f1_macro"], hidden.truth, answer, hidden.groups, len(classes))
    return found.score(), found.interval(np.random.default_rng(seed)), float((answer == hidden.truth).mean())


def _write(path: Path, header: list[str], rows: list[list]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    typer.run(main)
