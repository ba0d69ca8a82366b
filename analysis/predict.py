"""`python -m analysis.predict --ensemble runs/faces/ensemble --photos folder --out answers.csv`: answers for photos without labels."""

import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import torch
import typer
from rich import box
from rich.table import Table

from analysis.command import decode, refusals
from analysis.pipeline import FILE, EnsembleFile, read_ensemble
from analysis.predictions import Source, TrialModels, count_passes, predict_trials, read_trial_models, wanted_views
from trainables.console import output
from trainables.data.labels import Scheme
from trainables.data.names import shown
from trainables.data.photos import DataError, LeftOut, Unlabelled
from trainables.progress import progress_bar
from trainables.record import RunError
from trainables.storage import Folder, open_folder, write_whole

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def main(
    ensemble: Annotated[str, typer.Option(help="The folder of an ensemble, runs/<run>/ensemble, or its address.")],
    photos: Annotated[Path, typer.Option(help="A photo, or a folder of photos with all its folders; hidden files are passed over.")],
    out: Annotated[Path, typer.Option(help="The CSV file to write.")],
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where models compute; auto takes a GPU if there is one.")
    ] = "auto",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Photos that go through a model at a time. [default: as many as in its validation]")
    ] = None,
) -> None:
    """Let an ensemble answer for photos without labels.

    The models' files are enough: each brings its view, its normalisation and its classes, and answers as it did in validation. No record
    or data set of the search is needed.

        python -m analysis.predict --ensemble runs/faces/ensemble --photos new_photos --out answers.csv

    One row a photo, in the order of their names: its image, the values of the likeliest joint class and the probability of each value,
    that class's number, the probability of every joint class, and what is wrong with a photo that cannot be used.
    """
    with refusals():
        answer_photos(open_folder(ensemble), photos, out, device, batch)


def answer_photos(folder: Folder, photos: Path, out: Path, device: str, batch: int | None) -> None:
    """Check, decode, predict, write, print. Raises: RunError, DataError, ConfigError, StorageError."""
    console = output()
    job = prepare(folder, photos, out, device, batch)
    start = perf_counter()
    with decoded(job.photos, job.trials, single=photos.is_file()) as files:
        rows = np.flatnonzero([name not in files.bad for name in job.photos.ids])
        if not len(rows):
            unusable = LeftOut("files are there, none of which can be used as a photo", named(files.bad))
            raise DataError(f"{photos}: {unusable}. Give --photos a photo, or a folder that holds some.")
        scores = job.answer(Source(files, [job.photos.ids[row] for row in rows]))
    seconds = perf_counter() - start
    scheme = job.content.pipeline.scheme
    write_answers(out, answer_table(scheme, job.photos.ids, rows, scores, files.bad))
    if files.faceless:
        console.print(files.faceless_words(len(job.photos.ids)), style="yellow", markup=False, soft_wrap=True)
    if files.bad:
        console.print(str(LeftOut("photos cannot be used", named(files.bad))), style="yellow", markup=False, soft_wrap=True)
    console.print(shares_table(scheme, scores))
    console.print(f"{len(rows):,} photos answered in {seconds:.1f} s, {len(rows) / seconds:,.0f} a second with decoding, on {job.device}.")
    console.print(f"Written: {shown(str(out))}", markup=False, soft_wrap=True)


@dataclass(frozen=True)
class Job:
    """What is to be answered, and by whom."""

    content: EnsembleFile
    trials: list[TrialModels]
    photos: Unlabelled
    device: torch.device

    def answer(self, source: Source) -> np.ndarray:
        """Scores (photos, classes) under a progress bar. Raises: RunError when a batch does not fit the GPU."""
        pipeline = self.content.pipeline
        try:
            with progress_bar("predicting", count_passes(self.trials, source, pipeline.looks)) as progress:
                return pipeline(predict_trials(self.trials, source, self.device, progress, pipeline.looks))
        except torch.OutOfMemoryError:
            raise RunError("the GPU has no room for a batch; give a smaller one, such as --batch 8, or --device cpu") from None


def prepare(folder: Folder, photos: Path, out: Path, device: str, batch: int | None) -> Job:
    """What the options ask for. Raises: RunError naming everything that is wrong with them."""
    if folder.name == FILE:
        folder = folder.parent
    mistakes = []
    content, trials, found = None, [], None
    try:
        content = read_ensemble(folder)
        trials = read_trial_models(folder, content)
    except RunError as error:
        mistakes.append(str(error))
    try:
        found = find_photos(photos, out)
    except DataError as error:
        mistakes.append(str(error))
    if out.is_dir():
        mistakes.append(f"--out {out} is a folder; name the file to write, such as {out / 'answers.csv'}")
    elif not out.parent.is_dir():
        mistakes.append(f"--out {out}: there is no folder {out.parent}; make it, or write elsewhere")
    if device == "cuda" and not torch.cuda.is_available():
        mistakes.append("--device cuda: there is no GPU that torch can use; take cpu or auto")
    if mistakes:
        raise RunError("\n".join(mistakes))
    chosen = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    return Job(content, [replace(one, largest_pass=batch or 0) for one in trials], found, torch.device(chosen))


def find_photos(place: Path, out: Path) -> Unlabelled:
    """A photo, or every file below a folder but hidden ones and `out`, in the order of their names.

    Whether a file is a photo shows when it is decoded; its name says little. Raises: DataError when there is none.
    """
    if place.is_file():
        return Unlabelled(place.parent, (place.name,))
    if not place.is_dir():
        raise DataError(f"--photos {place}: there is no such file or folder. Give a photo, or a folder of photos.")

    def refuse(error: OSError) -> None:
        raise DataError(f"--photos {error.filename}: {error.strerror}. Make it readable, or give another folder.")

    names = []
    for folder, folders, files in os.walk(place, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(folder)
        # Only plain files: opening a pipe would wait for ever.
        names += [here / name for name in files if not name.startswith(".") and (here / name).is_file()]
    names = sorted(file.relative_to(place).as_posix() for file in names if file.resolve() != out.resolve())
    if not names:
        raise DataError(f"--photos {place}: the folder holds no files. Give a photo, or a folder of photos.")
    return Unlabelled(place, tuple(names))


@contextmanager
def decoded(photos: Unlabelled, trials: Sequence[TrialModels], single: bool):
    """The views of photos, under a progress bar: those of a folder stay in the cache, those of a single photo go at the end."""
    with TemporaryDirectory() as scratch:
        yield decode(photos, wanted_views(trials), Path(scratch) if single else None)


def answer_table(scheme: Scheme, names: Sequence[str], rows: np.ndarray, scores: np.ndarray, problems: dict[str, str]) -> pd.DataFrame:
    """One row a photo; cells of photos that cannot be used are empty but for `problem`.

    Args:
        rows: (answered,) positions of those that are answered.
        scores: (answered, classes).
    """
    classes = scores.argmax(axis=1)
    columns: dict[str, Sequence] = {}

    def ours(column: str) -> str:
        # A target may be called as a column of ours is; ours gives way.
        return column if column not in (*scheme.names, *columns) else ours(f"{column} of the image")

    for attribute, values in zip(scheme.attributes, scheme.split(classes).T, strict=True):
        columns[attribute.name] = np.array(attribute.values, dtype=object)[values]
        probability = scheme.marginal((attribute.name,), scores)[np.arange(len(scores)), values]
        columns[ours(f"{attribute.name} probability")] = probability
    columns[ours("joint class")] = pd.array(classes, dtype="Int64")
    columns |= {ours(f"P({name})"): scores[:, number] for number, name in enumerate(scheme.class_names())}
    image, problem = ours("image"), ours("problem")
    table = pd.DataFrame(columns, index=rows).reindex(range(len(names)))
    # As objects: text of pandas holds no names that are not of its encoding.
    table.insert(0, image, pd.Series(names, dtype=object))
    table[problem] = [problems.get(name, "") for name in names]
    return table


def write_answers(file: Path, table: pd.DataFrame) -> None:
    """Write the table, whole or not at all, with every digit. Raises: RunError."""
    try:
        # Names of files need not be text of any encoding; their bytes are kept.
        write_whole(file, table.to_csv(index=False, lineterminator="\n").encode(errors="surrogateescape"))
    except OSError as error:
        raise RunError(f"--out {file} cannot be written ({error.strerror or error}); write elsewhere, or make room") from None


def shares_table(scheme: Scheme, scores: np.ndarray) -> Table:
    """How the answers are shared out among the values of each attribute."""
    table = Table(title="Answers", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("attribute")
    table.add_column("value")
    table.add_column("photos", justify="right")
    table.add_column("share", justify="right")
    for attribute, values in zip(scheme.attributes, scheme.split(scores.argmax(axis=1)).T, strict=True):
        for number, count in enumerate(np.bincount(values, minlength=len(attribute.values))):
            name = attribute.name if number == 0 else ""
            table.add_row(name, attribute.values[number], f"{count:,}", f"{count / len(scores):.1%}")
    return table


def named(problems: dict[str, str]) -> tuple[str, ...]:
    """Photos and what is wrong with each, to print."""
    return tuple(f"{name} ({why})" for name, why in problems.items())


if __name__ == "__main__":
    app(prog_name="python -m analysis.predict")
