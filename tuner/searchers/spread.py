"""Points spread over a whole space, conditions included, to begin a search with.

Numbers come from a scrambled Sobol sequence with a dimension for each parameter; of a choice the value that the fewest trials have had so
far is taken, so that a few points hold every value, also beside trials that somebody else chose.

Source: Owen, Scrambling Sobol' and Niederreiter-Xing points, J. Complexity 14 (1998).
"""

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from search_spaces.schema import Choice
from tuner.searchers.sampling import Ask
from tuner.searchers.unit import from_unit


class SpreadSampler(BaseSampler):
    """Trial n gets point n + 1 of the sequence."""

    def __init__(self, ask: Ask):
        self._ask = ask
        self._places = {parameter.path: place for place, parameter in enumerate(ask.space.parameters)}

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Any, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        place = self._places[param_name]
        domain = self._ask.space.parameters[place].domain
        if not isinstance(domain, Choice):
            return from_unit(domain, float(self._point()[place]))
        assert isinstance(param_distribution, CategoricalDistribution)
        others = [one for one in study.get_trials(deepcopy=False) if one.number != trial.number]
        had = [sum(one.params.get(param_name) == value for one in others) for value in param_distribution.choices]
        rarest = np.flatnonzero(np.array(had) == min(had))
        return param_distribution.choices[np.random.default_rng([self._ask.own_seed, place]).choice(rarest)]

    def _point(self) -> np.ndarray:
        """The trial's point, a number between 0 and 1 for each parameter."""
        # Imported here: it takes a second. It cannot forward by 0, so point 0 stays unused.
        from scipy.stats.qmc import Sobol

        return Sobol(len(self._places), scramble=True, rng=self._ask.shared_seed).fast_forward(self._ask.number + 1).random(1)[0]
