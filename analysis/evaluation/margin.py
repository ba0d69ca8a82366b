"""The top-2 margin rule with a gap that is given: nothing of it is fitted, so no groups have to be left out to evaluate it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.evaluation.steps import Rule, exchanged, neighbours, two_most_probable, which_rule
from analysis.votes.arrays import Array, constant
from trainables.data.targets import Scheme


@dataclass(frozen=True)
class Margin:
    """Of two most probable classes that lie close together, the one with more images is taken.

    With `values` only where the most probable class has one of these, and the second differs from it in that target alone, by a neighbour
    where it is cut from a number.
    """

    gap: float  # in nats: how far the logarithms of their probabilities, which is their logits, lie apart at most
    scheme: Scheme
    images: tuple[int, ...]  # of each class, among those learned from
    values: tuple[tuple[str, str], ...] = ()  # targets and values; empty: every pair of classes
    each: bool = False  # applied to what each member answers, before the vote; else to what the vote answers
    disagree: bool = False  # only for images on which the first two members, which are the best, differ in the most probable class

    def before(self, answers: Sequence[Array]) -> Sequence[Array]:
        """What members answer, (images, classes) each, as the vote is to get it."""
        return [self._rule(answer, answers) for answer in answers] if self.each else answers

    def after(self, answer: Array, answers: Sequence[Array]) -> Array:
        """The vote's answer (images, classes), of what the members say, (images, classes) each."""
        return answer if self.each else self._rule(answer, answers)

    def _rule(self, answer: Array, answers: Sequence[Array]) -> Array:
        """The answer with the scores of the two most probable classes exchanged where the rule says so. Between classes that are equally
        likely, whose scores are one, it decides nothing."""
        most = top, second, _, _, gap = two_most_probable(answer)
        images = constant(self.images, answer)
        taken = (gap <= self.gap) & (images[second] > images[top])
        if self.values:
            taken = taken & (constant(self._pairs(), answer)[top, second] > 0)
        if self.disagree:
            first, other, *_ = (*answers, answers[0])
            taken = taken & (first.argmax(axis=1) != other.argmax(axis=1))
        return exchanged(answer, most, taken)

    def _pairs(self) -> np.ndarray:
        """Between which most probable class and second the rule decides (classes, classes)."""
        rules = []
        for name, value in self.values:
            target = self.scheme.targets[self.scheme.names.index(name)]
            one = target.values.index(value)
            rules += [Rule(name, one, other, self.gap) for other in neighbours(target, one)]
        return which_rule(self.scheme, rules) >= 0
