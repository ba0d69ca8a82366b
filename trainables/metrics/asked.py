"""Metrics that ask for more than a name, which stands in brackets behind it: f1[spoiled], the F1 of one class, and
neg_expected_cost[{"ants": {"bees": 5}}], from a table of what it costs to take one class for another.

They are of the classes of one target, which are known only once the images are read.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from trainables.data.names import some
from trainables.data.targets import Classes, Scheme
from trainables.metrics.confusion import shares
from trainables.metrics.labels import each, mean, mean_slope
from trainables.metrics.metric import Metric, Summed
from trainables.registry import ConfigError, Mistake, nearest

Costs = dict[str, dict[str, Annotated[float, Field(ge=0)]]]  # true class -> predicted class -> cost; else 1, and 0 where it is right
COSTS = TypeAdapter(Costs)


@dataclass(frozen=True)
class Asked:
    """A metric before it is known what it is asked of."""

    metric: Metric  # without a formula
    bind: Callable[[Metric, str, Classes, str], Metric]  # with what the brackets hold, for the classes of a target; and its setting


def parts_of(name: str) -> tuple[str, str]:
    """The name in front of the brackets, and what they hold; nothing where there are none."""
    front, bracket, rest = name.partition("[")
    return (front, rest.removesuffix("]")) if bracket else (name, "")


def with_costs(name: str, costs: Costs) -> str:
    """The name of the expected cost by a table."""
    return f"{name}[{json.dumps(costs, sort_keys=True, ensure_ascii=False)}]" if costs and name == EXPECTED_COST else name


def unbound(name: str) -> Metric:
    """All of a metric that does not depend on the classes. Raises: KeyError."""
    base, given = parts_of(name)
    metric = ASKED[base].metric
    return replace(metric, name=name, title=f"{metric.title} of {given}" if given and base == F1_OF_CLASS else metric.title)


def bound(name: str, scheme: Scheme, path: str = "run/metric") -> Metric:
    """The metric of a name with brackets. Raises: ConfigError for what the classes of the data do not allow."""
    base, given = parts_of(name)
    first, *others = scheme.targets
    if others or not isinstance(first, Classes):
        names = ", ".join(scheme.names)
        words = f"{base} is of the classes of one target, and there are {names}; choose one (--target), or another metric"
        raise ConfigError([Mistake(path, words)])
    return ASKED[base].bind(unbound(name), given, first, path)


def f1_of_class(metric: Metric, given: str, target: Classes, path: str) -> Metric:
    """F1 of one class against all others, scikit-learn's f1 with pos_label; 0 where neither truth nor answer has the class."""
    if given not in target.values:
        raise ConfigError([Mistake(path, f"f1[{given}]: {_no_class(given, target)}")])
    place = target.values.index(given)

    def statistics(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
        true, answered = truth == place, predicted == place
        return np.stack([true & answered, true.astype(int) + answered], axis=1).astype(np.float32)

    def score(sums: np.ndarray) -> np.ndarray:
        return shares(2 * sums[..., 0], sums[..., 1])

    def slope(sums: np.ndarray) -> np.ndarray:
        share = shares(np.ones_like(sums[..., 1]), sums[..., 1])
        return np.stack([2 * share, -score(sums) * share], axis=-1)

    return replace(metric, formula=Summed(statistics, score, slope))


def expected_cost(metric: Metric, given: str, target: Classes, path: str) -> Metric:
    """Minus the mean cost of an image, by a table of what it costs to take each class for each other one.

    Source: Elkan, The foundations of cost-sensitive learning, 2001. The answer stays the most probable class.
    """
    try:
        costs = COSTS.validate_json(given or "{}")
    except ValidationError:
        raise ConfigError(
            [Mistake(path, f"{metric.name} is not a table of costs; write {EXPECTED_COST}, and the table in run/costs")]
        ) from None
    table = cost_table(costs, target)

    def statistics(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
        return each(-table[truth, predicted])

    return replace(metric, formula=Summed(statistics, mean, mean_slope), bounds=(-float(table.max()), 0.0))


def cost_table(costs: Costs, target: Classes) -> np.ndarray:
    """Costs (true classes, predicted classes): else 1, and 0 where it is right.

    Raises: ConfigError naming every class that is not there.
    """
    unknown = dict.fromkeys(name for true, row in costs.items() for name in (true, *row) if name not in target.values)
    if unknown:
        raise ConfigError([Mistake("run/costs", _no_class(name, target)) for name in unknown])
    table = 1.0 - np.eye(len(target.values))
    for true, row in costs.items():
        for predicted, cost in row.items():
            table[target.values.index(true), target.values.index(predicted)] = cost
    return table


def _no_class(name: str, target: Classes) -> str:
    return f"{target.name} has no class {name!r}{nearest(name, list(target.values))}; there are {some(target.values, most=20)}"


F1_OF_CLASS, EXPECTED_COST = "f1", "neg_expected_cost"
ASKED: Mapping[str, Asked] = {
    F1_OF_CLASS: Asked(
        Metric(
            F1_OF_CLASS,
            "F1",
            explained="F1 of one class is the harmonic mean of the share of its images that get it and the share of those that get it "
            "and are of it.",
            unseen="it counts as 0",
        ),
        f1_of_class,
    ),
    EXPECTED_COST: Asked(
        Metric(
            EXPECTED_COST,
            "negative expected cost",
            bounds=(-np.inf, 0.0),
            chance=lambda classes: 1 / classes - 1,
            explained="The expected cost is the mean over images of what it costs to take their class for the one they got (run/costs); "
            "it is negative so that higher is better.",
        ),
        expected_cost,
    ),
}
