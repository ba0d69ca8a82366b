import math
from itertools import islice

import numpy as np
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher, SearchGenerator

from search_spaces.schema import as_optuna, flat, nested
from tests.tuner.searchers.lives import ENDINGS, FIXED, FULL_START, SPACE, as_record, config_with, life, tell, write_and_read
from trainables.config import TrialConfig
from tuner.searchers.random import random_draws
from tuner.searchers.study import OUT_OF_MEMORY, StudySearcher
from tuner.searchers.tpe import TPE


@pytest.fixture
def space(tmp_path):
    return write_and_read(tmp_path, SPACE)


def make(space, seed=0, trials=12, slots=lambda: 100, **more):
    return StudySearcher(space, FIXED, sampler=TPE.make, seed=seed, trials=trials, slots=slots, **more)


def search(searcher, objective, trials):
    """The configurations proposed, by path, each finished with the score that the objective gives it."""
    proposals = []
    for number in range(trials):
        proposal = searcher.suggest(str(number))
        assert proposal["number"] == number
        proposals.append(flat(proposal["values"]))
        tell(searcher, number, [objective(proposals[-1])], "finished")
    return proposals


def smallness(values):
    """Best at the low end of the learning rates, which are drawn on a log scale."""
    return -math.log10(values["optimizer/lr"])


# Kept by no public name: what Optuna believes is the very thing to prove.
def taught(searcher):
    (branch,) = searcher._branches.values()
    return branch.study.trials


# Proposals


def test_the_same_seed_and_history_give_the_same_proposals_and_another_seed_others(space):
    first, again, other = (search(make(space, seed), smallness, 12) for seed in (3, 3, 4))
    assert first == again
    assert first[3:] != other[3:]


def test_proposals_depend_on_the_history(space):
    one, other = (search(make(space), objective, 12) for objective in (smallness, lambda values: -smallness(values)))
    assert one[:4] == other[:4]
    assert one != other


def test_start_entries_come_first_and_what_they_leave_open_is_drawn(space):
    first, second, third = search(make(space), smallness, 3)
    assert first.items() >= FULL_START.items()
    assert second["loss/name"] == "focal" and 0.5 <= second["loss/gamma"] <= 4
    assert third["loss/name"] == "cross_entropy" and "loss/gamma" not in third
    assert 1e-5 <= third["optimizer/lr"] <= 1e-1


def test_without_start_entries_the_baseline_comes_first_and_once(tmp_path):
    space = write_and_read(tmp_path, SPACE.partition("start:")[0])
    baseline = {"task": "joint", "loss/name": "focal", "loss/gamma": 2.0, "optimizer/lr": 1e-3, "train/batch_size": 32}
    first, second = search(make(space, baseline=baseline), smallness, 2)
    assert first.items() >= baseline.items() and not second.items() >= baseline.items()
    # Trial 0 of an earlier version was drawn.
    for earlier in [as_record(0, config_with())], [as_record(0, nested(first))]:
        again = flat(make(space, baseline=baseline, earlier=earlier).suggest("1")["values"])
        assert not again.items() >= baseline.items()
    resumed = make(space, baseline=baseline, resumed={0: nested(first)})
    assert [flat(resumed.suggest(str(number))["values"]).items() >= baseline.items() for number in range(3)] == [True, False, False]


def test_a_proposal_is_the_complete_configuration_with_what_the_run_adds(space):
    values = make(space).suggest("0")["values"]
    assert (values["epochs"], values["seed"], values["model"]["backbone"]) == (3, 0, "any")
    assert values["task"] == [["mask"], ["gender", "age"]], "a list stays a list"


def test_a_higher_score_is_better(space):
    scores = np.array([[smallness(values) for values in search(make(space, seed), smallness, 60)] for seed in range(3)])
    assert scores[:, 40:].mean() > scores[:, 3:23].mean() + 0.5


@pytest.mark.parametrize("seed", range(3))
def test_a_conditional_value_is_proposed_only_where_it_holds(space, seed):
    proposals = search(make(space, seed), smallness, 30)
    assert {values["loss/name"] for values in proposals} == {"cross_entropy", "focal"}
    assert all(("loss/gamma" in values) == (values["loss/name"] == "focal") for values in proposals)


def test_no_trial_is_proposed_ahead_of_a_free_slot_and_the_number_of_slots_may_change(space):
    free = 2
    searcher = make(space, slots=lambda: free)
    assert [searcher.suggest(name) is None for name in "abc"] == [False, False, True]
    free = 3
    assert searcher.suggest("c")["number"] == 2, "a refusal uses up no number"
    free = 1
    searcher.on_trial_complete("a", error=True)
    searcher.on_trial_complete("b", error=True)
    assert searcher.suggest("d") is None
    searcher.on_trial_complete("c", error=True)
    assert searcher.suggest("d")["number"] == 3


def test_nothing_more_is_proposed_once_the_search_comes_to_its_end(space):
    ending = False
    searcher = make(space, slots=lambda: 1, stopping=lambda: ending, resumed={4: config_with()})
    assert searcher.suggest("a")["number"] == 4
    ending = True
    # Also where no slot is free: else Tune would wait for one.
    assert searcher.suggest("b") == Searcher.FINISHED
    searcher.on_trial_complete("a", error=True)
    assert searcher.suggest("b") == Searcher.FINISHED


def test_tune_can_save_its_state_beside_a_searcher_that_keeps_none(space, tmp_path):
    (tmp_path / "state").mkdir()
    searcher = make(space, slots=lambda: 1)  # a lambda cannot be pickled
    SearchGenerator(searcher).save_to_dir(str(tmp_path / "state"), "session")
    assert not list((tmp_path / "state").glob("*searcher*"))


def test_random_draws_begin_with_the_start_entries_and_repeat_with_the_seed(space):
    draws = [[flat(values) for values in random_draws(space, FIXED, seed=seed, count=20)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0][0].items() >= FULL_START.items()
    assert len(list(islice(draws[0], 30))) == 20


# What Optuna is told


def test_optuna_learns_how_trials_end(space):
    searcher = make(space)
    for number in range(7):
        searcher.suggest(str(number))
    tell(searcher, 0, [0.3, 0.6, 0.5], "finished")
    tell(searcher, 1, [0.1, 0.2], "stopped")
    tell(searcher, 2, [0.9], "diverged")
    tell(searcher, 3, [0.4], "crash")
    tell(searcher, 4, [0.7], "memory")
    searcher.on_trial_complete("5", None)
    assert [trial.state for trial in taught(searcher)] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.FAIL,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.RUNNING,
    ]
    assert taught(searcher)[0].value == 0.6, "a finished trial counts with its best epoch"
    (branch,) = searcher._branches.values()
    assert branch.study.best_trial.number == 0


@pytest.mark.parametrize("ending", ["finished", "stopped", "memory", "diverged", "crash"])
def test_optuna_learns_every_epoch_however_a_trial_ended_and_at_whichever_it_was_stopped(space, ending):
    searcher = make(space)
    searcher.suggest("0")
    tell(searcher, 0, [0.1, 0.2, 0.15], ending)
    assert taught(searcher)[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.15}


@pytest.mark.parametrize("ending", ENDINGS)
def test_only_what_did_not_fit_the_gpu_is_a_violated_constraint(space, ending):
    searcher = make(space)
    searcher.suggest("0")
    tell(searcher, 0, [0.1], ending)
    assert taught(searcher)[0].constraints == ({OUT_OF_MEMORY: 1.0} if ending == "memory" else {})


@pytest.mark.parametrize("seed", range(3))
def test_where_trials_did_not_fit_the_gpu_fewer_are_proposed(space, seed):
    def proposals(ending_of_large):
        searcher, sizes = make(space, seed), []
        for number in range(50):
            sizes.append(searcher.suggest(str(number))["values"]["train"]["batch_size"])
            tell(searcher, number, [0.5 + sizes[-1] / 1000], ending_of_large if sizes[-1] > 32 else "finished")
        return sizes

    large = [sum(size > 32 for size in proposals(ending)[25:]) for ending in ("memory", "finished")]
    assert large[0] < large[1] / 2


def test_an_epoch_that_is_repeated_after_a_crash_is_no_trouble(space):
    searcher = make(space)
    searcher.suggest("0")
    for score in (0.4, 0.4):
        searcher.on_trial_result("0", {"number": 0, "epoch": 1, "score": score, "best": score, "last": False})
    tell(searcher, 0, [0.4, 0.5], "finished")
    assert taught(searcher)[0].value == 0.5


# Going on from records


@pytest.mark.parametrize("done", [0, 1, 2, 3, 4, 7, 15])
@pytest.mark.parametrize("seed", range(8))
def test_a_search_that_resumes_proposes_what_the_uninterrupted_one_would_have(space, seed, done):
    rng = np.random.default_rng([seed, done])
    lives = [life(rng) for _ in range(done + 5)]
    through, records = make(space, seed), []

    def step(searcher, number):
        proposal = searcher.suggest(str(number))
        tell(searcher, number, *lives[number])
        return proposal

    for number in range(done):
        proposal = step(through, number)
        assert proposal["number"] == number
        records.append(as_record(number, proposal["values"], *lives[number]))
    again = make(space, seed, earlier=records)
    for number in range(done, done + 5):
        assert step(again, number) == step(through, number)


@pytest.mark.parametrize("seed", range(8))
def test_trials_that_were_interrupted_come_first_with_their_numbers_and_values_to_the_letter(space, seed):
    values = {number: TrialConfig.from_values(draw).values() for number, draw in enumerate(random_draws(space, FIXED, seed=seed, count=9))}
    waiting = {number: values[number] for number in (7, 2, 5)}
    searcher = make(space, seed, earlier=[as_record(0, values[0])], resumed=waiting)
    proposals = [searcher.suggest(str(place)) for place in range(3)]
    assert proposals == [{"number": number, "values": values[number]} for number in (2, 5, 7)]
    for trial, number in zip(taught(searcher)[1:], (2, 5, 7), strict=True):
        expected = {path: as_optuna(value) for path, value in space.drawn(values[number]).items()}
        assert trial.params == expected, "Optuna knows which values they have"


def test_numbers_of_records_are_never_given_again_and_gaps_are_filled(space):
    earlier = [as_record(number, config_with()) for number in (0, 1, 4, 6)]
    searcher = make(space, earlier=earlier, resumed={3: config_with()})
    assert [searcher.suggest(str(place))["number"] for place in range(6)] == [3, 2, 5, 7, 8, 9]


def test_a_gap_among_the_first_trials_is_filled_with_what_was_there(space):
    whole, values = make(space), []
    for number in range(3):
        values.append(whole.suggest(str(number))["values"])
        tell(whole, number, [0.5], "finished")
    again = make(space, earlier=[as_record(number, values[number]) for number in (0, 2)])
    assert again.suggest("x") == {"number": 1, "values": values[1]}


def test_start_entries_that_were_tried_are_not_tried_again_and_the_others_are(space):
    tried = config_with(task=[["mask"], ["gender", "age"]], loss__name="focal", loss__gamma=2.0, optimizer__lr=1e-2, train__batch_size=48)
    for how in ({"earlier": [as_record(0, tried)]}, {"resumed": {0: tried}}):
        searcher = make(space, **how)
        proposals = [flat(searcher.suggest(str(place))["values"]) for place in range(3 if "resumed" in how else 2)]
        second, third = proposals[-2:]
        assert second["loss/name"] == "focal" and second["optimizer/lr"] != 1e-2
        assert third["loss/name"] == "cross_entropy"


def test_a_start_entry_with_another_value_was_not_tried(space):
    almost = config_with(task=[["mask"], ["gender", "age"]], loss__name="focal", loss__gamma=2.5, optimizer__lr=1e-2, train__batch_size=48)
    assert flat(make(space, earlier=[as_record(0, almost)]).suggest("1")["values"]).items() >= FULL_START.items()


def test_one_trial_stands_for_one_start_entry_though_it_has_the_values_of_two(space):
    tried = config_with(task=[["mask"], ["gender", "age"]], loss__name="focal", loss__gamma=2.0, optimizer__lr=1e-2, train__batch_size=48)
    assert make(space, earlier=[as_record(0, tried)]).suggest("1")["values"]["loss"]["name"] == "focal"


@pytest.mark.parametrize("ending", ENDINGS)
def test_optuna_learns_of_an_earlier_trial_what_it_knew_of_it_alive(space, ending):
    alive = make(space)
    values = alive.suggest("0")["values"]
    tell(alive, 0, [0.2, 0.4, 0.3], ending)
    (then,), (now,) = taught(alive), taught(make(space, earlier=[as_record(0, values, [0.2, 0.4, 0.3], ending)]))
    assert (now.state, now.params, now.distributions) == (then.state, then.params, then.distributions)
    assert (now.intermediate_values, now.constraints) == (then.intermediate_values, then.constraints)
    assert ending != "finished" or now.value == then.value == 0.4


def test_of_an_interrupted_trial_that_cannot_be_resumed_optuna_learns_what_it_reached(space):
    one = make(space, earlier=[as_record(0, config_with(), [0.2, 0.3], "interrupted"), as_record(1, config_with(), [], "interrupted")])
    (trial,) = taught(one)
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 0.2, 2: 0.3})


# Going on with an edited space

EDITS = {
    "a choice removed": ("choice: [cross_entropy, focal]", "choice: [focal, soft_f1]"),
    "a choice added": ("choice: [cross_entropy, focal]", "choice: [soft_f1, cross_entropy, focal]"),
    "a list among the choices removed": ("choice: [joint, [[mask], [gender, age]]]", "choice: [joint, heads]"),
    "a range narrowed": ("[1.0e-5, 1.0e-1]", "[1.0e-3, 1.0e-2]"),
    "a range widened": ("[1.0e-5, 1.0e-1]", "[1.0e-7, 1.0]"),
    "a log scale given up": ("[1.0e-5, 1.0e-1], log: true", "[1.0e-5, 1.0e-1]"),
    "another step": ("{int: [16, 64], step: 16}", "{int: [8, 64], step: 8}"),
    "integers made a choice": ("{int: [16, 64], step: 16}", "{choice: [32, 48, 100]}"),
    "a parameter gone": ("optimizer: {lr: {float: [1.0e-5, 1.0e-1], log: true}}", "optimizer: {lr: 0.01}"),
    "a parameter new": ("train: {", "train: {clip: {float: [0.0, 2.0]}, "),
    "a parameter new where no default fits": ("train: {", "train: {clip: {float: [1.0, 2.0]}, "),
    "a condition new": ("step: 16}", "step: 16, when: {task: joint}}"),
    "nothing as before": ("task: {choice: [joint, [[mask], [gender, age]]]}", "task: {choice: [heads, age]}"),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("seed", range(3))
def test_an_edited_space_is_taught_what_still_fits_and_searched_on(space, tmp_path, edit, seed):
    rng = np.random.default_rng(seed)
    before, old = make(space, seed), []
    for number in range(15):
        lived = life(rng)
        old.append(as_record(number, before.suggest(str(number))["values"], *lived))
        tell(before, number, *lived)
    was, becomes = EDITS[edit]
    assert was in SPACE
    edited = write_and_read(tmp_path, SPACE[: SPACE.index("start:")].replace(was, becomes))
    searcher = make(edited, seed, earlier=old)

    domains = {parameter.path: parameter.domain for parameter in edited.parameters}
    expected = []
    for record in old:
        drawn = edited.drawn(record.config.values())
        fitting = {path: as_optuna(value) for path, value in drawn.items() if domains[path].holds(value)}
        assert fitting, "some value of every trial is still possible after each of the edits"
        expected.append(fitting)
    assert [trial.params for trial in taught(searcher)] == expected

    for number in range(15, 25):
        proposal = searcher.suggest(str(number))
        assert proposal["number"] == number
        TrialConfig.from_values(proposal["values"])
        given = flat(proposal["values"])
        drawn = edited.drawn(proposal["values"])
        assert all(domains[path].holds(value) for path, value in drawn.items())
        assert given.items() >= edited.fixed.items()
        tell(searcher, number, *life(rng))


def test_a_trial_of_which_nothing_fits_any_more_teaches_nothing(tmp_path):
    head = "model: {backbone: any}\n"
    space = write_and_read(tmp_path, head + "optimizer: {lr: {float: [1.0e-3, 1.0e-2]}}\n")
    searcher = make(space, earlier=[as_record(0, config_with(optimizer__lr=0.5)), as_record(1, config_with(optimizer__lr=5e-3))])
    (trial,) = taught(searcher)
    assert trial.params == {"optimizer/lr": 5e-3}
    assert searcher.suggest("2")["number"] == 2


def test_integers_for_a_setting_that_is_a_real_number_are_recognized_in_a_record(tmp_path):
    space = write_and_read(tmp_path, "model: {backbone: any}\noptimizer: {lr: 0.001}\naugment: {rotate: {int: [0, 20]}}\n")
    values = next(random_draws(space, FIXED, seed=0, count=1))
    searcher = make(space, earlier=[as_record(0, values)], resumed={1: TrialConfig.from_values(values).values()})
    assert searcher.suggest("1")["number"] == 1
    assert [trial.params for trial in taught(searcher)] == [{"augment/rotate": values["augment"]["rotate"]}] * 2


# Trials that predict different targets

PARTS = """
task: {choice: [mask, joint, [[mask], [gender, age]], age<30]}
model: {backbone: any}
optimizer: {lr: {float: [1.0e-5, 1.0e-1], log: true}}
"""
KINDS = {"mask": ["mask"], "all": ["joint", [["mask"], ["gender", "age"]]], "young": ["age<30"]}


def kind_of(values):
    return next(kind for kind, tasks in KINDS.items() if values["task"] in tasks)


def in_parts(space, **more):
    return make(space, kinds=KINDS, predicts=kind_of, **more)


def test_trials_predict_each_of_what_they_can_in_turn_and_are_compared_with_their_like(tmp_path):
    space = write_and_read(tmp_path, PARTS)
    searcher = in_parts(space, trials=30)
    # Scores of one kind lie far above those of the others: the model must not see them as better settings.
    proposals = search(searcher, lambda values: 100 * (values["task"] == "mask") - abs(math.log10(values["optimizer/lr"]) + 3), 30)
    kinds = [kind_of(values) for values in proposals]
    assert kinds[:3] == list(KINDS) and all(kinds.count(kind) == 10 for kind in KINDS)
    assert {str(values["task"]) for values in proposals if kind_of(values) == "all"} == {str(task) for task in KINDS["all"]}
    for kind, branch in searcher._branches.items():
        own = [trial.value for trial in branch.study.trials]
        assert len(own) == 10 and all((value > 50) == (kind == "mask") for value in own)


def test_a_search_of_parts_that_resumes_proposes_what_the_uninterrupted_one_would_have(tmp_path):
    space = write_and_read(tmp_path, PARTS + "start: [{task: age<30, optimizer: {lr: 1.0e-3}}]")
    whole = search(in_parts(space, trials=12), smallness, 12)
    assert whole[0]["task"] == "age<30" and whole[1]["task"] == "mask"
    earlier = [as_record(number, nested(values), [smallness(values)], "finished") for number, values in enumerate(whole[:7])]
    resumed = in_parts(space, trials=12, earlier=earlier)
    assert flat(resumed.suggest("7")["values"]) == whole[7]
