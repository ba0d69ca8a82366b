"""The command: answers of an ensemble for images without labels."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from analysis.command import BatchOption, DeviceOption, EnsembleOption, FalseAlarmsOption, refusals, show_written, table, warn
from analysis.evaluation.elsewhere import write_source
from analysis.evaluation.fitted_ensemble import maker
from analysis.evaluation.novelty import FALSE_ALARMS
from analysis.predict.files import write_answers
from analysis.predict.job import Answered, Job, answered, named, prepare
from analysis.predict.submission import Form
from trainables.commands import program
from trainables.console import document, output
from trainables.data.images import LeftOut
from trainables.data.names import shown
from trainables.data.targets import Scheme
from trainables.metrics.metric import TAGGED
from trainables.options import AsJson, TrustCode
from trainables.storage import open_folder

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
    sample_submission: Annotated[
        Path | None,
        typer.Option(
            help="A form for answers, which is filled in beside --out. [default: sample_submission.csv, or the contest's info.csv, beside "
            "the images or their folder]",
            show_default=False,
        ),
    ] = None,
    false_alarms: FalseAlarmsOption = FALSE_ALARMS,
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
    there, with semicolons between, and the probability of each; of a number that. Where the vote was made with --mc-dropout, how far its
    passes are from one another: the mutual information in nats (BALD), of a number the standard deviation.

    Images that are unlike anything that the models learned from are named first, the furthest away at the top, and marked in the table:
    their answers mean nothing. What is how far away is told by the network's features; the limit is set on validation images, of which the
    share --false-alarms lies beyond it. Where a sample_submission.csv says in which form answers are wanted, it is filled in, too.
    """
    with refusals():
        answer_images(prepare(open_folder(ensemble), images, out, device, batch, false_alarms, sample_submission), out)


def answer_images(job: Job, out: Path) -> None:
    """Decode, predict, write, print. Raises: RunError, DataError, ConfigError, StorageError."""
    console, files = output(), [out]
    found = answered(job)
    write_answers(out, found.table)
    for line in novelty_lines(job, found):
        warn(console, line)
    if job.no_form:
        warn(console, f"Not filled in: {job.no_form}")
    if job.form:
        form, file = Form.of(job.form, found.ids), out.with_name(f"{out.stem}_submission.csv")
        form.write(file, job.images.root, found.ids, found.scores, job.scheme)
        files += [file, write_source(file, job.answering.folder)]
        console.print(f"In the form of {shown(str(job.form.file))}: {shown(str(file))}", soft_wrap=True)
        warn(console, *(one for one in (form.without_image, form.without_row) if one.names))
    warn(console, *found.files.notes(len(job.images.ids)))
    if found.files.bad:
        warn(console, LeftOut("images cannot be used", named(found.files.bad)))
    scores, seconds = found.scores, found.seconds
    console.print(shares_table(job.scheme, scores))
    rate = f"{len(scores) / seconds:,.0f} a second with decoding, on {job.device}"
    console.print(f"{len(scores):,} images answered in {seconds:.1f} s, {rate}.")
    show_written(console, [shown(str(file)) for file in files])
    unlike = {"unlike": found.unlike, "false_alarms": job.false_alarms}
    document(unlike | {"files": files, "images": len(scores), "seconds": seconds, "problems": found.files.bad, "answers": found.table})


def novelty_lines(job: Job, found: Answered) -> Iterator[str]:
    """Which images are unlike anything learned, the furthest first; or why nobody knows."""
    novelty = job.answering.novelty
    if novelty is None or found.unlike is None:
        again = maker(job.answering.folder)
        yield f"Images unlike anything learned are not flagged: {job.answering.folder} does not hold what that takes, and {again} adds it."
    elif job.false_alarms < novelty.least:
        few = f"{len(novelty.valid)} validation images cannot tell a share of false alarms below {novelty.least:.2g}"
        yield f"No image is flagged as unlike anything learned: {few}; give --false-alarms {math.ceil(100 * novelty.least) / 100:g}."
    elif found.unlike:
        named = tuple(f"{name} ({distance:.3g} times as far as usual)" for name, distance in found.unlike.items())
        wrong = f"about {job.false_alarms:.2g} of images like those are called so, too"
        yield str(LeftOut(f"of {len(found.ids):,} images are unlike anything that the models learned from ({wrong})", named))
    else:
        yield f"No image is unlike what the models learned from (limit: {job.false_alarms:.2g} of the validation images)."


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
