"""What is fitted on some groups is evaluated on others, through every choice on the way."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.evaluation.nested import Candidate, Known, MemberOptions, crossfit_step, fit_nested, kinds_of, line_up, searched
from analysis.votes import ENSEMBLES
from analysis.votes.folds import part_groups
from trainables.data.targets import Classes, Scheme, read_task
from trainables.metrics import METRICS

METRIC = METRICS["f1_macro"]
SCHEME = Scheme((Classes("left", ("a", "b")), Classes("right", ("x", "y", "z"))))
GROUPS, SHOTS = 60, 3


def make_known(seed: int, trials: dict[str, tuple[str, float]]) -> tuple[dict[str, Candidate], Known]:
    """Images of groups, and trials of a task that are right as often as told, one group's images alike."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(GROUPS), SHOTS)
    labels = np.stack([rng.integers(2, size=GROUPS), rng.integers(3, size=GROUPS)], axis=1)[groups]
    candidates, predicted = {}, {}
    for name, (task, skill) in trials.items():
        candidates[name] = Candidate(read_task(task, SCHEME), {"backbone": name[0], "task": str(task)})
        part = candidates[name].task.scheme
        truth = part.joint(labels[:, SCHEME.columns(part.names)])
        guess = np.where((rng.random(GROUPS) < skill)[groups], truth, rng.integers(part.classes, size=GROUPS)[groups])
        predicted[name] = 0.7 * np.eye(part.classes)[guess] + 0.3 * rng.dirichlet(np.ones(part.classes), size=len(groups))
    return candidates, Known(METRIC, SCHEME, labels, groups, predicted)


def score(known: Known, answer: np.ndarray, scheme: Scheme = SCHEME) -> float:
    return float(METRIC.score(known.truth(scheme), answer))


@pytest.mark.parametrize("name", ENSEMBLES)
def test_what_answers_for_a_group_does_not_know_that_groups_labels(name):
    trials = {"p": ("joint", 0.6), "q": ("heads", 0.5), "r": ("left", 0.8), "s": ("right", 0.7)}
    candidates, known = make_known(0, trials)
    parts = part_groups(known.groups, SCHEME.joint(known.labels), seed=0)
    lied = known.labels.copy()
    lied[parts[0]] = (lied[parts[0]] + 1) % [2, 3]
    changed = Known(METRIC, SCHEME, lied, known.groups, known.predicted)
    member_options = MemberOptions(top=3, calibrate=True)
    true, false = (fit_nested(member_options, (name,), candidates, these, parts[:1])[name] for these in (known, changed))
    np.testing.assert_array_equal(true.answer(known.predicted), false.answer(known.predicted))


def test_the_luck_of_having_picked_the_best_is_seen_through():
    chosen, nested = [], []
    for seed in range(5):
        candidates, known = make_known(seed, {f"t{number}": ("joint", 0.0) for number in range(40)})
        parts = part_groups(known.groups, SCHEME.joint(known.labels), seed=0)
        chosen.append(score(known, line_up(MemberOptions(top=1), candidates, known).fit("best")(known.predicted)))
        found = fit_nested(MemberOptions(top=1), ("best",), candidates, known, parts)["best"]
        nested.append(score(known, found.answer(known.predicted)))
    assert np.mean(chosen) > 0.25, "of trials that guess, the luckiest looks far better than the sixth that guessing is worth"
    assert np.mean(nested) < 0.19


def test_members_are_chosen_best_first_and_no_more_than_there_are():
    candidates, known = make_known(2, {"a": ("joint", 0.5), "b": ("joint", 0.9), "c": ("joint", 0.7)})
    lineup = line_up(MemberOptions(top=2), candidates, known)
    assert [METRIC.score(lineup.target, answer) for answer in lineup.answers] == sorted(
        (score(known, member.answer(known.predicted)) for member in lineup.members), reverse=True
    )
    everyone = line_up(MemberOptions(top=99), candidates, known)
    assert len(everyone.members) == everyone.choice


def test_a_vote_that_picks_from_all_members_answers_with_the_few_it_picked_and_as_they_do_together():
    candidates, known = make_known(2, {f"t{number}": ("joint", 0.5) for number in range(14)})
    lineup = line_up(MemberOptions(top=None), candidates, known)
    pipeline = lineup.fit("greedy_all")
    assert len(lineup.members) >= 14 > len(pipeline.members) > 1
    assert all(weight > 0 for weight in pipeline.ensemble.weights) and sum(pipeline.ensemble.weights) == pytest.approx(1)
    few = lineup.only(pipeline.members)
    np.testing.assert_allclose(pipeline(known.predicted), pipeline.ensemble(few.answers))


def test_trials_without_weights_choose_nothing_and_yet_the_best_was_picked_from_them_too():
    candidates, known = make_known(2, {"a": ("joint", 0.5), "b": ("joint", 0.9), "c": ("joint", 0.7)})
    unkept = candidates | {"b": replace(candidates["b"], votes=False)}
    assert line_up(MemberOptions(top=9), unkept, known).members == tuple(
        member for member in line_up(MemberOptions(top=9), candidates, known).members if "b" not in member.trials
    )
    scores = [sorted(one.score() for one in searched(MemberOptions(), given, known)) for given in (candidates, unkept)]
    assert scores[0] == scores[1] and len(scores[0]) == 3


def test_alone_takes_members_of_one_trial_where_one_covers_all_and_others_where_none_does():
    candidates, known = make_known(3, {"a": ("joint", 0.3), "l": ("left", 0.95), "r": ("right", 0.95)})
    (member,) = line_up(MemberOptions(top=1, alone=True), candidates, known).members
    assert member.trials == ("a",)
    apart = {name: candidates[name] for name in ("l", "r")}
    (member,) = line_up(MemberOptions(top=1, alone=True), apart, known).members
    assert member.trials == ("l", "r")


def test_turns_are_taken_by_backbone_or_by_task():
    candidates, known = make_known(4, {"a1": ("joint", 0.9), "a2": ("joint", 0.8), "b": ("heads", 0.4)})
    members = line_up(MemberOptions(top=2, choose="per kind", per="backbone"), candidates, known).members
    assert kinds_of(members, candidates, "backbone")[0] == "a"
    assert len(set(kinds_of(members, candidates, "backbone"))) == 2


def test_a_nested_answer_puts_every_row_where_it_was():
    candidates, known = make_known(5, {"a": ("joint", 0.5)})
    parts = part_groups(known.groups, SCHEME.joint(known.labels), seed=3)
    nested = fit_nested(MemberOptions(top=1), ("best",), candidates, known, parts)["best"]
    np.testing.assert_allclose(nested.answer(known.predicted), known.predicted["a"])
    assert nested.trials == ("a",)


def test_a_step_is_fitted_on_the_other_groups():
    candidates, known = make_known(6, {"a": ("joint", 0.6)})
    target = SCHEME.joint(known.labels)
    parts = part_groups(known.groups, target, seed=0)
    lied = target.copy()
    lied[parts[2]] = (lied[parts[2]] + 1) % 6
    answers = [crossfit_step("offsets", known.predicted["a"], truth, known.groups, SCHEME, METRIC, parts) for truth in (target, lied)]
    np.testing.assert_array_equal(answers[0][parts[2]], answers[1][parts[2]])
