"""CMA-ES over the numbers that every trial has: a normal distribution that moves and stretches towards the better trials.

Source: Hansen, The CMA Evolution Strategy: A Tutorial, 2016 (arXiv 1604.00772), in the library of Nomura and Shibata (arXiv 2402.01373),
which Optuna's CmaEsSampler uses too. That one keeps its state in attributes of trials, which our records do not have; here the state of
each proposal is made from the trials before it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces.schema import Choice, Float, Numeric
from tuner.searchers.sampling import Ask, Method, conditional_or_choice, modelled

SIGMA = 1 / 6  # of the first generation, as a share of each range: nearly all of it lies within the ranges


class ReplayedCmaSampler(BaseSampler):
    """Each generation is as many ended trials as CMA-ES needs, in the order of their numbers.

    Only their ranks count: finished trials by their score, then stopped ones by their last epoch, then what did not fit the GPU.
    """

    def __init__(self, ask: Ask):
        self._seed = ask.own_seed
        self._random = RandomSampler(seed=ask.own_seed)
        self._modelled = modelled(ask.space, conditional_or_choice)
        self._domains: dict[str, Numeric] = {
            parameter.path: parameter.domain
            for parameter in ask.space.parameters
            if parameter.path in self._modelled and not isinstance(parameter.domain, Choice)
        }

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._modelled

    def sample_relative(self, study: Any, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        if not search_space:
            return {}
        # Imported here: it brings scipy.stats, which takes a second.
        from cmaes import CMA

        size = len(search_space)
        bounds = np.tile([0.0, 1.0], (size, 1))
        strategy = CMA(np.full(size, 0.5), SIGMA, bounds=bounds, n_max_resampling=10 * size, seed=self._seed)
        sign = 1 if study.direction is StudyDirection.MINIMIZE else -1
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        known = [one for one in ended if self._domains.keys() <= one.params.keys()]
        for first in range(0, len(known) - strategy.population_size + 1, strategy.population_size):
            generation = known[first : first + strategy.population_size]
            ranks = _ranks([_standing(one, sign) for one in generation])
            strategy.tell([(self._point(one.params), rank) for one, rank in zip(generation, ranks, strict=True)])
        point = strategy.ask()
        return {path: from_unit(domain, share) for (path, domain), share in zip(self._domains.items(), point, strict=True)}

    def sample_independent(self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _point(self, params: dict[str, Any]) -> np.ndarray:
        return np.array([to_unit(domain, params[path]) for path, domain in self._domains.items()])


def _standing(trial: FrozenTrial, sign: int) -> tuple[float, ...]:
    """What sorts the better trial first."""
    if trial.state is TrialState.COMPLETE and trial.value is not None:
        return 0, sign * trial.value
    if trial.constraints or not trial.intermediate_values:
        return 2, 0
    epoch, score = max(trial.intermediate_values.items())
    return 1, -epoch, sign * score


def _ranks(standings: Sequence[tuple[float, ...]]) -> list[float]:
    """The place of each, equal ones the same."""
    order = sorted(set(standings))
    return [float(order.index(one)) for one in standings]


def to_unit(domain: Numeric, value: float) -> float:
    """A number as its place between 0 and 1; steps are the middles of equal parts, on the scale of the domain."""
    low, high = _edges(domain)
    return (_scaled(domain, value) - low) / (high - low)


def from_unit(domain: Numeric, share: float) -> float:
    """The inverse of `to_unit`, at the nearest step."""
    low, high = _edges(domain)
    value = low + share * (high - low)
    value = math.exp(value) if domain.log else value
    if step := _step(domain):
        value = domain.low + round((value - domain.low) / step) * step
    value = min(max(value, domain.low), domain.high)
    return float(value) if isinstance(domain, Float) else round(value)


def _step(domain: Numeric) -> float:
    return domain.step or (0 if isinstance(domain, Float) else 1)


def _edges(domain: Numeric) -> tuple[float, float]:
    half = _step(domain) / 2
    return _scaled(domain, domain.low - half), _scaled(domain, domain.high + half)


def _scaled(domain: Numeric, value: float) -> float:
    return math.log(value) if domain.log else value


CMAES = Method(ReplayedCmaSampler, conditional_or_choice)
