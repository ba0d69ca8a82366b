from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from analysis.compose import members, partitions
from analysis.top import best
from analysis.trials import Runs, Sample, Trial
from trainables.config import TrialConfig
from trainables.data.contest import contest_scheme
from trainables.data.labels import read_task
from trainables.record import Record, Result, RunCard, RunError

SCHEME = contest_scheme((30, 60))
PHOTOS = 60


def runs_of(tasks, seed=0):
    """A run whose trials predict at random."""
    rng = np.random.default_rng(seed)
    labels = SCHEME.split(rng.integers(SCHEME.classes, size=PHOTOS))
    sample = Sample(tuple(map(str, range(PHOTOS))), np.arange(PHOTOS), labels, SCHEME)
    attributes = tuple(attribute.plain() for attribute in SCHEME.attributes)
    card = RunCard("r", "r.yaml", "data", (30, 60), 0, "abc", attributes, 1, len(tasks), "test")
    trials = [make_trial(number, task, sample, rng) for number, task in enumerate(tasks)]
    return Runs((Path("r"),), (card,), sample, sample, tuple(trials), ())


def make_trial(number, task, sample, rng):
    config = TrialConfig.from_values({"epochs": 1, "task": task, "optimizer": {"lr": 0.1}, "model": {"backbone": "b"}})
    record = Record(Path(str(number)), number, config, (), Result("finished", "", 1, "abc", "", ""))
    read = read_task(task, SCHEME)
    valid = rng.dirichlet(np.ones(read.scheme.classes), size=PHOTOS)
    return Trial("r", record, read, valid, sample.macro_f1(read.scheme, valid))


def numbers(member):
    return sorted(trial.record.number for trial in member.trials)


def test_a_trial_that_covers_the_scheme_is_a_member_alone():
    runs = runs_of(["joint", "heads", [["mask", "gender"], ["age"]]])
    found = members(runs)
    assert sorted(map(numbers, found)) == [[0], [1], [2]]
    for member in found:
        np.testing.assert_allclose(member.valid, member.trials[0].valid)
        assert member.score == member.trials[0].score


@pytest.mark.parametrize("seed", range(10))
def test_the_rth_member_joins_the_rth_best_specialists(seed):
    runs = runs_of(["mask", "age", "gender", "mask", "age", "gender", "age"], seed)
    rank = {
        name: [trial.record.number for trial in sorted(runs.trials, key=lambda trial: -trial.score) if trial.task.scheme.names == (name,)]
        for name in SCHEME.names
    }
    expected = [sorted(chosen) for chosen in zip(*rank.values(), strict=False)]
    assert [numbers(member) for member in members(runs)] == expected
    assert len(expected) == 2


def test_specialists_multiply_their_probabilities():
    runs = runs_of(["mask", [["age", "gender"]]])
    (member,) = members(runs)
    mask = next(trial.valid for trial in member.trials if trial.task.scheme.names == ("mask",))
    rest = next(trial.valid for trial in member.trials if trial.task.scheme.names == ("gender", "age"))
    for photo, joint in product(range(PHOTOS), range(SCHEME.classes)):
        a, b, c = SCHEME.split(np.array([joint]))[0]
        assert member.valid[photo, joint] == pytest.approx(mask[photo, a] * rest[photo, 3 * b + c])


def test_every_way_to_part_the_scheme_gives_members():
    runs = runs_of(["joint", "mask", "gender", "age", [["gender", "age"]], [["mask", "gender"]]])
    assert sorted(map(numbers, members(runs))) == [[0], [1, 2, 3], [1, 4], [3, 5]]


def test_runs_that_cover_a_part_have_members_of_that_part():
    (member,) = members(runs_of(["age"]))
    assert member.scheme == SCHEME.part(("age",))
    (member,) = members(runs_of(["age", "mask"]))
    assert member.scheme.names == ("mask", "age")


def test_trials_that_only_overlap_are_refused_with_what_they_predict():
    with pytest.raises(RunError, match="mask and gender.*gender and age|gender and age.*mask and gender"):
        members(runs_of([[["mask", "gender"]], [["gender", "age"]]]))


@pytest.mark.parametrize("seed", range(20))
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


@pytest.mark.parametrize("seed", range(10))
def test_the_best_are_the_first_by_validation_score(seed):
    found = members(runs_of(["joint"] * 6, seed))
    scores = sorted((member.score for member in found), reverse=True)
    assert [member.score for member in best(found, 4)] == scores[:4]


def test_ties_go_to_the_lower_trial_number():
    runs = runs_of(["joint"] * 3)
    twins = tuple(Trial("r", trial.record, trial.task, runs.trials[0].valid, runs.trials[0].score) for trial in runs.trials)
    found = members(Runs(runs.folders, runs.cards, runs.valid, runs.holdout, twins[::-1], ()))
    assert [numbers(member) for member in best(found, 3)] == [[0], [1], [2]]


@pytest.mark.parametrize("count", [-1, 0, 4])
def test_a_top_that_cannot_be_is_refused_with_how_many_there_are(count):
    found = members(runs_of(["joint"] * 3))
    with pytest.raises(RunError, match=f"--top is {count}, but there are 3 members.*take 1 to 3"):
        best(found, count)
