"""Metrics that ask for more than a name: F1 of one class and the expected cost, and metrics beside the one that decides."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from trainables.data.targets import Classes, Number, Scheme, Tags
from trainables.metrics import BY_NAME, METRICS_OF, metric_of, others_of
from trainables.metrics.asked import ASKED, with_costs
from trainables.metrics.evidence import evidence
from trainables.registry import ConfigError
from tuner.settings import metrics_of

VALUES = ("ants", "bees", "wasps")
SCHEME = Scheme((Classes("insect", VALUES),))
COSTS = {"ants": {"bees": 5.0}, "wasps": {"ants": 0.5, "bees": 0.0}}
NAMES = ["f1[bees]", with_costs("neg_expected_cost", COSTS), "neg_expected_cost"]


def some_answers(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 60))
    return rng.integers(3, size=count), rng.dirichlet(np.ones(3), size=count), rng.integers(8, size=count)


@pytest.mark.parametrize("seed", range(5))
def test_the_f1_of_a_class_is_that_of_scikit_learn(seed):
    truth, answer, _ = some_answers(seed)
    slow = f1_score(truth, answer.argmax(axis=1), labels=[1], average=None, zero_division=0)[0]
    assert metric_of("f1[bees]", SCHEME).score(truth, answer) == pytest.approx(slow)


@pytest.mark.parametrize("seed", range(5))
def test_the_expected_cost_is_the_mean_of_what_each_answer_costs(seed):
    truth, answer, _ = some_answers(seed)
    costs = [
        0 if true == said else COSTS.get(VALUES[true], {}).get(VALUES[said], 1)
        for true, said in zip(truth, answer.argmax(axis=1), strict=True)
    ]
    assert metric_of(NAMES[1], SCHEME).score(truth, answer) == pytest.approx(-np.mean(costs))
    assert metric_of(NAMES[2], SCHEME).score(truth, answer) == pytest.approx(np.mean(truth == answer.argmax(axis=1)) - 1)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_an_interval_and_the_slope_that_its_formula_says(name):
    truth, answer, groups = some_answers(3)
    metric = metric_of(name, SCHEME)
    low, high = evidence(metric, truth, answer, groups).interval(np.random.default_rng(0))
    assert low <= metric.score(truth, answer) <= high and metric.bounds[0] <= low and high <= metric.bounds[1]
    sums = metric.summed.statistics(truth, metric.prediction(answer), 3).astype(float).sum(axis=0)
    for place, step in enumerate(1e-6 * np.eye(len(sums))):
        rise = (metric.summed.score(sums + step) - metric.summed.score(sums - step)) / 2e-6
        assert metric.summed.slope(sums)[place] == pytest.approx(rise, abs=1e-6)


@pytest.mark.parametrize("name", [*NAMES, *ASKED])
def test_what_does_not_depend_on_the_classes_is_known_without_them(name):
    assert (BY_NAME[name].name, BY_NAME[name].sign, name in BY_NAME) == (name, 1, True)


@pytest.mark.parametrize(
    ("name", "scheme", "words"),
    [
        ("f1[bee]", SCHEME, ["'bee'", "bees"]),
        ("f1", SCHEME, ["f1", "ants"]),
        ("f1[bees]", Scheme((*SCHEME.targets, Classes("sex", ("f", "m")))), ["insect", "sex", "--target"]),
        ("f1[bees]", Scheme((Number("age"),)), ["age"]),
        ("neg_expected_cost[ants]", SCHEME, ["run/metric", "neg_expected_cost[ants]", "run/costs"]),
        ('neg_expected_cost[{"ants": {"bees": -1}}]', SCHEME, ["run/metric", "run/costs"]),
        (with_costs("neg_expected_cost", {"ant": {"bees": 2.0, "fly": 1.0}}), SCHEME, ["run/costs", "'ant'", "'fly'"]),
    ],
)
def test_what_the_classes_do_not_allow_is_refused(name, scheme, words):
    with pytest.raises(ConfigError) as error:
        metric_of(name, scheme)
    assert all(word in str(error.value) for word in words)


def test_metrics_beside_the_one_that_decides_are_of_its_kind_and_shown_once():
    metric, scheme = METRICS_OF["classes"]["f1_macro"], Scheme((*SCHEME.targets, Tags("seen", ("egg", "nest"))))
    assert [one.name for one in others_of(["accuracy", "f1[ants]"], metric, SCHEME)] == ["accuracy", "f1[ants]"]
    with pytest.raises(ConfigError) as error:
        others_of(["f1_macro", "accuracy", "accuracy", "hamming_loss", "no_such"], metric, scheme)
    assert [mistake.path for mistake in error.value.mistakes] == ["run/also/0", "run/also/2", "run/also/3", "run/also/4"]
    with pytest.raises(ConfigError) as error:
        others_of(["accuracy", "f1[bee]"], metric, SCHEME)
    assert [mistake.path for mistake in error.value.mistakes] == ["run/also/1"]


def test_costs_that_no_metric_reads_are_refused():
    for name, also in (("f1_macro", ["accuracy"]), ("f1[bees]", [])):
        with pytest.raises(ConfigError) as error:
            metrics_of(name, COSTS, also, SCHEME)
        assert [mistake.path for mistake in error.value.mistakes] == ["run/costs"]
    metric, (other,) = metrics_of("f1_macro", COSTS, ["neg_expected_cost"], SCHEME)
    assert (metric.name, other.name) == ("f1_macro", NAMES[1])
