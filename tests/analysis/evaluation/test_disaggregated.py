import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from analysis.evaluation.disaggregated import by_target, by_value, class_intervals
from analysis.evaluation.scoring import class_table, score_answers
from analysis.members.trials import Sample
from tests.analysis.evaluation.test_scoring import SCHEME, case
from trainables.data.targets import Classes, Number, Scheme, Tags
from trainables.metrics import METRICS, METRICS_OF

METRIC = METRICS["f1_macro"]


@pytest.mark.parametrize("name", ["f1_macro", "roc_auc_ovr", "neg_log_loss"])
def test_the_scores_of_targets_are_those_that_answers_have_and_lie_in_their_intervals(name):
    sample, _, answer = case(0, groups=40)
    metric = METRICS[name]
    found = by_target(answer, sample, SCHEME, metric, seed=0)
    expected = score_answers({"one": answer}, sample, SCHEME, metric, 0)["one"].target_scores
    assert {one.target: one.score for one in found} == pytest.approx(expected)
    assert all(one.interval[0] <= one.score <= one.interval[1] and (one.photos, one.people) == (160, 40) for one in found)


def test_the_score_of_a_value_is_the_accuracy_of_the_images_that_have_it():
    sample, truth, answer = case(1, groups=40)
    every, *found = by_value(answer, sample, SCHEME, seed=0)
    assert every.score == accuracy_score(truth, answer.argmax(axis=1)) and (every.target, every.value) == ("", "")
    assert [(one.target, one.value) for one in found] == [(target.name, value) for target in SCHEME.targets for value in target.values]
    for one in found:
        column = SCHEME.names.index(one.target)
        rows = sample.labels[:, column] == SCHEME.targets[column].values.index(one.value)
        assert one.photos == rows.sum() and one.people == len(np.unique(sample.groups[rows]))
        assert one.score == pytest.approx(accuracy_score(truth[rows], answer[rows].argmax(axis=1)))


def test_images_are_told_apart_by_labels_that_are_not_predicted_too_and_not_by_the_only_target():
    rng, count = np.random.default_rng(0), 120
    scheme = Scheme((Classes("site", ("a", "b")), Number("years")))
    parts = np.full(count, "holdout")
    numbers = rng.normal(40, 10, count)
    sample = Sample(tuple(map(str, range(count))), np.arange(count), rng.integers(2, size=(count, 1)), scheme, parts, numbers=numbers)
    answer = (numbers + rng.normal(0, 3, count))[:, None]
    found = by_value(answer, sample, scheme.of_kind("number"), seed=0)
    assert [one.value for one in found] == ["", "a", "b"]
    rows = sample.labels[:, 0] == 1
    assert found[-1].score == pytest.approx(-np.abs(answer[rows, 0] - numbers[rows]).mean())
    alone = Sample(sample.ids, sample.groups, sample.labels, scheme.of_kind("classes"), parts)
    assert by_value(np.eye(2)[sample.labels[:, 0]], alone, alone.scheme, seed=0) == []


def test_an_interval_of_a_class_holds_its_f1_and_there_is_none_of_few_groups_or_where_all_are_alike():
    sample, truth, answer = case(2, groups=60, classes=4)
    table, limits = class_table(answer, sample, SCHEME), class_intervals(answer, sample, SCHEME, seed=0)
    assert len(table) == len(limits) == SCHEME.classes
    known = limits["F1 low"].notna()
    assert known.tolist() == [number < 4 for number in range(SCHEME.classes)]
    f1 = f1_score(truth, answer.argmax(axis=1), labels=range(4), average=None)
    assert ((limits["F1 low"][known] <= f1) & (f1 <= limits["F1 high"][known])).all()
    assert class_intervals(np.eye(SCHEME.classes)[truth], sample, SCHEME, seed=0).isna().all(axis=None)  # always right
    few = sample.take(np.flatnonzero(sample.groups < 9))
    assert class_intervals(answer[: len(few.ids)], few, SCHEME, seed=0).isna().all(axis=None)


def test_tags_have_intervals_of_f1_and_fifths_of_a_number_those_of_the_mean_absolute_error():
    rng, count = np.random.default_rng(0), 200
    scheme = Scheme((Tags("seen", ("dog", "cat", "none")), Number("years")))
    tags, numbers = rng.random((count, 3)) < (0.5, 0.3, 0.0), rng.normal(40, 10, count)
    labels, parts = np.zeros((count, 0), dtype=int), np.full(count, "holdout")
    sample = Sample(tuple(map(str, range(count))), np.arange(count) // 2, labels, scheme, parts, tags, numbers)
    shown = np.abs(tags - 0.7 * rng.random((count, 3))) * (1, 1, 0)
    limits, table = class_intervals(shown, sample, scheme.of_kind("tags"), 0), class_table(shown, sample, scheme.of_kind("tags"))
    assert (limits["F1 low"] <= table["F1"]).tolist() == (table["F1"] <= limits["F1 high"]).tolist() == [True, True, False]
    answer = (numbers + rng.normal(0, 3, count))[:, None]
    limits, table = (one(answer, sample, scheme.of_kind("number"), *more) for one, more in ((class_intervals, (0,)), (class_table, ())))
    assert len(limits) == 5 and (limits["mean absolute error low"] <= table["mean absolute error"]).all()
    assert (table["mean absolute error"] <= limits["mean absolute error high"]).all()
    metric = METRICS_OF["tags"]["average_precision"]
    (one,) = by_target(shown, sample, scheme.of_kind("tags"), metric, seed=0)
    assert one.score == metric.score(tags, shown)
