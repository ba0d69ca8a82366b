"""What a sampler gets to make one proposal."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler

from search_spaces.schema import Choice, Domain, Int, Parameter, Space, as_optuna
from trainables.metrics import DEFAULT, METRICS, Metric
from trainables.seeding import seed_for


@dataclass(frozen=True)
class Ask:
    """A proposal that is to be made."""

    space: Space
    number: int  # of the trial
    seed: int  # of the run
    startup: int  # ended trials before a model is trusted

    @property
    def own_seed(self) -> int:
        """Of this proposal's random numbers."""
        return seed_for(self.seed, "proposal", self.number) % 2**32

    @property
    def shared_seed(self) -> int:
        """Of what all proposals of the run have in common."""
        return seed_for(self.seed, "proposals") % 2**32


# Makes the sampler of one proposal: all that it knows are the study's trials and this.
MakeSampler = Callable[[Ask], BaseSampler]


@dataclass(frozen=True)
class Method:
    """A way to propose configurations."""

    make: MakeSampler
    leaves: Callable[[Parameter], str] = lambda parameter: ""  # why it draws a parameter at random, in words; empty: it does not

    def words(self, name: str, space: Space) -> str:
        """What it cannot model of a space, in one line; empty where it models all."""
        left = [f"{parameter.path} ({why})" for parameter in space.parameters if (why := self.leaves(parameter))]
        return f"run/searcher {name} draws at random what it cannot model: {', '.join(left)}" if left else ""


def conditional(parameter: Parameter) -> str:
    """Why it is left out by a method that models only what every trial has."""
    return "not every trial has it" if parameter.when else ""


def conditional_or_choice(parameter: Parameter) -> str:
    """Why it is left out by a method that models only numbers that every trial has."""
    return conditional(parameter) or ("not a number" if isinstance(parameter.domain, Choice) else "")


def modelled(space: Space, leaves: Callable[[Parameter], str]) -> dict[str, BaseDistribution]:
    """What a method models of a space, by path, without parameters of a single value."""
    found = {parameter.path: distribution(parameter.domain) for parameter in space.parameters if not leaves(parameter)}
    return {path: one for path, one in found.items() if not one.single()}


def distribution(domain: Domain) -> BaseDistribution:
    """The domain as Optuna calls it."""
    if isinstance(domain, Choice):
        return CategoricalDistribution([as_optuna(value) for value in domain.values])
    if isinstance(domain, Int):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step or 1)
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def quiet_study(
    sampler: BaseSampler,
    metric: Metric = METRICS[DEFAULT],
    name: str | None = None,
    storage: optuna.storages.BaseStorage | None = None,
) -> optuna.Study:
    """A study that takes scores of a metric, without the log lines and warnings that we know."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Options that we use on purpose; the records, not Optuna's storage, must survive its next version.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # A trial whose process died repeats its last epochs.
    warnings.filterwarnings("ignore", message="The reported value is ignored")
    return optuna.create_study(study_name=name, storage=storage, direction=metric.direction, sampler=sampler)
