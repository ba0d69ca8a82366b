"""A scrambled Sobol sequence over what every trial has: like random search it ignores scores, but has no gaps and clusters.

Source: Owen, Scrambling Sobol' and Niederreiter-Xing points, J. Complexity 14 (1998); as in Optuna's QMCSampler.
"""

from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import QMCSampler, RandomSampler

from tuner.searchers.sampling import Ask, Method, conditional, modelled


class NumberedQMCSampler(QMCSampler):
    """Trial n gets point n of the sequence. Optuna counts in the study, where a resumed search would begin at the first point again."""

    def __init__(self, ask: Ask):
        independent = RandomSampler(seed=ask.own_seed)
        super().__init__(scramble=True, seed=ask.shared_seed, independent_sampler=independent, warn_independent_sampling=False)
        self._number = ask.number
        self._modelled = modelled(ask.space, conditional)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return self._modelled

    def _find_sample_id(self, study: Any, search_space: Any) -> int:
        return self._number


QMC = Method(NumberedQMCSampler, conditional)
