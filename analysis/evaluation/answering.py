"""A fitted ensemble and its models on a device: what answers for new images."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from analysis.evaluation.fitted_ensemble import EnsembleFile, ensemble_hash, folder_of, read_ensemble, read_trial_models
from analysis.evaluation.novelty import Novelty, read_novelty
from analysis.members.predictions import Load, Shown, Source, TrialModels, count_passes, load_once, predict_trials
from trainables.devices import device_here
from trainables.progress import progress_bar, waiting
from trainables.record import RunError
from trainables.storage import Folder

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Answering:
    """An ensemble that can answer."""

    folder: Folder
    content: EnsembleFile
    trials: list[TrialModels]
    novelty: Novelty | None  # None: it is not known what they learned from

    def answer(self, source: Source | Shown, device: "torch.device", load: Load = load_once, words: str = "predicting") -> np.ndarray:
        """Scores (images, classes) under a progress bar. Raises: RunError when a batch does not fit the GPU.

        Args:
            words: beside the bar; empty: there is none.
        """
        import torch

        pipeline = self.content.pipeline
        try:
            with progress_bar(words, count_passes(self.trials, source, pipeline.looks) if words else 0) as progress:
                return pipeline(predict_trials(self.trials, source, device, progress, pipeline.looks, load))
        except torch.OutOfMemoryError:
            raise RunError("the GPU has no room for a batch; give a smaller one, such as --batch 8, or --device cpu") from None


def open_ensemble(folder: Folder, batch: int | None = None) -> Answering:
    """The ensemble that lies in a folder, or whose file is named, after its extensions were executed in this process.

    Args:
        batch: images that go through a model at a time; as many as in its validation where none is given.
    Raises: RunError, ExtensionError.
    """
    folder = folder_of(folder)
    content = read_ensemble(folder)
    trials = [replace(one, largest_pass=batch or 0) for one in read_trial_models(folder, content)]
    return Answering(folder, content, trials, read_novelty(folder, ensemble_hash(folder)))


def no_such_device(name: str) -> str:
    """What is wrong with --device, in words; empty where nothing is."""
    if name in ("cuda", "mps") and choose_device().type != name:
        return f"--device {name}: there is no such GPU that torch can use; take cpu or auto"
    return ""


def device_of(name: str) -> "torch.device":
    """What --device says; auto: the GPU where there is one."""
    if name == "auto":
        return choose_device()
    import torch

    return torch.device(name)


def choose_device() -> "torch.device":
    """The GPU where there is one. torch takes seconds to import: what can be wrong is checked before."""
    with waiting("importing torch"):
        return device_here()
