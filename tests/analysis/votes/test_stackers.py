"""Stackers of scikit-learn, kept as plain numbers: they answer as scikit-learn's own do."""

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from analysis.evaluation.decide import Options, decide, votes_to_try
from analysis.evaluation.nested import Known, MemberOptions
from analysis.votes import ENSEMBLES
from analysis.votes.folds import others, part_groups
from analysis.votes.stackers import COST, DEPTH, LEAF, NEIGHBOURS, SEED, TREES, stack_forest, stack_knn, stack_svm
from analysis.votes.stacking import features, image_weights
from benchmarks.ensembles import simulate
from tests.analysis.evaluation.test_decide import make_known, never
from tests.conftest import nightly_after
from tests.messages import missing
from trainables.metrics import METRICS, METRICS_OF
from trainables.registry import ConfigError

METRIC = METRICS["accuracy"]  # by which all images count alike, as to scikit-learn
CLASSES = 5
STACKERS = {"stack_forest": stack_forest, "stack_svm": stack_svm, "stack_knn": stack_knn}


def drawn(seed, images=140):
    return simulate(3, images, CLASSES, seed=seed)


@pytest.mark.parametrize("seed", nightly_after(1, range(5)))
def test_a_forest_answers_as_scikit_learns(seed):
    (probabilities, target, groups), other = drawn(seed), drawn(seed + 100)[0]
    model = RandomForestClassifier(TREES, max_depth=DEPTH, min_samples_leaf=LEAF, random_state=SEED)
    model.fit(features(probabilities), target, sample_weight=image_weights(target, METRIC))
    found = stack_forest(probabilities, target, groups, METRIC)
    assert found.classes == tuple(model.classes_)
    np.testing.assert_allclose(found(other)[:, model.classes_], model.predict_proba(features(other)), atol=1e-12)


@pytest.mark.parametrize("seed", nightly_after(1, range(5)))
def test_support_vector_machines_answer_as_scikit_learns_with_a_sigmoid_of_other_groups(seed):
    (probabilities, target, groups), other = drawn(seed), drawn(seed + 100)[0]
    folds = [(others(unseen, len(target)), unseen) for unseen in part_groups(groups, target)]
    machine = OneVsRestClassifier(SVC(C=COST, gamma="scale"))
    model = CalibratedClassifierCV(machine, method="sigmoid", cv=folds, ensemble=False).fit(features(probabilities), target)
    found = stack_svm(probabilities, target, groups, METRIC)
    np.testing.assert_allclose(found(other)[:, model.classes_], model.predict_proba(features(other)), atol=2e-3)


@pytest.mark.parametrize("seed", nightly_after(1, range(5)))
def test_neighbours_answer_as_scikit_learns_and_are_as_many_as_tell_most_of_other_groups(seed):
    (probabilities, target, groups), other = drawn(seed), drawn(seed + 100)[0]
    found = stack_knn(probabilities, target, groups, METRIC)
    assert found.count in NEIGHBOURS
    model = KNeighborsClassifier(found.count).fit(np.concatenate(probabilities, axis=1), target)
    expected = model.predict_proba(np.concatenate(other, axis=1))
    np.testing.assert_allclose(found(other)[:, model.classes_], expected, atol=1e-12)


def test_all_neighbours_that_are_as_far_away_are_heard():
    probabilities, target, groups = drawn(0)
    twice = np.concatenate([probabilities, probabilities], axis=1)
    found = stack_knn(twice, np.concatenate([target, (target + 1) % CLASSES]), np.concatenate([groups, groups]), METRIC)
    answer = found(probabilities)
    np.testing.assert_allclose(answer.sum(axis=1), 1)
    np.testing.assert_array_less(0, answer[np.arange(len(target)), (target + 1) % CLASSES])


@pytest.mark.parametrize("name", STACKERS)
@pytest.mark.parametrize("harm", ["one group", "one class", "a class of one group", "few images"])
def test_every_stacker_learns_of_what_there_is(name, harm):
    probabilities, target, groups = drawn(0)
    if harm == "one group":
        groups = np.zeros(len(target))
    elif harm == "one class":
        target = np.full(len(target), 3)
    elif harm == "a class of one group":
        target = np.where(groups == groups[0], 2, np.where(target == 2, 0, target))
    else:
        probabilities, target, groups = probabilities[:, :6], np.array([0, 1, 0, 1, 0, 1]), np.arange(6)
    vote = STACKERS[name](probabilities, target, groups, METRICS["f1_macro"])
    answer = vote(probabilities)
    assert np.isfinite(answer).all() and (answer >= 0).all()
    np.testing.assert_allclose(answer.sum(axis=1), 1)
    assert (answer[:, [number for number in range(CLASSES) if number not in target]] == 0).all()
    if harm == "one class":
        np.testing.assert_array_equal(answer[:, 3], 1)
    np.testing.assert_allclose(vote(torch.from_numpy(probabilities)).numpy(), answer, rtol=1e-9, atol=1e-12)


def test_none_is_tried_unless_it_is_asked_for_by_name():
    tried, few = votes_to_try("auto", METRIC, groups=10_000)
    assert not STACKERS.keys() & {*tried, *few} and STACKERS.keys() < ENSEMBLES.keys()
    assert votes_to_try("stack_svm", METRIC, groups=10_000) == (("stack_svm",), ())


@pytest.mark.parametrize("name", nightly_after(1, ["stack_knn", "stack_svm", "stack_forest"]))
def test_what_is_asked_for_answers_as_validation_evaluated_it(name):
    candidates, known = make_known(0, [0.7, 0.6])
    decision = decide(Options(MemberOptions(top=2), vote=name, steps=()), candidates, known, never)
    assert decision.final == name and set(decision.choice.evaluated) == {"best single", name}


@pytest.mark.parametrize("name", STACKERS)
@pytest.mark.parametrize("kind", ["tags", "number"])
def test_tags_and_numbers_are_refused(name, kind):
    candidates, known = make_known(0, [0.7, 0.6])
    metric = next(iter(METRICS_OF[kind].values()))
    known = Known(metric, known.scheme, known.labels, known.groups, known.predicted)
    with pytest.raises(ConfigError) as refusal:
        decide(Options(MemberOptions(top=2), vote=name, steps=()), candidates, known, never)
    assert not missing(str(refusal.value), "--vote", name, kind)
