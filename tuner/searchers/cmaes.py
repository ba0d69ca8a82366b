"""CMA-ES over the numbers that every trial has: a normal distribution that moves and stretches towards the better trials.

Source: Hansen, The CMA Evolution Strategy: A Tutorial, 2016 (arXiv 1604.00772), in the library of Nomura and Shibata (arXiv 2402.01373),
which Optuna's CmaEsSampler uses too. That one keeps its state in attributes of trials, which our records do not have; here the state of
each proposal is made from the trials before it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces.schema import Choice, Numeric
from tuner.searchers.sampling import Ask, Method, conditional_or_choice, modelled
from tuner.searchers.unit import from_unit, to_unit

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


CMAES = Method(ReplayedCmaSampler, conditional_or_choice)
