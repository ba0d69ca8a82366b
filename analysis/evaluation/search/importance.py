"""Which settings decided: for those that every trial has, and within each branch of the space."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.evaluation.search.reading import SearchedTrial
from analysis.evaluation.search.space import Dimension, When, when_words, words
from trainables.metrics import Metric

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 10  # trials; with fewer, who is among the best is mostly chance
WHOLE_SPACE = when_words(())
AS_OPTUNA = {"choice": words, "float": float, "int": int}
BEST = 5  # trials that stand for success; its authors advise no fewer


@dataclass(frozen=True)
class Branch:
    """The trials that fulfil some conditions, and what mattered among them."""

    when: str  # in words
    own: tuple[str, ...]  # paths of the settings that these trials alone have
    trials: int
    shares: tuple[tuple[str, float], ...] | None  # of the importance, by path, highest first, summing to 1; None: too few trials to tell


def importances(trials: Sequence[SearchedTrial], space: Sequence[Dimension], metric: Metric) -> list[Branch]:
    """The whole space first, then its branches in the space's order, each over all settings that all its trials have.

    Args:
        trials: that have a score. One that was stopped counts with what it had reached: that it is not among the best is known.
    Source: Watanabe, Bansal and Hutter, PED-ANOVA, IJCAI 2023 (arXiv 2304.10255), by Optuna; what matters to be among the best tenth, or
        among the best five where a tenth would be fewer.
    """
    branches: dict[When, list[str]] = {(): []}
    for dimension in space:
        branches.setdefault(dimension.when, []).append(dimension.path)
    found = []
    for when, own in branches.items():
        inside = [trial for trial in trials if all(path in trial.values for path in own)]
        common = [dimension for dimension in space if all(dimension.path in trial.values for trial in inside)]
        varied = [dimension for dimension in common if len({words(trial.values[dimension.path]) for trial in inside}) > 1]
        if own:
            found.append(
                Branch(when_words(when), tuple(own), len(inside), _shares(inside, varied, metric) if len(inside) >= FEWEST else None)
            )
    return found


def leading(branch: Branch, most: int = 6) -> list[tuple[str, float]]:
    """The highest shares, the branch's own settings where it is not the whole space, and what is left for the others together."""
    own, shares = branch.own if branch.when != WHOLE_SPACE else (), branch.shares or ()
    kept = [share for place, share in enumerate(shares) if place < most or share[0] in own]
    others = len(shares) - len(kept)
    return kept + ([(f"{others} others", 1 - sum(share for _, share in kept))] if others else [])


def _shares(trials: Sequence[SearchedTrial], dimensions: Sequence[Dimension], metric: Metric) -> tuple[tuple[str, float], ...]:
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import create_trial

    if not dimensions:
        return ()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=metric.direction)
    distributions = {
        dimension.path: _distribution(dimension, [trial.values[dimension.path] for trial in trials]) for dimension in dimensions
    }
    for trial in trials:
        params = {one.path: AS_OPTUNA[one.kind](trial.values[one.path]) for one in dimensions}
        study.add_trial(create_trial(value=trial.score, params=params, distributions=distributions))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, BEST / len(trials))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where all scores are equal it says so; the shares do too
        shares = get_param_importances(study, evaluator=evaluator, params=list(distributions))
    return tuple(sorted(shares.items(), key=lambda share: -share[1]))


def _distribution(dimension: Dimension, values: Sequence) -> "BaseDistribution":
    """The domain, widened by values of an earlier version of the space."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.kind == "choice":
        return CategoricalDistribution(tuple(dict.fromkeys(map(words, (*dimension.values, *values)))))
    low, high = min(dimension.values[0], *values), max(dimension.values[1], *values)
    return (IntDistribution if dimension.kind == "int" else FloatDistribution)(low, high, log=dimension.log)
