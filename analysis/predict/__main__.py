"""The command: answers of an ensemble for images without labels."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from analysis.command import BatchOption, DeviceOption, EnsembleOption, refusals, show_written, table, warn
from analysis.predict.files import write_answers
from analysis.predict.job import answered, named, prepare
from trainables.commands import program
from trainables.console import document, output
from trainables.data.images import LeftOut
from trainables.data.names import shown
from trainables.data.targets import Scheme
from trainables.metrics.metric import TAGGED
from trainables.options import AsJson, TrustCode
from trainables.storage import Folder, open_folder

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def main(
    ensemble: EnsembleOption,
    images: Annotated[
        str,
        typer.Option(
            "--photos", metavar="PATH", help="An image, or a folder of images with all its folders, or their address; no hidden files."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The CSV file to write.")],
    device: DeviceOption = "auto",
    batch: BatchOption = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
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
    found = answered(job)
    write_answers(out, found.table)
    warn(console, *found.files.notes(len(job.images.ids)))
    if found.files.bad:
        warn(console, LeftOut("images cannot be used", named(found.files.bad)))
    scores, seconds = found.scores, found.seconds
    console.print(shares_table(job.scheme, scores))
    rate = f"{len(scores) / seconds:,.0f} a second with decoding, on {job.device}"
    console.print(f"{len(scores):,} images answered in {seconds:.1f} s, {rate}.")
    show_written(console, [shown(str(out))])
    document({"files": [out], "images": len(scores), "seconds": seconds, "problems": found.files.bad, "answers": found.table})


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


if __name__ == "__main__":
    app(prog_name=program("analysis.predict"))
