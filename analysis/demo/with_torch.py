"""An ensemble whose models are loaded, as what answers on the page."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from analysis.demo.answers import Facts, Scored
from analysis.evaluation.answering import Answering
from analysis.evaluation.novelty import Watch
from analysis.evaluation.worth import read_worth
from analysis.members.predictions import Shown, load_once, wanted_views
from trainables.data.views import View
from trainables.versions import code_version, device_name, versions

if TYPE_CHECKING:
    import torch


class WithTorch:
    """An ensemble on a device, for one thread at a time."""

    def __init__(self, answering: Answering, device: "torch.device"):
        """Raises: RunError, DataError where it cannot predict."""
        self.answering, self.device = answering, device
        self.scheme, self.novelty = answering.content.pipeline.scheme, answering.novelty
        self.views = wanted_views(answering.trials)
        self._watch = Watch(answering.novelty, answering.trials, load_once)
        self._load = cache(self._watch.load)

    def predict(self, images: Mapping[View, np.ndarray], names: Sequence[str]) -> Scored:
        """As of `Answers`."""
        scores = self.answering.answer(Shown(images, names), self.device, self._load, words="")
        return Scored(np.asarray(scores), self._watch.distances(len(names)))

    def facts(self) -> Facts:
        """As of `Answers`."""
        answering = self.answering
        return Facts(
            worth=read_worth(answering.folder, self.scheme),
            trials=len(answering.trials),
            models=sum(len(trial.models) for trial in answering.trials),
            transforms=list(answering.content.pipeline.looks),
            device=device_name(self.device),
            versions={"sweepvote": code_version(), **versions()},
        )
