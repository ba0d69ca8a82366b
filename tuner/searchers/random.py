"""Every proposal at random, whatever was found before: the baseline of all other searchers.

Source: Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, JMLR 13 (2012).
"""

from collections.abc import Iterator
from typing import Any

from optuna.samplers import RandomSampler

from search_spaces.schema import Space, as_optuna
from trainables.baseline import baseline_of
from tuner.searchers.sampling import Method, quiet_study

RANDOM = Method(lambda ask: RandomSampler(seed=ask.own_seed))


def random_draws(space: Space, fixed: dict[str, Any], *, seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Nested values of configurations drawn at random, those of the space's `start` first, or its defaults where there is none."""
    study = quiet_study(RandomSampler(seed=seed))
    for start in space.start_trials() or [{path: as_optuna(value) for path, value in baseline_of(space).items()}]:
        study.enqueue_trial(start)
    for _ in range(count):
        yield space(study.ask()) | fixed
