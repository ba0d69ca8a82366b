from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from analysis.members.selection import CHOICES, double_faults
from tests.conftest import nightly_after
from trainables.metrics import METRICS
from trainables.record import RunError

METRIC = METRICS["f1_macro"]
CLASSES = 6


def answers(predicted, seed=0):
    """Probabilities (members, images, classes) whose most probable classes are the given ones (members, images)."""
    noise = np.random.default_rng(seed).random((*predicted.shape, CLASSES))
    votes = np.eye(CLASSES)[predicted] + noise
    return votes / votes.sum(axis=2, keepdims=True)


def guesses(rng, target, skill):
    """Classes (images,) that are right in about `skill` of the images."""
    return np.where(rng.random(len(target)) < skill, target, rng.integers(CLASSES, size=len(target)))


def case(seed, members=7, images=120):
    """Members of different skill, two of them twins; their probabilities, the truth and a kind for each."""
    rng = np.random.default_rng(seed)
    target = rng.integers(CLASSES, size=images)
    predicted = np.stack([guesses(rng, target, skill) for skill in rng.uniform(0.2, 0.8, size=members)])
    predicted[-1] = predicted[rng.integers(members - 1)]
    return answers(predicted, seed), target, rng.choice(["a", "b", "c"], size=members).tolist()


def scores(probabilities, target):
    return [f1_score(target, one.argmax(axis=1), labels=range(CLASSES), average="macro", zero_division=0) for one in probabilities]


def slow_best(probabilities, target, kinds, count):
    found = scores(probabilities, target)
    return sorted(range(len(found)), key=lambda member: (-found[member], member))[:count]


def slow_per_kind(probabilities, target, kinds, count):
    left, chosen = slow_best(probabilities, target, kinds, len(kinds)), []
    turns = list(dict.fromkeys(kinds[member] for member in left))
    while len(chosen) < count:
        for kind in turns:
            own = [member for member in left if kinds[member] == kind]
            if own:
                chosen.append(own[0])
                left.remove(own[0])
    return chosen[:count]


def slow_double_fault(one, other, target):
    shares = []
    for number in set(target.tolist()):
        images = [image for image in range(len(target)) if target[image] == number]
        both = [image for image in images if one[image].argmax() != number != other[image].argmax()]
        shares.append(len(both) / len(images))
    return sum(shares) / len(shares)


def slow_diverse(probabilities, target, kinds, count):
    found, chosen = scores(probabilities, target), slow_best(probabilities, target, kinds, 1)
    while len(chosen) < count:
        worth = {}
        for member in set(range(len(probabilities))) - set(chosen):
            faults = [slow_double_fault(probabilities[member], probabilities[other], target) for other in chosen]
            worth[member] = round(found[member] - sum(faults) / len(faults), 12)
        chosen.append(min(worth, key=lambda member: (-worth[member], member)))
    return chosen


SLOW = {"best": slow_best, "per kind": slow_per_kind, "diverse": slow_diverse}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_equals_a_slow_reference(name, seed):
    for count in (1, 3, 7):
        assert CHOICES[name](*case(seed), count, METRIC) == SLOW[name](*case(seed), count)


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_begins_with_the_best_and_takes_no_member_twice(name, seed):
    probabilities, target, kinds = case(seed)
    chosen = CHOICES[name](probabilities, target, kinds, len(kinds), METRIC)
    assert sorted(chosen) == list(range(len(kinds)))
    assert chosen[0] == slow_best(probabilities, target, kinds, 1)[0]


@pytest.mark.parametrize("name", CHOICES)
def test_fewer_members_are_the_first_of_more(name):
    for count in range(1, 7):
        assert CHOICES[name](*case(0), count, METRIC) == CHOICES[name](*case(0), 7, METRIC)[:count]


@pytest.mark.parametrize("name", CHOICES)
def test_among_equals_the_earlier_is_taken(name):
    probabilities, target, _ = case(0)
    twins = np.stack([probabilities[0]] * 4)
    assert CHOICES[name](twins, target, ["a"] * 4, 3, METRIC) == [0, 1, 2]


def test_each_kind_has_its_turn_in_the_order_of_its_best_member():
    rng = np.random.default_rng(0)
    target = rng.integers(CLASSES, size=600)
    skills = {"slow": [0.9, 0.8, 0.7], "quick": [0.6, 0.3], "odd": [0.5]}
    kinds = [kind for kind, own in skills.items() for _ in own]
    probabilities = answers(np.stack([guesses(rng, target, skill) for own in skills.values() for skill in own]))
    assert CHOICES["per kind"](probabilities, target, kinds, 6, METRIC) == [0, 3, 5, 1, 4, 2]
    assert CHOICES["best"](probabilities, target, kinds, 6, METRIC) == [0, 1, 2, 3, 5, 4]


def test_of_two_equally_good_members_the_one_that_fails_elsewhere_is_taken():
    target = np.tile(np.arange(CLASSES), 40)
    first, second = np.arange(240) < 60, np.arange(240) >= 180
    failing = (target + 1) % CLASSES
    almost_alike = np.where(first & (np.arange(240) > 5), failing, target)
    elsewhere = np.where(second, failing, target)
    probabilities = answers(np.stack([np.where(first, failing, target), almost_alike, elsewhere]))
    found = scores(probabilities, target)
    assert found[1] > found[0] == pytest.approx(found[2])
    assert CHOICES["diverse"](probabilities, target, ["a"] * 3, 2, METRIC) == [1, 2]
    assert CHOICES["best"](probabilities, target, ["a"] * 3, 2, METRIC) == [1, 0]


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
@pytest.mark.parametrize("worthless", ["never right", "by chance", "one class"])
def test_a_worthless_member_is_taken_last_though_it_disagrees_most(worthless, seed):
    rng = np.random.default_rng(seed)
    target = rng.integers(CLASSES, size=300)
    good = guesses(rng, target, rng.uniform(0.45, 0.9))
    near = np.stack([np.where(rng.random(300) < 0.01, target, good) for _ in range(3)])
    poor = {
        "never right": (target + 1) % CLASSES,
        "by chance": rng.integers(CLASSES, size=300),
        "one class": np.full(300, rng.integers(CLASSES)),
    }[worthless]
    predicted = np.stack([poor, good, *near])
    differ = (predicted[:, None] != predicted).mean(axis=2)
    assert differ.sum(axis=1).argmax() == 0
    assert CHOICES["diverse"](answers(predicted), target, ["a"] * 5, 5, METRIC)[-1] == 0


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_a_member_is_taken_before_another_only_with_half_of_its_worth(seed):
    probabilities, target, kinds = case(seed)
    chosen, found = CHOICES["diverse"](probabilities, target, kinds, len(kinds), METRIC), scores(probabilities, target)
    recall = [np.mean([(one.argmax(axis=1) == target)[target == number].mean() for number in range(CLASSES)]) for one in probabilities]
    for earlier, later in combinations(chosen, 2):
        assert found[earlier] + recall[earlier] >= found[later]


def test_a_member_shares_with_itself_all_that_it_fails_at():
    probabilities, target, _ = case(0)
    recalls = [np.mean([(one.argmax(axis=1) == target)[target == number].mean() for number in range(CLASSES)]) for one in probabilities]
    np.testing.assert_allclose(np.diag(double_faults(probabilities, target, METRICS["f1_macro"])), 1 - np.array(recalls))


@pytest.mark.parametrize("count", [-1, 0, 8])
@pytest.mark.parametrize("name", CHOICES)
def test_a_top_that_cannot_be_is_refused_with_how_many_there_are(name, count):
    with pytest.raises(RunError, match=f"--top is {count}.* 7 members .*1 to 7"):
        CHOICES[name](*case(0), count, METRIC)
