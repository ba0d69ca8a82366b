"""The highest score that labels of which some are wrong allow: that of an answer which is always right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.evaluation.label_issues import Evaluation
from analysis.members.trials import Runs, Sample
from trainables.data.names import some
from trainables.data.targets import Scheme, compose
from trainables.metrics import Metric
from trainables.seeding import generator

DRAWS = 50  # of which labels are wrong, for each of three shares


@dataclass(frozen=True)
class TargetNoise:
    """How many labels of a target are wrong."""

    target: str
    by_group: bool  # whether a wrong label is one of all images of a group
    wrong: float  # share of labels
    between: tuple[float, float]  # 95 %

    @classmethod
    def of(cls, found: Evaluation) -> "TargetNoise":
        """What the search for label issues estimated."""
        return cls(found.target, found.by_group, found.noise.wrong, found.noise.between)


@dataclass(frozen=True)
class Ceiling:
    """The highest score that can be measured."""

    score: float
    interval: tuple[float, float]  # 95 %, from the share of wrong labels
    noise: tuple[TargetNoise, ...]


def ceiling_in(runs: Runs, noise: Sequence[TargetNoise]) -> Ceiling | str:
    """That of the targets that a run's best trial predicts; why there is none where no label can be wrong, or that is not known."""
    scheme = runs.widest.task.scheme
    if scheme.kind == "number":
        return f"{', '.join(scheme.names)} is a number, and no number is right or wrong"
    known, names = {one.target: one for one in noise}, scheme.class_names() if scheme.kind == "tags" else list(scheme.names)
    if missing := [name for name in names if name not in known]:
        return f"how many labels of {some(missing)} are wrong was not estimated"
    rng = generator(runs.cards[0].seed, "ceiling")
    return ceiling_of([known[name] for name in names], runs.valid, scheme, runs.metric, rng)


def ceiling_of(noise: Sequence[TargetNoise], sample: Sample, scheme: Scheme, metric: Metric, rng: np.random.Generator) -> Ceiling:
    """The mean score, over draws of which labels are wrong, of an answer that knows what is true and how often labels are wrong.

    The given labels stand for the true ones: a share of them becomes any other value, each as probable, as `Noise` has it.

    Args:
        noise: of each Classes of the scheme, or each tag.
        scheme: the targets that the metric scores, all of them classes or tags.
    """

    def score(shares: Sequence[float]) -> float:
        return float(np.mean([_draw(shares, noise, sample, scheme, metric, rng) for _ in range(DRAWS)]))

    likely = score([one.wrong for one in noise])
    ends = sorted(score([one.between[end] for one in noise]) for end in (0, 1))
    return Ceiling(likely, (min(likely, ends[0]), max(likely, ends[1])), tuple(noise))


def _draw(
    shares: Sequence[float], noise: Sequence[TargetNoise], sample: Sample, scheme: Scheme, metric: Metric, rng: np.random.Generator
) -> float:
    """The score of one draw."""
    truth = sample.truth(scheme)
    columns, sizes = (truth.astype(int), [2] * truth.shape[1]) if scheme.kind == "tags" else (scheme.split(truth), scheme.sizes)
    given, answers = [], []
    for place, (share, one, size) in enumerate(zip(shares, noise, sizes, strict=True)):
        true = columns[:, place]
        unit = np.unique(sample.groups * size + true, return_inverse=True)[1] if one.by_group else np.arange(len(true))
        moved = (rng.random(unit.max() + 1) < share) * rng.integers(1, max(size, 2), size=unit.max() + 1)
        given.append((true + moved[unit]) % size)
        answer = np.full((len(true), size), share / max(size - 1, 1))
        answer[np.arange(len(true)), true] = 1 - share if size > 1 else 1.0
        answers.append(answer)
    if scheme.kind == "tags":
        return metric.score(np.stack(given, axis=1).astype(bool), np.stack([answer[:, 1] for answer in answers], axis=1))
    answer = compose(scheme, [(scheme.part((name,)), one) for name, one in zip(scheme.names, answers, strict=True)])
    return metric.score(np.ravel_multi_index(tuple(given), scheme.sizes), answer)
