"""What every searcher keeps, whatever it proposes by."""

import math
import warnings

import numpy as np
import pytest

from search_spaces.schema import flat
from tests.conftest import nightly_after
from tests.tuner.searchers.lives import FIXED, FULL_START, SPACE, as_record, life, tell, write_and_read
from trainables.config import TrialConfig
from trainables.metrics import Metric
from tuner.searchers import SEARCHERS
from tuner.searchers.given import GivenSearcher
from tuner.searchers.study import StudySearcher
from tuner.searchers.unit import from_unit, to_unit

EVERY = pytest.mark.parametrize("name", SEARCHERS)
CHOSEN = "task: joint\nmodel: {backbone: any}\n"
NUMBERS = CHOSEN + "optimizer: {lr: {float: [1.0e-5, 1.0e-1], log: true}}\ntrain: {batch_size: {int: [16, 64], step: 16}}\n"
LIVES = 18  # some of which continue beyond the random beginning of every searcher


GAIN, MINIMIZED = Metric("gain", "gain"), Metric("error", "error", direction="minimize")


@pytest.fixture
def space(tmp_path):
    return write_and_read(tmp_path, SPACE)


def make(name, space, seed=0, **more):
    return StudySearcher(space, FIXED, sampler=SEARCHERS[name].make, seed=seed, trials=12, slots=lambda: 100, **more)


def play(searcher, numbers, lives, running=()):
    """Let trials come and go, two at a time, the first to begin ends first; returns what was proposed and what still runs."""
    proposals, running = {}, list(running)
    for _ in numbers:
        if len(running) == 2:
            ended = running.pop(0)
            tell(searcher, ended, *lives[ended])
        proposal = searcher.suggest(str(max([*proposals, *running], default=-1) + 1))
        proposals[proposal["number"]] = proposal["values"]
        running.append(proposal["number"])
    return proposals, running


def lives_of(seed):
    rng = np.random.default_rng(seed)
    return [life(rng) for _ in range(LIVES)]


@EVERY
def test_the_same_seed_and_history_give_the_same_proposals_and_another_seed_others(space, name):
    first, again, other = (play(make(name, space, seed), range(LIVES), lives_of(0))[0] for seed in (3, 3, 4))
    assert first == again
    assert [first[number] for number in range(3, LIVES)] != [other[number] for number in range(3, LIVES)]


@EVERY
def test_start_entries_come_first_and_numbers_are_given_once(space, name):
    proposals, _ = play(make(name, space), range(LIVES), lives_of(0))
    assert sorted(proposals) == list(range(LIVES))
    assert flat(proposals[0]).items() >= FULL_START.items()
    assert [proposals[number]["loss"]["name"] for number in (1, 2)] == ["focal", "cross_entropy"]


@EVERY
@pytest.mark.parametrize("seed", nightly_after(1, range(2)))
def test_every_proposal_is_one_that_the_space_can_draw(space, name, seed):
    domains = {parameter.path: parameter.domain for parameter in space.parameters}
    for values in play(make(name, space, seed), range(LIVES), lives_of(seed))[0].values():
        TrialConfig.from_values(values)
        assert all(domains[path].holds(value) for path, value in space.drawn(values).items())
        assert ("gamma" in values["loss"]) == (values["loss"]["name"] == "focal")


@EVERY
@pytest.mark.parametrize("done", nightly_after(3, [0, 3, 15, 2, 9]))
def test_a_search_resumed_between_two_trials_proposes_what_the_uninterrupted_one_would_have(space, name, done):
    lives = lives_of(done)
    through, records = make(name, space), []
    for number in range(done):
        values = through.suggest(str(number))["values"]
        tell(through, number, *lives[number])
        records.append(as_record(number, values, *lives[number]))
    again = make(name, space, earlier=records)
    for number in range(done, done + 3):
        assert through.suggest(str(number)) == again.suggest(str(number))
        for searcher in (through, again):
            tell(searcher, number, *lives[number])


@EVERY
@pytest.mark.parametrize("cut", nightly_after(1, [8, 1, 4, 14]))
@pytest.mark.parametrize("text", [NUMBERS, SPACE], ids=["numbers", "conditions"])
def test_a_search_resumed_while_trials_run_proposes_what_the_uninterrupted_one_would_have(tmp_path, name, cut, text):
    space, lives = write_and_read(tmp_path, text), lives_of(cut)
    through = make(name, space)
    proposed, running = play(through, range(cut), lives)
    ended = [as_record(number, values, *lives[number]) for number, values in proposed.items() if number not in running]
    # Each has one report behind it, which it does not repeat.
    halves = [as_record(number, proposed[number], lives[number][0][:1], "interrupted") for number in running]
    again = make(name, space, earlier=[*ended, *halves], resumed={number: proposed[number] for number in running})
    assert [again.suggest(str(number)) for number in running] == [{"number": n, "values": proposed[n]} for n in running]
    expected = play(through, range(4), lives, running)
    assert play(again, range(4), lives, running) == expected


@EVERY
def test_nothing_of_optuna_s_comes_into_the_user_s_sight(space, name, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        searcher = make(name, space, earlier=[as_record(0, make(name, space).suggest("0")["values"], (), "memory")])
        for number in range(1, LIVES):
            searcher.suggest(str(number))
            tell(searcher, number, *lives_of(5)[number])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "name, metric",
    nightly_after(2, [("tpe", MINIMIZED), ("cmaes", GAIN), ("tpe", GAIN), ("gp", MINIMIZED), ("gp", GAIN), ("cmaes", MINIMIZED)]),
    ids=lambda value: getattr(value, "direction", None),
)
def test_what_learns_finds_the_better_end_in_either_direction(tmp_path, name, metric):
    space = write_and_read(tmp_path, NUMBERS)

    def drawn(seed):
        searcher, rates = make(name, space, seed, metric=metric), []
        for number in range(30):
            rates.append(math.log10(searcher.suggest(str(number))["values"]["optimizer"]["lr"]))
            tell(searcher, number, [-metric.sign * rates[-1]], "finished")
        return np.mean(rates[:8]), np.mean(rates[-8:])

    early, late = np.mean([drawn(seed) for seed in range(2)], axis=0)
    assert late < early - 0.5, "the lowest learning rate is the best"


@EVERY
def test_what_cannot_be_modelled_is_reported_once_in_words(space, name):
    words = SEARCHERS[name].words(name, space)
    left = {"tpe": (), "random": (), "gp": ("loss/gamma",), "qmc": ("loss/gamma",), "cmaes": ("task", "loss/name", "loss/gamma")}[name]
    assert all(path in words for path in left) and bool(words) == bool(left)
    assert "optimizer/lr" not in words


@EVERY
def test_a_space_of_which_nothing_can_be_modelled_is_searched_at_random(tmp_path, name):
    space = write_and_read(tmp_path, CHOSEN.replace("any", "{choice: [one, other]}") + "optimizer: {lr: 0.1}\n")
    proposals, _ = play(make(name, space), range(LIVES), lives_of(1))
    assert {values["model"]["backbone"] for values in proposals.values()} == {"one", "other"}


def test_cma_es_learns_from_stopped_trials_and_from_those_that_did_not_fit_the_gpu(tmp_path):
    space = write_and_read(tmp_path, NUMBERS)

    def late(ending_of):
        searcher, rates = make("cmaes", space), []
        for number in range(40):
            rates.append(math.log10(searcher.suggest(str(number))["values"]["optimizer"]["lr"]))
            tell(searcher, number, [0.5], ending_of(rates[-1]))
        return np.mean(rates[-10:])

    assert late(lambda rate: "memory" if rate > -3 else "finished") < -3
    assert late(lambda rate: "stopped" if rate < -3 else "finished") > -3


@pytest.mark.parametrize("text", ["{float: [0.5, 4.0]}", "{float: [0.0, 1.0], step: 0.25}", "{float: [1.0e-5, 1.0e-1], log: true}"])
@pytest.mark.parametrize("whole", ["{int: [1, 9]}", "{int: [16, 64], step: 16}", "{int: [1, 300], log: true}"])
def test_numbers_go_to_the_unit_interval_and_back(tmp_path, text, whole):
    space = write_and_read(tmp_path, CHOSEN + f"optimizer: {{lr: {text}}}\ntrain: {{batch_size: {whole}}}\n")
    for parameter in space.parameters:
        for share in np.linspace(0, 1, 41):
            value = from_unit(parameter.domain, share)
            assert parameter.domain.holds(value)
            assert from_unit(parameter.domain, to_unit(parameter.domain, value)) == pytest.approx(value)
        assert {from_unit(parameter.domain, end) for end in (0.0, 1.0)} == set(parameter.domain.ends())


def test_given_configurations_are_proposed_by_number_and_nothing_else():
    free = 2
    searcher = GivenSearcher({4: {"b": 1}, 2: {"a": 1}, 7: {"c": 1}}, slots=lambda: free)
    assert [searcher.suggest(str(place)) for place in range(3)] == [
        {"number": 2, "values": {"a": 1}},
        {"number": 4, "values": {"b": 1}},
        None,
    ]
    searcher.on_trial_result("0", {"number": 2, "epoch": 1, "score": None, "last": True})
    searcher.on_trial_complete("0", {"number": 2, "epoch": 1, "score": None, "last": True})
    assert searcher.suggest("3") == {"number": 7, "values": {"c": 1}}
    assert searcher.suggest("4") == "FINISHED"
