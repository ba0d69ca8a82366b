"""Which images are predicted, and by which models: every mistake in the options is reported at once."""

import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from analysis.command import choose_device, decode
from analysis.evaluation.fitted_ensemble import FILE, EnsembleFile, read_ensemble, read_trial_models
from analysis.members.predictions import Source, TrialModels, count_passes, predict_trials, wanted_views
from trainables.data.images import DataError, Unlabelled
from trainables.mirror import local_folder
from trainables.progress import progress_bar
from trainables.record import RunError
from trainables.storage import Folder, StorageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Job:
    """Which images are predicted, and by which models."""

    content: EnsembleFile
    trials: list[TrialModels]
    images: Unlabelled
    single: bool  # one image, and no folder of them
    device: "torch.device"

    def answer(self, source: Source) -> np.ndarray:
        """Scores (images, classes) under a progress bar. Raises: RunError when a batch does not fit the GPU."""
        import torch

        pipeline = self.content.pipeline
        try:
            with progress_bar("predicting", count_passes(self.trials, source, pipeline.looks)) as progress:
                return pipeline(predict_trials(self.trials, source, self.device, progress, pipeline.looks))
        except torch.OutOfMemoryError:
            raise RunError("the GPU has no room for a batch; give a smaller one, such as --batch 8, or --device cpu") from None


def prepare(folder: Folder, images: str, out: Path, device: str, batch: int | None) -> Job:
    """What the options ask for. Raises: RunError naming everything that is wrong with them."""
    if folder.name == FILE:
        folder = folder.parent
    mistakes = []
    content, trials, place, found = None, [], None, None
    try:
        content = read_ensemble(folder)
        trials = read_trial_models(folder, content)
    except RunError as error:
        mistakes.append(str(error))
    if out.is_dir():
        mistakes.append(f"--out {out} is a folder; name the file to write, such as {out / 'answers.csv'}")
    elif not out.parent.is_dir():
        mistakes.append(f"--out {out}: there is no folder {out.parent}; make it, or write elsewhere")
    if device == "cuda" and choose_device().type == "cpu":
        mistakes.append("--device cuda: there is no GPU that torch can use; take cpu or auto")
    try:
        # What lies in a store is copied when nothing else is wrong.
        if not (mistakes and "://" in images):
            place = local_folder(images, whole=False)
            found = find_images(place, out)
    except (DataError, StorageError) as error:
        mistakes.append(str(error))
    if mistakes or content is None or place is None or found is None:
        raise RunError("\n".join(mistakes))
    if device == "auto":
        chosen = choose_device()
    else:
        import torch

        chosen = torch.device(device)
    return Job(content, [replace(one, largest_pass=batch or 0) for one in trials], found, place.is_file(), chosen)


def find_images(place: Path, out: Path) -> Unlabelled:
    """An image, or every file below a folder but hidden ones and `out`, in the order of their names.

    Whether a file is an image shows when it is decoded; its name says little. Raises: DataError when there is none.
    """
    if place.is_file():
        return Unlabelled(place.parent, (place.name,))
    if not place.is_dir():
        raise DataError(f"--photos {place}: there is no such file or folder. Give an image, or a folder of images.")

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
        raise DataError(f"--photos {place}: the folder holds no files. Give an image, or a folder of images.")
    return Unlabelled(place, tuple(names))


@contextmanager
def decoded(images: Unlabelled, trials: Sequence[TrialModels], single: bool):
    """The views of images, under a progress bar: those of a folder stay in the cache, those of a single image go at the end."""
    with TemporaryDirectory() as scratch:
        yield decode(images, wanted_views(trials), Path(scratch) if single else None)
