"""The learning curve of a run, of linear heads on frozen features: each fit takes seconds, and the features are computed once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from analysis.evaluation.learning import SHARES, Curve, Fitted, curve_of
from analysis.evaluation.needs import class_scores
from analysis.members.trials import Sample
from trainables.build import build_parts
from trainables.config import TrialConfig
from trainables.data.targets import read_task
from trainables.data.training import Data
from trainables.metrics import metric_of
from trainables.probe import answers_of, fit_heads, probe_features
from trainables.record import Predictions
from trainables.seeding import generator
from trainables.validation import evidence_of

FEWEST = 8  # training groups of a share; with fewer, a score is chance


@dataclass(frozen=True)
class Learned:
    """What the shares of the training groups gave."""

    curve: Curve
    rises: Mapping[str, float]  # by class or tag: of its score, from half of the groups to all of them


def count_fits(draws: int) -> int:
    """How many times heads are fitted."""
    return 1 + draws * (len(SHARES) - 1)


def learn(config: TrialConfig, data: Data, device: torch.device, draws: int, progress: Callable[[int], None]) -> Learned | str:
    """The learning curve of a probe; why there is none where the groups are too few.

    Args:
        draws: of the training groups, for each share but all of them; the smaller shares of a draw are parts of the larger ones.
        progress: called with 1 after each fit.
    Raises: ConfigError where the network cannot be built or its weights cannot be had, DivergedError where its features are not finite.
    """
    parts = build_parts(config, data, device)
    images = parts.batches.images
    groups = np.unique(images.groups)
    shares = [share for share in SHARES if share * len(groups) >= FEWEST]
    if len(shares) < 2:
        return f"{len(groups)} training groups are too few to learn from a share of them"
    features = probe_features(parts)
    task = read_task(config.task, data.images.scheme)
    metric = metric_of(config.metric, task.scheme)
    scheme = task.scheme.of_kind(metric.target)
    valid = Sample.of(data.images).take(data.split.valid)
    fitted: list[Fitted] = []
    by_class: dict[float, list[dict[str, float]]] = {}
    for draw in range(draws):
        order = generator(config.seed, "learning curve", draw).permutation(groups)
        for share in shares if not draw else shares[:-1]:
            chosen = order[: round(share * len(groups))]
            some = np.flatnonzero(np.isin(images.groups, chosen))
            fit_heads(parts, features, some)
            heads = [answer.numpy() for answer in answers_of(parts, features[1])]
            found = evidence_of([(config, Predictions(valid.ids, heads, 1))], data.images, data.split)
            fitted.append(Fitted(share, len(chosen), len(some), found))
            if scheme.kind != "number":
                by_class.setdefault(share, []).append(class_scores(task.answer(heads, metric.target), valid, scheme))
            progress(1)
    curve = curve_of(fitted, metric, generator(config.seed, "learning curve"))
    return Learned(curve, _rises(by_class.get(0.5, []), by_class.get(1.0, [])))


def _rises(half: Sequence[Mapping[str, float]], whole: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By how much the mean score of each class rises."""
    names = whole[0] if whole else {}
    return {name: float(np.mean([one[name] for one in whole]) - np.mean([one[name] for one in half])) for name in names}
