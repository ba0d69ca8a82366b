"""A fitted ensemble as one network, for programs that run without this one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from analysis.evaluation.fitted_ensemble import Pipeline
from analysis.members.tta import TRANSFORMS
from trainables.data.targets import Task, compose
from trainables.loop import activated
from trainables.models.assemble import Classifier, to_input
from trainables.models.heads import vectors


class TrialNetwork(nn.Module):
    """Images (n, height, width, channels) uint8 of a view to joint probabilities (n, classes) of a trial."""

    def __init__(self, models: Sequence[Classifier], task: Task, looks: Sequence[str] = ("plain",), precision: torch.dtype = torch.float64):
        """
        Args:
            models: those whose mean counts.
            precision: of what comes behind the softmax.
        """
        super().__init__()
        self.models: Any = nn.ModuleList(models)  # of Classifier, which a list of modules does not say
        self.task = task
        self.kinds = models[0].heads.kinds
        self.looks = tuple(looks)
        self.precision = precision

    def forward(self, images: Tensor) -> Tensor:
        return self.with_features(images)[0]

    def with_features(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The answer, and what each model's heads get of the first transform, as one vector an image (n, features)."""
        seen = [to_input(TRANSFORMS[look](images), images.device) for look in self.looks]
        features = [[model.features(pixels) for pixels in seen] for model in self.models]
        pairs = [(model, one) for model, own in zip(self.models, features, strict=True) for one in own]
        answers = [self._answer(model.heads(one).logits) for model, one in pairs]
        return torch.stack(answers).mean(dim=0), [vectors(own[0]) for own in features]

    def _answer(self, logits: Sequence[Tensor]) -> Tensor:
        """Of the heads of the task's kind of target; a model may have others."""
        kind = self.task.scheme.kind
        found = [activated(head, kind).to(self.precision) for head, own in zip(logits, self.kinds, strict=True) if own == kind]
        return compose(self.task.scheme, list(zip(self.task.head_schemes, found, strict=True)))


class PipelineNetwork(nn.Module):
    """Images, one batch (n, height, width, channels) uint8 for each input, to the scores (n, classes) of a pipeline.

    Behind the scores come the joint probabilities (n, classes) of each of its trials, in the pipeline's order, and then features.
    """

    def __init__(
        self, pipeline: Pipeline, trials: Mapping[str, TrialNetwork], inputs: Mapping[str, int], watched: Mapping[str, int] | None = None
    ):
        """
        Args:
            inputs: which of the inputs each trial takes.
            watched: by trial, which of its models gives its features (n, features).
        """
        super().__init__()
        self.pipeline = pipeline
        # Names of trials have dots and slashes, which those of modules must not.
        self.trials: Any = nn.ModuleList(trials[name] for name in pipeline.trials)
        self.inputs = [inputs[name] for name in pipeline.trials]
        self.watched = dict(watched or {})

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        found = [trial.with_features(images[number]) for trial, number in zip(self.trials, self.inputs, strict=True)]
        answers = {name: answer for name, (answer, _) in zip(self.pipeline.trials, found, strict=True)}
        features = dict(zip(self.pipeline.trials, (own for _, own in found), strict=True))
        return self.pipeline(answers), *answers.values(), *(features[name][number] for name, number in self.watched.items())
