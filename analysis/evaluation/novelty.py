"""Whether an image is unlike anything that the models learned from: how far its features lie from theirs.

The distance is that to the k-th nearest training image, between features before the heads, each scaled to length 1. It asks for no
classes, which tags and numbers lack, and assumes no distribution; a sample of the training images is enough. Source: Sun et al.,
Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022 (arXiv 2204.06507).

How many images like those learned from would be further away is known of validation images, which no model has learned from: the share of
these, as a p-value, so that at most a share `false_alarms` of such images is flagged on average. Source: Bates et al., Testing for Outliers
with Conformal p-values, Annals of Statistics 2023 (arXiv 2104.08279).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open

from analysis.evaluation.fitted_ensemble import ensemble_hash
from analysis.members.predictions import Load, TrialModels
from analysis.members.trials import Runs, Sample, Trial
from trainables.record import DAMAGE, RunError
from trainables.seeding import generator
from trainables.storage import Folder, local_file, write_atomically

if TYPE_CHECKING:
    import torch

FILE = "novelty.safetensors"
FORMAT = 1
KEPT = 1000  # training images, and validation images, at most
NEIGHBOURS = 10
FALSE_ALARMS = 0.01
UNLIKE = "unlike anything learned"


@dataclass(frozen=True, eq=False)
class Learned:
    """What one model of a trial has learned from, as its features show it."""

    model: int  # which of the trial's files of weights
    features: np.ndarray  # (r, features) float32, each of length 1
    usual: float  # the median distance of validation images

    def distances(self, features: np.ndarray) -> np.ndarray:
        """How far features (n, features) lie from these (n,), in units of what is usual of validation images."""
        return nearest(features, self.features) / self.usual


@dataclass(frozen=True, eq=False)
class Novelty:
    """What it takes to say whether an image is unlike all that an ensemble learned from."""

    learned: Mapping[str, Learned]  # by trial
    valid: np.ndarray  # (v,) distances of validation images, ascending: the mean over the trials

    def p_values(self, distances: np.ndarray) -> np.ndarray:
        """The share (n,) of images like those learned from that are as far away (n,), by the validation images."""
        further = len(self.valid) - np.searchsorted(self.valid, distances, side="left")
        return (1 + further) / (1 + len(self.valid))

    def flags(self, distances: np.ndarray, false_alarms: float) -> np.ndarray:
        """Which images (n,) are unlike anything learned, where that many of the others may be called so too."""
        return self.p_values(distances) <= false_alarms

    @property
    def least(self) -> float:
        """The least share of false alarms that so many validation images can tell."""
        return 1 / (1 + len(self.valid))


def nearest(features: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """The distance (n,) of features (n, f) to the k-th nearest of those learned from (r, f), which are of length 1."""
    found = unit(features) @ learned.T
    place = min(NEIGHBOURS, len(learned))
    likeness = np.partition(found, -place, axis=1)[:, -place]
    return np.sqrt(np.maximum(2 - 2 * likeness, 0))


def unit(features: np.ndarray) -> np.ndarray:
    """The features (n, f) as float32, each scaled to length 1."""
    features = np.asarray(features, dtype=np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def reference(runs: Runs, seed: int) -> tuple[Sample, Sample]:
    """Training images, an image of each group in turn, and validation images, drawn by chance, of the first fold that validates; at most
    KEPT each."""
    import pandas as pd

    part = runs.valid.parts.min()
    valid, rng = runs.valid.take(np.flatnonzero(runs.valid.parts == part)), generator(seed, "novelty")
    train = runs.learned.take(rng.permutation(np.flatnonzero(~np.isin(runs.learned.ids, valid.ids))))
    turn = pd.Series(train.groups).groupby(train.groups).cumcount().to_numpy()
    return train.take(np.argsort(turn, kind="stable")[:KEPT]), valid.take(rng.permutation(len(valid.ids))[:KEPT])


def model_for(trial: Trial, valid: Sample) -> int:
    """Which of a trial's models has not learned from validation images; the first where all have, as after a refit on all data."""
    unseen = trial.evaluated.get(valid.parts[0])
    return trial.models.index(unseen) if unseen in trial.models else 0


def learn(features: Mapping[str, tuple[int, np.ndarray, np.ndarray]]) -> Novelty:
    """What an ensemble learned from.

    Args:
        features: by trial: which of its models gives them, those of training images (r, f) and of validation images (v, f), which are the
            same for all trials.
    """
    learned, distances = {}, []
    for trial, (model, train, valid) in features.items():
        # As the file holds them, so that the distances of validation images are those of new ones.
        kept = unit(train).astype(np.float16).astype(np.float32)
        far = nearest(valid, kept)
        learned[trial] = Learned(model, kept, max(float(np.median(far)), 1e-6))
        distances.append(learned[trial].distances(valid))
    return Novelty(learned, np.sort(np.mean(distances, axis=0)))


def write_novelty(folder: Folder, found: Novelty) -> Folder:
    """Write the file beside that of its ensemble, completely or not at all; returns it."""
    from safetensors.numpy import save

    trials = {name: {"model": one.model, "usual": one.usual} for name, one in found.learned.items()}
    about = {"format": FORMAT, "ensemble": ensemble_hash(folder), "trials": trials}
    arrays = {f"learned/{name}": one.features.astype(np.float16) for name, one in found.learned.items()}
    write_atomically(folder / FILE, save(arrays | {"valid": found.valid}, metadata={"novelty": json.dumps(about)}))
    return folder / FILE


def read_novelty(folder: Folder, ensemble: str) -> Novelty | None:
    """What lies in the folder of an ensemble, or None where nothing does, or what is of another ensemble or a later version.

    Args:
        ensemble: hash of its file.
    Raises: RunError where it is damaged.
    """
    file = folder / FILE
    try:
        with local_file(file) as local, safe_open(local, framework="np") as reader:
            about: dict[str, Any] = json.loads((reader.metadata() or {})["novelty"])
            if about["format"] > FORMAT or about["ensemble"] != ensemble:
                return None
            learned = {
                name: Learned(int(one["model"]), reader.get_tensor(f"learned/{name}").astype(np.float32), float(one["usual"]))
                for name, one in about["trials"].items()
            }
            return Novelty(learned, reader.get_tensor("valid"))
    except FileNotFoundError:
        return None
    except DAMAGE as error:
        raise RunError(
            f"{file} is damaged ({type(error).__name__}: {error}). Restore it from a backup; without it, nothing is flagged: delete it"
        ) from None


class Watch:
    """Loads models and looks at the features that pass through them, so that novelty costs no second pass.

    What `load` gives may be kept by the caller and used again.
    """

    def __init__(self, novelty: Novelty | None, trials: Sequence[Trial | TrialModels], load: Load):
        self._load = load
        files = {one.name: one.models for one in trials}
        own = novelty.learned.items() if novelty else ()
        self._watched = {files[name][one.model]: one for name, one in own}
        self._seen: dict[Folder, list[np.ndarray]] = {}

    def load(self, file: Folder, device: "torch.device") -> Any:
        """As of `Load`."""
        model, card = self._load(file, device)
        if learned := self._watched.get(file):
            model.heads.register_forward_pre_hook(self._looker(file, learned))
        return model, card

    def distances(self, images: int) -> np.ndarray | None:
        """How far away the images (n,) that were predicted last are, the mean over trials; None where nothing is known. Forgets them."""
        if not self._seen:
            return None
        # Under test-time augmentation the images as they are come first.
        found = np.mean([np.concatenate(parts)[:images] for parts in self._seen.values()], axis=0)
        self._seen.clear()
        return found

    def forget(self) -> None:
        """Forget what has passed through the models since: a pass that is not a prediction."""
        self._seen.clear()

    def _looker(self, file: Folder, learned: Learned) -> Callable[[Any, Any], None]:
        from trainables.models.heads import vectors

        def look(heads: Any, given: Any) -> None:
            self._seen.setdefault(file, []).append(learned.distances(vectors(given[0].detach()).float().cpu().numpy()))

        return look
