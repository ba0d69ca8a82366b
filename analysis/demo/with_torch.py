"""An ensemble whose models are loaded, as what answers on the page."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from analysis.demo.answers import Facts, Scored
from analysis.evaluation.answering import Answering
from analysis.evaluation.heatmaps import shares_of, whom_to_ask
from analysis.evaluation.novelty import Watch
from analysis.evaluation.worth import read_worth
from analysis.members.heatmaps import Maps, Place, Question, heat_maps
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

    def heat_maps(self, questions: Sequence[Question], images: Mapping[View, np.ndarray], places: Mapping[str, Place], side: int) -> Maps:
        """As of `Answers`."""
        models = {trial.name: trial.models for trial in self.answering.trials}
        asked = whom_to_ask(questions, shares_of(self.answering.content.pipeline), lambda trial, image: models[trial])
        found = heat_maps(asked, Shown(images, list(places)), places, side, self.device, load=self._load)
        self._watch.forget()
        return found

    def facts(self) -> Facts:
        """As of `Answers`."""
        answering = self.answering
        return Facts(
            worth=read_worth(answering.folder, self.scheme),
            trials=len(answering.trials),
            models=sum(len(trial.models) for trial in answering.trials),
            transforms=list(answering.content.pipeline.looks),
            heat_maps=True,
            device=device_name(self.device),
            versions={"sweepvote": code_version(), **versions()},
        )
