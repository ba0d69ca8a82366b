"""A fitted answer as one network, for programs that run without this one: each of its kinds said once more in torch.

Probabilities are in float64 behind the softmax, as in numpy, so that what decides at thresholds decides alike.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analysis.evaluation.calibration import Calibration
from analysis.evaluation.fitted_ensemble import Pipeline
from analysis.evaluation.steps import Offsets, Rule, Shares, TopTwo
from analysis.members.compose import Member, Part
from analysis.members.tta import LOOKS
from analysis.votes.stacking import FLOOR, Logistic
from analysis.votes.voting import Mean, Ranks, Votes
from trainables.data.labels import Scheme, Task
from trainables.models.assemble import Classifier, to_input


class TrialNetwork(nn.Module):
    """Photos (n, height, width, channels) uint8 of a view to joint probabilities (n, classes) of a trial."""

    def __init__(self, models: Sequence[Classifier], task: Task, looks: Sequence[str] = ("plain",), precision: torch.dtype = torch.float64):
        """
        Args:
            models: those whose mean counts.
            precision: of what comes behind the softmax.
        """
        super().__init__()
        self.models = nn.ModuleList(models)
        self.task = task
        self.looks = tuple(looks)
        self.precision = precision

    def forward(self, photos: Tensor) -> Tensor:
        seen = [to_input(LOOKS[look](photos), photos.device) for look in self.looks]
        return torch.stack([self._answer(model(images).logits) for model in self.models for images in seen]).mean(dim=0)

    def _answer(self, logits: Sequence[Tensor]) -> Tensor:
        heads = [head.float().softmax(dim=1).to(self.precision) for head in logits]
        return compose(self.task.scheme, list(zip(self.task.head_schemes, heads, strict=True)))


class PipelineNetwork(nn.Module):
    """Photos, one batch (n, height, width, channels) uint8 for each input, to the scores (n, classes) of a pipeline.

    Behind the scores come the joint probabilities (n, classes) of each of its trials, in the pipeline's order.
    """

    def __init__(self, pipeline: Pipeline, trials: Mapping[str, TrialNetwork], inputs: Mapping[str, int]):
        """
        Args:
            inputs: which of the inputs each trial takes.
        """
        super().__init__()
        self.pipeline = pipeline
        # Names of trials have dots and slashes, which those of modules must not.
        self.trials = nn.ModuleList(trials[name] for name in pipeline.trials)
        self.inputs = [inputs[name] for name in pipeline.trials]

    def forward(self, *photos: Tensor) -> tuple[Tensor, ...]:
        answers = [trial(photos[number]) for trial, number in zip(self.trials, self.inputs, strict=True)]
        return answer(self.pipeline, dict(zip(self.pipeline.trials, answers, strict=True))), *answers


def answer(pipeline: Pipeline, predicted: Mapping[str, Tensor]) -> Tensor:
    """What the pipeline makes of joint probabilities (n, classes), by trial."""
    tempered = {
        name: calibrate(pipeline.calibrations[name], joint) if name in pipeline.calibrations else joint for name, joint in predicted.items()
    }
    vote = pipeline.ensemble
    scores = VOTES[type(vote)](vote, torch.stack([member_answer(member, tempered) for member in pipeline.members]))
    for step in pipeline.steps:
        scores = STEPS[type(step)](step, scores)
    return scores


def member_answer(member: Member, predicted: Mapping[str, Tensor]) -> Tensor:
    """`Member.answer`."""
    joint = compose(member.scheme, [(member.scheme.part(part.names), part_answer(part, predicted)) for part in member.parts])
    for advisor in member.advisors:
        joint = advised(member.scheme, joint, advisor.names, part_answer(advisor, predicted))
    return joint


def part_answer(part: Part, predicted: Mapping[str, Tensor]) -> Tensor:
    """`Part.answer`."""
    return marginal(part.scheme, part.names, predicted[part.trial])


def advised(scheme: Scheme, joint: Tensor, names: tuple[str, ...], advice: Tensor) -> Tensor:
    """`analysis.members.compose.advised`."""
    own = marginal(scheme, names, joint)
    surer = advice.amax(dim=1, keepdim=True) > own.amax(dim=1, keepdim=True)
    part = scheme.part(names)
    index = torch.from_numpy(part.joint(scheme.split(np.arange(scheme.classes))[:, scheme.columns(part.names)]))
    given = torch.where(own[:, index] > 0, joint / own[:, index], 0.0)
    changed = advice[:, index] * given
    total = changed.sum(dim=1, keepdim=True)
    return torch.where(surer & (total > 0), changed / total, joint)


def calibrate(calibration: Calibration, joint: Tensor) -> Tensor:
    """`Calibration.__call__`."""
    scheme = calibration.scheme
    heads = []
    for names, temperature in zip(calibration.heads, calibration.temperatures, strict=True):
        probabilities = marginal(scheme, names, joint)
        powers = (probabilities / probabilities.amax(dim=1, keepdim=True)) ** (1 / temperature)
        heads.append((scheme.part(names), powers / powers.sum(dim=1, keepdim=True)))
    return compose(scheme, heads)


def compose(scheme: Scheme, parts: Sequence[tuple[Scheme, Tensor]]) -> Tensor:
    """`trainables.data.labels.compose`."""
    joint = None
    for part, probabilities in parts:
        shape = [size if name in part.names else 1 for name, size in zip(scheme.names, scheme.sizes, strict=True)]
        factor = probabilities.reshape(-1, *shape)
        joint = factor if joint is None else joint * factor
    return joint.reshape(-1, scheme.classes)


def marginal(scheme: Scheme, names: tuple[str, ...], joint: Tensor) -> Tensor:
    """`Scheme.marginal`."""
    others = [1 + index for index, name in enumerate(scheme.names) if name not in names]
    # torch takes no dimensions for all of them.
    return joint.reshape(-1, *scheme.sizes).sum(dim=others).reshape(-1, scheme.part(names).classes) if others else joint


def mean(vote: Mean, probabilities: Tensor) -> Tensor:
    """`Mean.__call__`."""
    return (constant(vote.weights)[:, None, None] * probabilities).sum(dim=0)


def votes(vote: Votes, probabilities: Tensor) -> Tensor:
    """`Votes.__call__`."""
    members, _, classes = probabilities.shape
    counted = F.one_hot(probabilities.argmax(dim=2), classes).sum(dim=0)
    return (counted + probabilities.mean(dim=0)) / (members + 1)


def ranks(vote: Ranks, probabilities: Tensor) -> Tensor:
    """`Ranks.__call__`."""
    one, others = probabilities[..., :, None], probabilities[..., None, :]
    # The rank of a class, from 1 on, is the mean of the places that it and those level with it share.
    places = ((others < one).sum(dim=-1) - (others > one).sum(dim=-1) + probabilities.shape[2] + 1).to(torch.float64) / 2
    points = places.sum(dim=0)
    return points / points.sum(dim=1, keepdim=True)


def logistic(vote: Logistic, probabilities: Tensor) -> Tensor:
    """`Logistic.__call__`."""
    scores = features(probabilities) @ constant(vote.coefficients).T + constant(vote.intercept)
    return spread(scores.softmax(dim=1), vote.classes, probabilities.shape[2])


def features(probabilities: Tensor) -> Tensor:
    """`analysis.votes.stacking.features`."""
    members, _, classes = probabilities.shape
    return probabilities.clamp(min=FLOOR).log().transpose(0, 1).reshape(-1, members * classes)


def spread(shares: Tensor, known: Sequence[int], classes: int) -> Tensor:
    """`analysis.votes.stacking.spread`."""
    return shares @ F.one_hot(torch.tensor(known), classes).double()


def offsets(step: Offsets, scores: Tensor) -> Tensor:
    """`Offsets.__call__`."""
    changed = scores * constant(step.values).exp()
    return changed / changed.sum(dim=1, keepdim=True)


def top_two(step: TopTwo, scores: Tensor) -> Tensor:
    """`TopTwo.__call__`."""
    classes = step.scheme.classes
    likeliest = scores.argmax(dim=1)
    first = F.one_hot(likeliest, classes).bool()
    # Scores are from 0 on, so that of the likeliest is out of the way.
    second = scores.masked_fill(first, -1.0).argmax(dim=1)
    high, low = scores.gather(1, likeliest[:, None]), scores.gather(1, second[:, None])
    gap = (high.log() - low.log())[:, 0]
    taken = torch.zeros_like(likeliest, dtype=torch.bool)
    for rule in step.rules:
        if rule.gap > 0:
            taken = taken | (pairs(step.scheme, rule)[likeliest, second] & (gap <= rule.gap))
    swapped = torch.where(first, low, torch.where(F.one_hot(second, classes).bool(), high, scores))
    return torch.where(taken[:, None], swapped, scores)


def pairs(scheme: Scheme, rule: Rule) -> Tensor:
    """Whether (classes, classes) a rule speaks of a likeliest class and a second."""
    values = torch.from_numpy(scheme.split(np.arange(scheme.classes)))
    column = scheme.names.index(rule.attribute)
    alone = (values[:, None] != values[None]).sum(dim=2) == 1
    return alone & (values[:, None, column] == rule.likeliest) & (values[None, :, column] == rule.second)


def shares(step: Shares, scores: Tensor) -> Tensor:
    """`Shares.__call__`."""
    if not step.factors:
        return scores
    changed = scores * torch.from_numpy(step.class_factors())
    total = changed.sum(dim=1, keepdim=True)
    return torch.where(total > 0, changed / total, scores)


# Each kind of vote and of step with how it is said here.
VOTES: dict[type, Callable[[Any, Tensor], Tensor]] = {Mean: mean, Votes: votes, Ranks: ranks, Logistic: logistic}
STEPS: dict[type, Callable[[Any, Tensor], Tensor]] = {Offsets: offsets, TopTwo: top_two, Shares: shares}


def constant(values: Sequence) -> Tensor:
    """Fitted numbers, or rows of them."""
    return torch.tensor(values, dtype=torch.float64)
