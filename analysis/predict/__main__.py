"""The command: answers of an ensemble for images without labels."""

from pathlib import Path
from time import perf_counter
from typing import Annotated, Literal

import numpy as np
import typer
from rich.table import Table

from analysis.command import refusals, show_written, table, warn
from analysis.members.predictions import Source
from analysis.predict.files import answer_table, write_answers
from analysis.predict.job import decoded, prepare
from trainables.console import output
from trainables.data.images import DataError, LeftOut
from trainables.data.names import shown
from trainables.data.targets import Scheme
from trainables.metrics.metric import TAGGED
from trainables.storage import Folder, open_folder

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def main(
    ensemble: Annotated[str, typer.Option(help="The folder of an ensemble, runs/<run>/ensemble, or its address.")],
    images: Annotated[
        str,
        typer.Option(
            "--photos", metavar="PATH", help="An image, or a folder of images with all its folders, or their address; no hidden files."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The CSV file to write.")],
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where models compute; auto takes a GPU if there is one.")
    ] = "auto",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images that go through a model at a time. [default: as many as in its validation]")
    ] = None,
) -> None:
    """Let an ensemble answer for images without labels.

    The models' files are enough: each brings its view, its normalisation and its classes, and answers as it did in validation. No record
    or data set of the search is needed.

        python -m analysis.predict --ensemble runs/faces/ensemble --photos new_photos --out answers.csv

    One row an image, in the order of their names: its image, the values of the most probable joint class and the probability of each value,
    that class's number, the probability of every joint class, and what is wrong with an image that cannot be used. Of tags those that are
    there, with semicolons between, and the probability of each; of a number that.
    """
    with refusals():
        answer_images(open_folder(ensemble), images, out, device, batch)


def answer_images(folder: Folder, images: str, out: Path, device: str, batch: int | None) -> None:
    """Check, decode, predict, write, print. Raises: RunError, DataError, ConfigError, StorageError."""
    console = output()
    job = prepare(folder, images, out, device, batch)
    start = perf_counter()
    with decoded(job.images, job.trials, single=job.single) as files:
        rows = np.flatnonzero([name not in files.bad for name in job.images.ids])
        if not len(rows):
            unusable = LeftOut("files are there, none of which can be used as an image", named(files.bad))
            raise DataError(f"{images}: {unusable}. Give --photos an image, or a folder that holds some.")
        scores = job.answer(Source(files, [job.images.ids[row] for row in rows]))
    seconds = perf_counter() - start
    scheme = job.content.pipeline.scheme
    write_answers(out, answer_table(scheme, job.images.ids, rows, scores, files.bad))
    warn(console, *files.notes(len(job.images.ids)))
    if files.bad:
        warn(console, LeftOut("images cannot be used", named(files.bad)))
    console.print(shares_table(scheme, scores))
    console.print(f"{len(rows):,} images answered in {seconds:.1f} s, {len(rows) / seconds:,.0f} a second with decoding, on {job.device}.")
    show_written(console, [shown(str(out))])


def shares_table(scheme: Scheme, scores: np.ndarray) -> Table:
    """How often each value of each target, or each tag, is predicted; of a number, between what it lies."""
    if scheme.kind == "number":
        words = zip(("lowest", "median", "highest"), np.quantile(scores[:, 0], [0, 0.5, 1]), strict=True)
        return table("Answers", ("target", ""), ("number",), [(scheme.names[0], name, f"{number:.3g}") for name, number in words])
    rows = []
    if scheme.kind == "tags":
        for tag, count in zip(scheme.class_names(), (scores >= TAGGED).sum(axis=0).tolist(), strict=True):
            rows.append((scheme.names[0] if not rows else "", tag, f"{count:,}", f"{count / len(scores):.1%}"))
        return table("Answers", ("target", "tag"), ("images", "share"), rows)
    for attribute, values in zip(scheme.targets, scheme.split(scores.argmax(axis=1)).T, strict=True):
        for number, count in enumerate(np.bincount(values, minlength=len(attribute.values))):
            name = attribute.name if number == 0 else ""
            rows.append((name, attribute.values[number], f"{count:,}", f"{count / len(scores):.1%}"))
    return table("Answers", ("target", "value"), ("images", "share"), rows)


def named(problems: dict[str, str]) -> tuple[str, ...]:
    """Images and what is wrong with each, to print."""
    return tuple(f"{name} ({why})" for name, why in problems.items())


if __name__ == "__main__":
    app(prog_name="python -m analysis.predict")
