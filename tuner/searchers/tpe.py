"""Multivariate TPE, which models each branch of a conditional space by itself.

Source: Watanabe, Tree-Structured Parzen Estimator, 2023 (arXiv 2304.11127); Bergstra et al., NeurIPS 2011.
"""

from typing import Any

from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from tuner.searchers.sampling import Ask, Method


class TakenBranchSampler(TPESampler):
    """Takes of a running trial what it trains with, as of one that has ended.

    Optuna's adds what it drew for branches that the trial did not take. No record holds that, so a search that is resumed while trials
    run would propose other configurations than the uninterrupted one.
    """

    def _get_params(self, trial: FrozenTrial, study: Study) -> dict[str, Any]:
        return trial.params


def tpe(ask: Ask) -> TPESampler:
    return TakenBranchSampler(seed=ask.own_seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=ask.startup)


TPE = Method(tpe)
