"""Multivariate TPE, which models each branch of a conditional space by itself.

Source: Watanabe, Tree-Structured Parzen Estimator, 2023 (arXiv 2304.11127); Bergstra et al., NeurIPS 2011.
"""

from optuna.samplers import TPESampler

from tuner.searchers.sampling import Ask, Method


def tpe(ask: Ask) -> TPESampler:
    return TPESampler(seed=ask.own_seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=ask.startup)


TPE = Method(tpe)
