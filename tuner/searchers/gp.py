"""Bayesian optimization: a Gaussian process over what every trial has, and the largest expected improvement.

It learns from trials that ran to their end. Source: Snoek et al., NeurIPS 2012; Ament et al., Unexpected Improvements to Expected
Improvement, NeurIPS 2023 (arXiv 2310.20708); as in Optuna's GPSampler.
"""

from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler

from tuner.searchers.sampling import Ask, Method, conditional, modelled


class UnconditionalGPSampler(GPSampler):
    """Models no parameter that a trial may lack, also where none has lacked it so far: else a resumed search would model another set."""

    def __init__(self, ask: Ask):
        super().__init__(seed=ask.own_seed, n_startup_trials=ask.startup, warn_independent_sampling=False)
        self._modelled = modelled(ask.space, conditional)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        common = super().infer_relative_search_space(study, trial)
        return {path: one for path, one in common.items() if path in self._modelled}


GP = Method(UnconditionalGPSampler, conditional)
