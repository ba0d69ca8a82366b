"""Which images are predicted, and by which models: every mistake in the options is reported at once."""

import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from analysis.command import decode
from analysis.evaluation.answering import Answering, device_of, no_such_device, open_ensemble
from analysis.evaluation.novelty import FALSE_ALARMS, Watch
from analysis.members.predictions import Source, TrialModels, load_once, wanted_views
from analysis.predict.files import add_flags, add_spread, answer_table
from analysis.predict.submission import read_form
from trainables.data.images import DataError, LeftOut, Unlabelled
from trainables.data.layouts.sample_submission import SampleSubmission
from trainables.data.names import some
from trainables.data.targets import Scheme
from trainables.data.views import ViewFiles
from trainables.extensions import ExtensionError
from trainables.mirror import local_folder
from trainables.record import RunError
from trainables.storage import Folder, StorageError

if TYPE_CHECKING:
    import pandas as pd
    import torch


@dataclass(frozen=True)
class Job:
    """Which images are predicted, and by what."""

    answering: Answering
    images: Unlabelled
    single: bool  # one image, and no folder of them
    device: "torch.device"
    false_alarms: float = FALSE_ALARMS  # share of images like those learned from that may be flagged as unlike them
    form: SampleSubmission | None = None  # in which answers are wanted too
    no_form: str = ""  # why one that was found is not used

    @property
    def scheme(self) -> Scheme:
        return self.answering.content.pipeline.scheme


@dataclass(frozen=True, eq=False)
class Answered:
    """What the models answer."""

    table: "pd.DataFrame"  # one row an image
    ids: tuple[str, ...]  # of the images that can be used
    scores: np.ndarray  # (images that can be used, columns)
    unlike: dict[str, float] | None  # by image that is unlike anything learned: its distance, the furthest first; None: not known
    files: ViewFiles
    seconds: float  # decoding included


def answered(job: Job) -> Answered:
    """Decode and predict, under progress bars. Raises: DataError where no image can be used, RunError."""
    start = perf_counter()
    with decoded(job.images, job.answering.trials, single=job.single) as files:
        rows = np.flatnonzero([name not in files.bad for name in job.images.ids])
        if not len(rows):
            unusable = LeftOut("files are there, none of which can be used as an image", named(files.bad))
            raise DataError(f"{job.images.root}: {unusable}. Give an image, or a folder that holds some.")
        ids = tuple(job.images.ids[row] for row in rows)
        watch = Watch(job.answering.novelty, job.answering.trials, load_once)
        scores, apart = job.answering.answer_with_spread(Source(files, ids), job.device, watch.load)
        distances = watch.distances(len(ids))
    seconds = perf_counter() - start
    table, unlike = answer_table(job.scheme, job.images.ids, rows, scores, files.bad), None
    if apart is not None:
        add_spread(table, rows, apart, job.scheme.kind)
    if job.answering.novelty and distances is not None:
        flags = job.answering.novelty.flags(distances, job.false_alarms)
        add_flags(table, rows, flags, distances)
        unlike = {ids[place]: float(distances[place]) for place in np.argsort(-distances, kind="stable").tolist() if flags[place]}
    return Answered(table, ids, scores, unlike, files, seconds)


def named(problems: dict[str, str]) -> tuple[str, ...]:
    """Images and what is wrong with each, to print."""
    return tuple(f"{name} ({why})" for name, why in problems.items())


def prepare(
    folder: Folder,
    images: str | Sequence[str],
    out: Path | None,
    device: str,
    batch: int | None,
    false_alarms: float = FALSE_ALARMS,
    sample: Path | None = None,
) -> Job:
    """What the options ask for.

    Args:
        images: an image, a folder or an address; or a list of images.
        out: the file that will be written; None: none is, and no form is looked for.
        false_alarms: share of images like those learned from that may be flagged.
        sample: the form in which answers are wanted.
    Raises: RunError naming everything that is wrong with them.
    """
    mistakes = []
    answering, found, single = None, None, False
    try:
        answering = open_ensemble(folder, batch)
    except (RunError, ExtensionError) as error:
        mistakes.append(str(error))
    if out and out.is_dir():
        mistakes.append(f"--out {out} is a folder; name the file to write, such as {out / 'answers.csv'}")
    elif out and not out.parent.is_dir():
        mistakes.append(f"--out {out}: there is no folder {out.parent}; make it, or write elsewhere")
    if wrong := no_such_device(device):
        mistakes.append(wrong)
    try:
        if not isinstance(images, str):
            found, single = listed_images(images), len(images) == 1
        # What lies in a store is copied when nothing else is wrong.
        elif not (mistakes and "://" in images):
            place = local_folder(images, whole=False)
            found, single = find_images(place, out), place.is_file()
    except (DataError, StorageError) as error:
        mistakes.append(str(error))
    form, no_form = None, ""
    if answering and found and out:
        try:
            form, no_form = read_form(sample, found.root, found.ids, answering.content.pipeline.scheme)
        except DataError as error:
            mistakes.append(str(error))
    if mistakes or answering is None or found is None:
        raise RunError("\n".join(mistakes))
    return Job(answering, found, single, device_of(device), false_alarms, form, no_form)


def listed_images(files: Sequence[str]) -> Unlabelled:
    """The images of a list. Raises: DataError naming all that are no files."""
    gone = [name for name in files if not Path(name).is_file()]
    if gone or not files:
        raise DataError(f"{some(gone)}: there is no such file" if gone else "the list of images is empty; give some")
    return Unlabelled(Path(), tuple(files))


def find_images(place: Path, out: Path | None, option: str = "--photos") -> Unlabelled:
    """An image, or every file below a folder but hidden ones and `out`, in the order of their names.

    Whether a file is an image shows when it is decoded; its name says little.

    Args:
        option: that named the place.
    Raises: DataError when there is none.
    """
    if place.is_file():
        return Unlabelled(place.parent, (place.name,))
    if not place.is_dir():
        raise DataError(f"{option} {place}: there is no such file or folder. Give an image, or a folder of images.")

    def refuse(error: OSError) -> None:
        raise DataError(f"{option} {error.filename}: {error.strerror}. Make it readable, or give another folder.")

    names = []
    for folder, folders, files in os.walk(place, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(folder)
        # Only plain files: opening a pipe would wait for ever.
        names += [here / name for name in files if not name.startswith(".") and (here / name).is_file()]
    names = sorted(file.relative_to(place).as_posix() for file in names if not out or file.resolve() != out.resolve())
    if not names:
        raise DataError(f"{option} {place}: the folder holds no files. Give an image, or a folder of images.")
    return Unlabelled(place, tuple(names))


@contextmanager
def decoded(images: Unlabelled, trials: Sequence[TrialModels], single: bool):
    """The views of images, under a progress bar: those of a folder stay in the cache, those of a single image go at the end."""
    with TemporaryDirectory() as scratch:
        yield decode(images, wanted_views(trials), Path(scratch) if single else None)
