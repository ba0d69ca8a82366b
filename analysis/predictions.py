"""Predicting photos from checkpoints alone: each brings its view, its normalisation and its task."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from analysis.trials import Runs, Sample, Trial
from trainables.checkpoint import load_model
from trainables.data.batches import plain_batches
from trainables.data.photos import Photos, Unlabelled
from trainables.data.views import View, ViewFiles, open_view
from trainables.loop import choose_precision, predict
from trainables.record import RunError
from trainables.storage import local_file


@dataclass(frozen=True)
class Source:
    """Photos to predict."""

    files: ViewFiles
    rows: np.ndarray  # (n,) their rows in the view files


def data_folder(runs: Runs) -> Path:
    """Where the photos lie; runs of one split share them, so any run's folder will do. Raises: RunError when none is there."""
    folders = dict.fromkeys(Path(card.data) for card in runs.cards)
    for folder in folders:
        if folder.exists():
            return folder
    names = ", ".join(card.name for card in runs.cards)
    cards = ", ".join(str(folder / "run.json") for folder in runs.folders)
    gone = ", ".join(map(str, folders))
    raise RunError(f"the photos of {names} were in {gone}, which is gone. Put it back, or correct data in {cards}.")


def wanted_views(trials: Sequence[Trial]) -> list[View]:
    """The views that these trials look at."""
    return list(dict.fromkeys(View.of(trial.record.config.view) for trial in trials))


def labelled_source(photos: Photos, files: ViewFiles, sample: Sample) -> Source:
    """The photos of one side of the split, in its order.

    Raises: RunError when one is gone, cannot be decoded any more or has another label: the score would not be the run's.
    """
    whole = photos.without(files.bad)
    index = {name: number for number, name in enumerate(whole.ids)}
    gone = [name for name in sample.ids if name not in index]
    if gone:
        raise RunError(f"{photos.root}: {len(gone)} photos of the run are gone or cannot be decoded, {gone[0]} among them. Put them back.")
    chosen = np.array([index[name] for name in sample.ids])
    changed = np.flatnonzero((whole.labels[chosen] != sample.labels).any(axis=1))
    if len(changed):
        raise RunError(
            f"{photos.root}: {len(changed)} photos have another label than when the run was made, {sample.ids[changed[0]]} among them. "
            "Bring the old train.csv back, or train a new run on the new labels."
        )
    return Source(files, whole.rows[chosen])


def unlabelled_source(photos: Unlabelled, files: ViewFiles) -> Source:
    """All photos, in the order in which the answer must be written; those that cannot be decoded are black."""
    return Source(files, np.arange(len(photos.ids)))


def predict_trials(
    trials: Sequence[Trial], source: Source, device: torch.device, progress: Callable[[int], None] = lambda photos: None
) -> dict[Trial, np.ndarray]:
    """Joint probabilities (n, classes of the trial's scheme), float64, of each trial.

    Args:
        progress: called with the number of photos of each batch.
    """
    return {trial: _predict_trial(trial, source, device, progress) for trial in dict.fromkeys(trials)}


def _predict_trial(trial: Trial, source: Source, device: torch.device, progress: Callable[[int], None]) -> np.ndarray:
    with local_file(trial.model) as file:
        model, card = load_model(file, device)
    settings = card.config.train
    # The batches of the training loop's validation, so that on one machine the numbers are the same to the bit.
    view, edges = open_view(source.files.files[card.view]), card.config.model.sees_edges
    batches = plain_batches(view, source.rows, max(64, settings.batch_size), threads=2, edges=edges)
    heads = predict(model, _counted(batches, progress), device, choose_precision(settings.precision, device))
    return card.task.joint_probabilities(heads)


def _counted(batches: Iterator[torch.Tensor], progress: Callable[[int], None]) -> Iterator[torch.Tensor]:
    for batch in batches:
        yield batch
        progress(len(batch))
