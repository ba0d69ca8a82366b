"""A fitted ensemble and its models on a device: what answers for new images."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from analysis.evaluation.fitted_ensemble import EnsembleFile, ensemble_hash, folder_of, read_ensemble, read_trial_models
from analysis.evaluation.novelty import Novelty, read_novelty
from analysis.members.mc_dropout import has_passes, spread
from analysis.members.predictions import Load, Shown, Source, TrialModels, averaged, count_passes, load_once, predict_transforms
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
        return self.answer_with_spread(source, device, load, words)[0]

    def answer_with_spread(
        self, source: Source | Shown, device: "torch.device", load: Load = load_once, words: str = "predicting"
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """As of `answer`, and how far passes of Monte Carlo dropout are from one another (images,), where it takes such; see `spread`."""
        import torch

        pipeline = self.content.pipeline
        looks, trials = pipeline.looks, pipeline.trials
        try:
            with progress_bar(words, count_passes(self.trials, source, looks) if words else 0) as progress:
                seen = predict_transforms(self.trials, source, device, looks, progress, load=load)
        except torch.OutOfMemoryError:
            raise RunError("the GPU has no room for a batch; give a smaller one, such as --batch 8, or --device cpu") from None
        answer = pipeline(averaged(seen, looks, trials))
        if not has_passes(looks):
            return answer, None
        return answer, spread(np.stack([pipeline(seen[look]) for look in looks]), pipeline.scheme.kind)


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
