from itertools import combinations

import numpy as np
import pytest
from pydantic import TypeAdapter
from sklearn.metrics import f1_score

from analysis.members.compose import Member, Part, advised, partitions, possible_members
from tests.conftest import nightly_after
from trainables.data.layouts.contest import contest_scheme
from trainables.metrics import METRICS

METRIC = METRICS["f1_macro"]
SCHEME = contest_scheme((30, 60))
MASK, GENDER, AGE = SCHEME.names
IMAGES = 60


def case(tasks, seed=0):
    """Trials 0, 1, ... of these tasks that predict at random, and true attribute ids."""
    rng = np.random.default_rng(seed)
    trials = {str(number): SCHEME.part(tuple(task)) for number, task in enumerate(tasks)}
    predicted = {name: rng.dirichlet(np.ones(own.classes), size=IMAGES) for name, own in trials.items()}
    return trials, predicted, SCHEME.split(rng.integers(SCHEME.classes, size=IMAGES))


def sensible(trials, predicted, labels):
    """The members of trials, for images of these class ids."""
    return possible_members(trials, predicted, lambda part: SCHEME.joint_of(part.names, labels), SCHEME, METRIC)


def found(tasks, seed=0):
    return sensible(*case(tasks, seed))


def plain(members):
    """Members without advisors, as (trial, attributes) of each part."""
    return [[(part.trial, part.names) for part in member.parts] for member in members if not member.advisors]


def marginal(probabilities, own, names):
    """Probabilities of some attributes, class by class."""
    part = SCHEME.part(tuple(names))
    out = np.zeros((len(probabilities), part.classes))
    for joint in range(own.classes):
        ids = dict(zip(own.names, own.split(np.array([joint]))[0], strict=True))
        out[:, part.joint(np.array([[ids[name] for name in part.names]]))[0]] += probabilities[:, joint]
    return out


def slow_ranking(trials, predicted, labels, names):
    """Trials that predict these attributes, best first on these alone; among equals the earlier."""
    part = SCHEME.part(tuple(names))
    truth = part.joint(labels[:, [SCHEME.names.index(name) for name in part.names]])
    scores = {
        trial: f1_score(truth, marginal(predicted[trial], own, names).argmax(axis=1), labels=range(part.classes), average="macro")
        for trial, own in trials.items()
        if set(names) <= set(own.names)
    }
    return sorted(scores, key=lambda trial: -scores[trial])


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_a_trial_that_covers_all_is_a_member_alone_and_answers_as_it_predicts(seed):
    trials, predicted, labels = case([SCHEME.names] * 4, seed)
    members = sensible(trials, predicted, labels)
    order = slow_ranking(trials, predicted, labels, SCHEME.names)
    assert plain(members)[:4] == [[(trial, SCHEME.names)] for trial in order]
    for member, trial in zip(members, order, strict=False):
        np.testing.assert_allclose(member.answer(predicted), predicted[trial])


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_the_rth_best_specialists_join(seed):
    trials, predicted, labels = case([[MASK], [AGE], [GENDER], [MASK], [AGE], [GENDER], [AGE]], seed)
    ranked = [slow_ranking(trials, predicted, labels, [name]) for name in SCHEME.names]
    expected = [[(trial, (name,)) for trial, name in zip(row, SCHEME.names, strict=True)] for row in zip(*ranked, strict=False)]
    assert plain(sensible(trials, predicted, labels)) == expected
    assert len(expected) == 2


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_the_rth_best_of_all_trials_answer_for_each_attribute(seed):
    trials, predicted, labels = case([SCHEME.names, SCHEME.names, [MASK, AGE], [GENDER, AGE], [AGE]], seed)
    ranked = [slow_ranking(trials, predicted, labels, [name]) for name in SCHEME.names]
    members = plain(sensible(trials, predicted, labels))
    for row in zip(*ranked, strict=False):
        asked = {trial: tuple(name for name, own in zip(SCHEME.names, row, strict=True) if own == trial) for trial in row}
        assert list(asked.items()) in members


def test_members_multiply_what_their_parts_say_of_the_attributes_asked_for():
    trials, predicted, _ = case([SCHEME.names, [GENDER, AGE]])
    member = Member(SCHEME, (Part("0", trials["0"], (MASK, AGE)), Part("1", trials["1"], (GENDER,))))
    first = marginal(predicted["0"], SCHEME, [MASK, AGE])
    second = marginal(predicted["1"], trials["1"], [GENDER])
    answer = member.answer(predicted)
    for joint in range(SCHEME.classes):
        mask, gender, age = SCHEME.split(np.array([joint]))[0]
        np.testing.assert_allclose(answer[:, joint], first[:, 3 * mask + age] * second[:, gender])


def test_every_way_to_part_the_attributes_gives_members():
    tasks = [SCHEME.names, [MASK], [GENDER], [AGE], [GENDER, AGE], [MASK, GENDER]]
    members = {frozenset(parts) for parts in plain(found(tasks))}
    ways = [
        {("0", SCHEME.names)},
        {("1", (MASK,)), ("2", (GENDER,)), ("3", (AGE,))},
        {("1", (MASK,)), ("4", (GENDER, AGE))},
        {("5", (MASK, GENDER)), ("3", (AGE,))},
    ]
    assert {frozenset(way) for way in ways} <= members


def test_trials_that_cover_a_part_have_members_of_that_part():
    (member,) = found([[AGE]])
    assert member.scheme == SCHEME.part((AGE,))
    (member,) = found([[AGE], [MASK]])
    assert member.scheme.names == (MASK, AGE)


def test_trials_that_only_overlap_answer_attribute_by_attribute():
    members = plain(found([[MASK, GENDER], [GENDER, AGE]]))
    assert members in ([[("0", (MASK, GENDER)), ("1", (AGE,))]], [[("0", (MASK,)), ("1", (GENDER, AGE))]])


def test_each_trial_that_covers_all_is_advised_by_the_best_specialist_for_each_part():
    trials, predicted, labels = case([[MASK, GENDER], SCHEME.names, [AGE], SCHEME.names, [AGE], [MASK, AGE], [AGE]])
    members = [member for member in sensible(trials, predicted, labels) if member.advisors]
    best = slow_ranking({name: trials[name] for name in "246"}, predicted, labels, [AGE])[0]
    specialists = [(best, (AGE,)), ("0", (MASK, GENDER)), ("5", (MASK, AGE))]
    whole = slow_ranking({name: trials[name] for name in "13"}, predicted, labels, SCHEME.names)
    assert [(member.parts[0].trial, *((part.trial, part.names) for part in member.advisors)) for member in members] == [
        (trial, specialist) for trial in whole for specialist in specialists
    ]


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_no_member_is_there_twice_and_each_answers_with_rows_that_sum_to_one(seed):
    rng = np.random.default_rng(seed)
    pool = [part for size in (1, 2, 3) for part in combinations(SCHEME.names, size)]
    trials, predicted, labels = case([SCHEME.names, *(pool[index] for index in rng.integers(len(pool), size=6))], seed)
    members = sensible(trials, predicted, labels)
    assert len(set(members)) == len(members)
    for member in members:
        answer = member.answer(predicted)
        assert answer.shape == (IMAGES, SCHEME.classes)
        assert (answer >= 0).all()
        np.testing.assert_allclose(answer.sum(axis=1), 1)
        assert set(member.trials) == {part.trial for part in (*member.parts, *member.advisors)}
        assert len(set(member.trials)) == len(member.trials)


def slow_advised(answer, names, advice):
    """One image's answer (classes,) with the advice (classes of the names) in place of its own marginal."""
    own = marginal(answer[None], SCHEME, names)[0]
    if advice.max() <= own.max():
        return answer
    changed = np.zeros_like(answer)
    for joint in range(SCHEME.classes):
        ids = dict(zip(SCHEME.names, SCHEME.split(np.array([joint]))[0], strict=True))
        part = SCHEME.part(tuple(names))
        place = part.joint(np.array([[ids[name] for name in part.names]]))[0]
        if own[place] > 0:
            changed[joint] = answer[joint] / own[place] * advice[place]
    return changed / changed.sum() if changed.sum() > 0 else answer


@pytest.mark.parametrize("names", [(MASK,), (AGE,), (MASK, AGE), (GENDER, AGE)])
@pytest.mark.parametrize("seed", range(5))
def test_advice_equals_a_slow_reference_image_by_image(seed, names):
    rng = np.random.default_rng(seed)
    part = SCHEME.part(names)
    answer, advice = rng.dirichlet(np.full(SCHEME.classes, 0.3), size=IMAGES), rng.dirichlet(np.ones(part.classes), size=IMAGES)
    answer[:5] = np.eye(SCHEME.classes)[rng.integers(SCHEME.classes, size=5)]
    advice[:5] = np.eye(part.classes)[rng.integers(part.classes, size=5)]
    changed = advised(SCHEME, answer, names, advice)
    np.testing.assert_allclose(changed, [slow_advised(row, names, said) for row, said in zip(answer, advice, strict=True)])
    assert 0 < (changed != answer).any(axis=1).sum() < IMAGES


@pytest.mark.parametrize("names", [(GENDER,), (MASK, AGE)])
def test_where_advice_is_used_its_marginal_is_the_advice_and_the_rest_given_it_stays(names):
    rng = np.random.default_rng(0)
    part = SCHEME.part(names)
    answer, advice = rng.dirichlet(np.ones(SCHEME.classes), size=IMAGES), rng.dirichlet(np.full(part.classes, 0.2), size=IMAGES)
    changed = advised(SCHEME, answer, names, advice)
    heard = advice.max(axis=1) > SCHEME.marginal(names, answer).max(axis=1)
    assert 0 < heard.sum() < IMAGES
    np.testing.assert_allclose(SCHEME.marginal(names, changed)[heard], advice[heard])
    np.testing.assert_array_equal(changed[~heard], answer[~heard])


def test_advice_towards_what_the_answer_holds_for_impossible_is_not_used_and_for_next_to_impossible_is():
    answer = np.zeros((2, SCHEME.classes))
    answer[:, :2] = 0.5
    answer[1, 17] = 1e-312
    changed = advised(SCHEME, answer, (AGE,), np.eye(3)[[2, 2]])
    np.testing.assert_array_equal(changed[0], answer[0])
    np.testing.assert_allclose(changed[1], np.eye(SCHEME.classes)[17])


def test_members_read_as_what_they_are_made_of():
    trials, _, _ = case([SCHEME.names, [GENDER, AGE], [AGE]])
    parts = (Part("0", trials["0"], (MASK,)), Part("1", trials["1"], (GENDER, AGE)))
    member = Member(SCHEME, parts, (Part("2", trials["2"], (AGE,)),))
    assert str(member) == "0 (mask) x 1 advised by 2"
    assert member.trials == ("0", "1", "2")


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_partitions_are_all_the_choices_that_hold_each_name_once(seed):
    names = tuple("abcd")
    pool = [part for size in range(1, 5) for part in combinations(names, size)]
    rng = np.random.default_rng(seed)
    parts = [pool[index] for index in rng.choice(len(pool), size=8, replace=False)]
    slow = {
        frozenset(chosen)
        for size in range(1, 5)
        for chosen in combinations(parts, size)
        if sorted(name for part in chosen for name in part) == list(names)
    }
    found = list(partitions(names, parts))
    assert {frozenset(way) for way in found} == slow
    assert len(found) == len(slow)


@pytest.mark.parametrize("tasks", [[[MASK], [GENDER], ["age<30"], ["age>=60"]], [[MASK], ["age<30", GENDER], ["age=30-59"]]])
def test_trials_that_answer_questions_make_members_of_all_classes_where_the_answers_determine_them(tasks):
    trials, predicted, labels = case([*tasks, [GENDER, AGE]])
    members = sensible(trials, predicted, labels)
    asking = [member for member in members if {"2", "3"} & set(member.trials) and not member.advisors]
    assert asking and {member.scheme for member in members} == {SCHEME}
    for member in members:
        answer = member.answer(predicted)
        np.testing.assert_allclose(answer.sum(axis=1), 1)
        assert answer.shape == (IMAGES, SCHEME.classes)
    for member in asking:
        asked = tuple(name for part in member.parts for name in part.names)
        assert SCHEME.determine(asked)
        assert not any(SCHEME.determine(asked[:place] + asked[place + 1 :]) for place in range(len(asked)))


def test_questions_that_determine_nothing_more_are_answered_as_they_are():
    (member,) = found([[MASK], ["age<30"]])
    assert member.scheme.names == (MASK, "age<30")
    assert TypeAdapter(Member).validate_python(TypeAdapter(Member).dump_python(member, mode="json", by_alias=True)) == member


def test_a_trial_is_advised_by_one_that_answers_a_question():
    trials, predicted, labels = case([SCHEME.names, ["age>=60"]])
    (_, member) = sensible(trials, predicted, labels)
    advice, own = predicted["1"], SCHEME.marginal(("age>=60",), predicted["0"])
    heard = advice.max(axis=1) > own.max(axis=1)
    said = SCHEME.marginal(("age>=60",), member.answer(predicted))
    assert 0 < heard.sum() < IMAGES
    np.testing.assert_allclose(said[heard], advice[heard])
