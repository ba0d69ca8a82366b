"""Predicting images from checkpoints alone: each brings its view, its normalisation and its task."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from analysis.members.mc_dropout import dropping, pass_number
from analysis.members.trials import Runs, Sample, Trial
from analysis.members.tta import TRANSFORMS
from trainables.card import Card, read_card
from trainables.data.images import Images, Unlabelled
from trainables.data.targets import Task
from trainables.data.views import View, ViewFiles, open_view
from trainables.mirror import local_folder
from trainables.record import DAMAGE, RunError
from trainables.storage import Folder, StorageError, local_file

if TYPE_CHECKING:
    import torch

    from trainables.models.assemble import Classifier

PLAIN = ("plain",)  # of TRANSFORMS: the view as it is


@dataclass(frozen=True)
class TrialModels:
    """What answers under a trial's name: its models, whose mean counts."""

    name: str
    task: Task
    view: View
    models: tuple[Folder, ...]  # files of weights
    edges: bool = False  # whether the models take a channel of edges beside the colours
    largest_pass: int = 0  # images that go through a model at a time; 0: as many as in validation

    @classmethod
    def of(cls, trial: Trial) -> "TrialModels":
        """The trial, with passes as small as its training needed."""
        config = trial.record.config
        view, edges = View.of(config.view), config.model.sees_edges
        return cls(trial.name, trial.task, view, trial.models, edges, trial.record.result.micro_batch)

    @classmethod
    def read(cls, name: str, models: Sequence[Folder]) -> "TrialModels":
        """What files of weights say of themselves; no record is needed.

        Raises: RunError naming every file that is gone or damaged, or has another task or view than the first.
        """
        kinds: dict[Folder, tuple[Task, View, bool]] = {}
        mistakes = []
        for file in models:
            try:
                card = read_card(file)
                kinds[file] = card.task.of_kind(card.kind), card.view, card.config.model.sees_edges
            except StorageError:
                raise
            except FileNotFoundError:
                mistakes.append(f"{file}: the weights of {name} are gone")
            except DAMAGE as error:
                mistakes.append(f"{file}: the weights of {name} cannot be read ({type(error).__name__}: {error})")
        found = list(kinds.values())
        others = [str(file) for file, kind in kinds.items() if kind != found[0]]
        if others:
            mistakes.append(f"{', '.join(others)}: the weights are of another task or view than those of {next(iter(kinds))} beside them")
        if mistakes:
            raise RunError("\n".join(mistakes))
        task, view, edges = found[0]
        return cls(name, task, view, tuple(models), edges)


@dataclass(frozen=True)
class Source:
    """Images to predict."""

    files: ViewFiles
    ids: Sequence[str]  # (n,)

    def seen(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Images (rows, height, width, 3) uint8 as a view shows them, and the rows (n,) of those to predict."""
        opened = open_view(self.files.files[view])
        return opened.images, opened.rows(self.ids)


@dataclass(frozen=True, eq=False)
class Shown:
    """Images to predict that lie in memory, on no disk."""

    images: Mapping[View, np.ndarray]  # (n, height, width, 3) uint8
    ids: Sequence[str]  # (n,)

    def seen(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """As of `Source`."""
        return self.images[view], np.arange(len(self.ids))


# Gives the model that lies in a file, on a device, and its card.
Load = Callable[[Folder, "torch.device"], "tuple[Classifier, Card]"]


def load_once(file: Folder, device: "torch.device") -> "tuple[Classifier, Card]":
    """The model of a file, for one prediction: whoever predicts again reads it again, and needs no more memory than for one model."""
    from trainables.checkpoint import load_model

    with local_file(file) as local:
        return load_model(local, device)


def data_folder(runs: Runs) -> Path:
    """Where the images lie; runs of one split share them, so any run's folder will do. Raises: RunError when none is there."""
    places = dict.fromkeys(card.data for card in runs.cards)
    for place in places:
        if (folder := local_folder(place)).exists():
            return folder
    names = ", ".join(card.name for card in runs.cards)
    cards = ", ".join(str(folder / "run.json") for folder in runs.folders)
    gone = ", ".join(places)
    raise RunError(f"the images of {names} were in {gone}, which is gone. Put it back, or correct data in {cards}.")


def wanted_views(trials: Sequence[Trial | TrialModels]) -> list[View]:
    """The views of these trials."""
    return list(dict.fromkeys(_trial_models(trial).view for trial in trials))


def labelled_source(images: Images, files: ViewFiles, sample: Sample) -> Source:
    """The images of one part of the split, in its order.

    Raises: RunError when one is gone, cannot be decoded any more or has another label: the score would not be the run's.
    """
    whole = images.without(files.bad)
    index = {name: number for number, name in enumerate(whole.ids)}
    gone = [name for name in sample.ids if name not in index]
    if gone:
        raise RunError(f"{images.root}: {len(gone)} images of the run are gone or cannot be decoded, {gone[0]} among them. Put them back.")
    chosen = np.array([index[name] for name in sample.ids])
    changed = np.flatnonzero((whole.labels[chosen] != sample.labels).any(axis=1))
    if len(changed):
        raise RunError(
            f"{images.root}: {len(changed)} images have another label than when the run was made, {sample.ids[changed[0]]} among them. "
            "Bring the old train.csv back, or train a new run on the new labels."
        )
    return Source(files, sample.ids)


def unlabelled_source(images: Unlabelled, files: ViewFiles) -> Source:
    """All images, in the order in which the answer must be written; those that cannot be decoded are black."""
    return Source(files, images.ids)


def count_passes(trials: Sequence[Trial | TrialModels], source: Source | Shown, looks: Sequence[str] = PLAIN) -> int:
    """What the progress of a prediction adds up to: images, once for each model and transform."""
    return sum(len(models) for models in {trial.name: trial.models for trial in trials}.values()) * len(looks) * len(source.ids)


def predict_trials(
    trials: Sequence[Trial | TrialModels],
    source: Source | Shown,
    device: "torch.device",
    progress: Callable[[int], None] = lambda images: None,
    looks: Sequence[str] = PLAIN,
    load: Load = load_once,
) -> dict[str, np.ndarray]:
    """Joint probabilities (n, classes of the trial's scheme), float64, by trial: the mean over its models and over transforms.

    Args:
        progress: called with the number of images of each batch.
        looks: names in TRANSFORMS, or of passes of Monte Carlo dropout.
        load: called once for each file of weights.
    """
    seen = predict_transforms(trials, source, device, looks, progress, load=load)
    return averaged(seen, looks, tuple(seen[looks[0]]))


def averaged(by_transform: Mapping[str, Mapping[str, np.ndarray]], names: Sequence[str], trials: Sequence[str]) -> dict[str, np.ndarray]:
    """The mean over transforms of what each trial predicts."""
    return {trial: np.mean([by_transform[name][trial] for name in names], axis=0) for trial in trials}


def predict_transforms(
    trials: Sequence[Trial | TrialModels],
    source: Source | Shown,
    device: "torch.device",
    looks: Sequence[str],
    progress: Callable[[int], None] = lambda images: None,
    timed: Callable[[str, float], None] = lambda name, seconds: None,
    load: Load = load_once,
) -> dict[str, dict[str, np.ndarray]]:
    """Joint probabilities as of `predict_trials`, by transform and then by trial; each model is loaded once.

    Args:
        timed: called with each trial's name and its seconds for one transform of one image, all its models together, without loading them.
    """
    found: dict[str, dict[str, np.ndarray]] = {look: {} for look in looks}
    for trial in {trial.name: trial for trial in trials}.values():
        answers, seconds = _predict_trial(_trial_models(trial), source, device, looks, progress, load)
        for look, answer in zip(looks, answers, strict=True):
            found[look][trial.name] = answer
        timed(trial.name, seconds / (len(looks) * len(source.ids)))
    return found


def _predict_trial(
    trial: TrialModels,
    source: Source | Shown,
    device: "torch.device",
    looks: Sequence[str],
    progress: Callable[[int], None],
    load: Load,
) -> tuple[np.ndarray, float]:
    """Joint probabilities (transforms, n, classes), the mean over the models, and the seconds that they took."""
    answers, seconds = [], 0.0
    for file in trial.models:
        model, card = load(file, device)
        start = perf_counter()
        answers.append([_predict_transform(model, card, trial, source, device, look, progress) for look in looks])
        seconds += perf_counter() - start
    return np.mean(answers, axis=0), seconds


def _predict_transform(
    model: "Classifier",
    card: Card,
    trial: TrialModels,
    source: Source | Shown,
    device: "torch.device",
    look: str,
    progress: Callable[[int], None],
) -> np.ndarray:
    from trainables.data.batches import plain_batches
    from trainables.loop import choose_precision, predict

    settings = card.config.train
    # The batches of the training loop's validation, so that on one machine the numbers are the same bitwise.
    most = trial.largest_pass or max(64, settings.batch_size)
    images, rows = source.seen(card.view)
    batches = plain_batches(images, rows, most, threads=2, edges=card.config.model.sees_edges)
    number = pass_number(look)
    seen = batches if number else map(TRANSFORMS[look], batches)
    with dropping(model, number):
        heads = predict(model, _counted(seen, progress), device, choose_precision(settings.precision, device))
    return card.task.answer(heads, card.kind)


def _counted(batches: Iterator["torch.Tensor"], progress: Callable[[int], None]) -> Iterator["torch.Tensor"]:
    for batch in batches:
        yield batch
        progress(len(batch))


def _trial_models(trial: Trial | TrialModels) -> TrialModels:
    return trial if isinstance(trial, TrialModels) else TrialModels.of(trial)
