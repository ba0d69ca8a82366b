"""A vote, and what comes around it, is taken where it is worth something on groups that it was not fitted on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import typer

from analysis.evaluation.decide import ENOUGH_GROUPS, GREEDY_ALL, SINGLE, WITH_STEPS, Options, decide
from analysis.evaluation.nested import Candidate, Known, MemberOptions
from analysis.evaluation.uncertainty import Gain
from analysis.members.predictions import averaged
from analysis.members.price import Limit, Price
from analysis.votes import ENSEMBLES
from benchmarks.decision import main as compare_rules
from tests.conftest import nightly_after
from tests.messages import missing
from trainables.data.targets import Classes, Scheme, read_task
from trainables.metrics import METRICS
from trainables.record import RunError
from trainables.registry import ConfigError

SCHEME = Scheme((Classes("left", ("a", "b")), Classes("right", ("x", "y", "z"))))
GROUPS, SHOTS = 150, 4
PLAIN = Options(MemberOptions(top=5), steps=())


def make_known(seed: int, skills: list[float]) -> tuple[dict[str, Candidate], Known]:
    """Trials that predict everything, are right as often as told, and err on groups of their own."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(GROUPS), SHOTS)
    labels = np.stack([rng.integers(2, size=GROUPS), rng.integers(3, size=GROUPS)], axis=1)[groups]
    predicted = {}
    for number, skill in enumerate(skills):
        guess = np.where((rng.random(GROUPS) < skill)[groups], SCHEME.joint(labels), rng.integers(6, size=GROUPS)[groups])
        predicted[f"t{number}"] = 0.6 * np.eye(6)[guess] + 0.4 * rng.dirichlet(np.ones(6), size=len(groups))
    candidates = {name: Candidate(read_task("joint", SCHEME), {"backbone": "b", "task": "joint"}) for name in predicted}
    return candidates, Known(METRICS["f1_macro"], SCHEME, labels, groups, predicted)


def never(names, trials):
    raise AssertionError("no other transforms were asked for")


def test_members_that_err_on_different_groups_replace_the_best_single_one():
    decision = decide(PLAIN, *make_known(0, [0.7] * 5), never)
    assert decision.choice.significant
    assert decision.final == decision.choice.vote != SINGLE
    assert decision.choice.evaluated[decision.final].score > decision.choice.evaluated[SINGLE].score + 0.1


def test_members_that_all_say_the_same_gain_nothing_and_answer_only_where_they_were_asked_for():
    candidates, known = make_known(1, [0.6])
    names = [f"copy{number}" for number in range(4)]
    alike = Known(known.metric, known.scheme, known.labels, known.groups, dict.fromkeys(names, known.predicted["t0"]))
    candidates = dict.fromkeys(names, candidates["t0"])
    decision = decide(Options(MemberOptions(top=4), steps=()), candidates, alike, never)
    found = {name: one for name, one in decision.choice.evaluated.items() if name != "stack"}
    assert all(evaluated.gain.interval == (0, 0) and evaluated.gain.p == 1 for evaluated in found.values())
    assert (decision.choice.significant, decision.final) == (False, SINGLE)
    asked = Options(MemberOptions(top=4), vote="soft", steps=())
    assert decide(asked, candidates, alike, never).final == "soft"
    assert decide(replace(asked, safe=True), candidates, alike, never).final == SINGLE


@pytest.mark.parametrize("seed", nightly_after(1, range(4)))
def test_the_candidate_with_the_best_score_answers_and_with_safe_only_one_that_is_significantly_better(seed):
    candidates, known = make_known(seed, [0.75, 0.7, 0.6, 0.6])
    options = Options(MemberOptions(top=3), steps=())
    plain, safe = (decide(replace(options, safe=safe), candidates, known, never).choice for safe in (False, True))
    assert plain.evaluated[plain.answer].score == max(evaluated.score for evaluated in plain.evaluated.values())
    assert plain.vote == safe.vote and plain.evaluated == safe.evaluated
    assert safe.answer == (safe.vote if safe.evaluated[safe.vote].gain.interval[0] > 0 else SINGLE)


def test_a_vote_that_comes_out_as_the_best_single_model_gains_nothing_whatever_it_scored_on_the_way():
    candidates, known = make_known(3, [0.6] * 10)
    decision = decide(Options(MemberOptions(top=1), steps=()), candidates, known, never)
    for name in ("best", "soft", "hard", "rank"):
        assert decision.choice.evaluated[name] == decision.choice.evaluated[SINGLE]
    assert decision.choice.evaluated[SINGLE].gain == Gain(0.0, (0.0, 0.0))


def test_with_few_groups_only_robust_votes_are_tried_and_any_that_is_asked_for():
    candidates, known = make_known(0, [0.7] * 5)
    few = known.take(np.flatnonzero(known.groups < ENOUGH_GROUPS - 1))
    decision = decide(PLAIN, candidates, few, never)
    assert {"soft", SINGLE} <= set(decision.choice.evaluated) and not set(decision.few) & set(decision.choice.evaluated)
    assert set(decision.few) == {name for name, vote in ENSEMBLES.items() if not (vote.robust or vote.by_name)}
    assert decide(replace(PLAIN, vote="hard"), candidates, few, never).final == "hard"
    assert decide(PLAIN, candidates, known, never).few == ()


def test_greedy_over_all_trials_finds_members_that_the_best_few_leave_out():
    """Six trials that are right on all groups but their own third, two for each third; the best two share theirs."""
    candidates, known = make_known(0, [0.8] * 6)
    truth, rng = known.truth(SCHEME), np.random.default_rng(0)
    for number, name in enumerate(candidates):
        blind = known.groups % 3 == number // 2
        wrong = rng.dirichlet(np.ones(6), size=len(truth))
        right = np.eye(6)[truth] * (0.97 - 0.02 * number) + (0.03 + 0.02 * number) / 6
        known.predicted[name][:] = np.where(blind[:, None], wrong, right)
    decision = decide(Options(MemberOptions(top=2), steps=()), candidates, known, never)
    assert decision.final == GREEDY_ALL
    assert len(decision.pipelines[GREEDY_ALL].members) == len(decision.lineup.members) > 2
    assert decision.choice.evaluated[GREEDY_ALL].score > decision.choice.evaluated["soft"].score + 0.1


def test_a_better_vote_whose_weights_were_not_kept_is_named_with_its_trials_and_does_not_answer():
    candidates, known = make_known(0, [0.7] * 8)
    unkept = {name: replace(candidate, votes=number < 2) for number, (name, candidate) in enumerate(candidates.items())}
    decision = decide(Options(MemberOptions(top=2), steps=()), unkept, known, never)
    assert {trial for member in decision.lineup.members for trial in member.trials} <= {"t0", "t1"}
    assert set(decision.missing_weights.trials) <= {f"t{number}" for number in range(2, 8)} != set()
    assert decision.missing_weights.evaluated.score > decision.choice.evaluated[decision.choice.answer].score
    assert decide(Options(MemberOptions(top=2), steps=()), candidates, known, never).missing_weights is None


@pytest.mark.parametrize(("name", "groups"), nightly_after(len(METRICS), [(name, groups) for groups in (40, GROUPS) for name in METRICS]))
def test_every_metric_of_a_run_chooses_evaluates_and_says_what_it_has_no_use_for(name, groups):
    candidates, known = make_known(0, [0.7] * 4)
    known = known.take(np.flatnonzero(known.groups < groups))
    options = (
        Options(MemberOptions(top=3), steps=("offsets", "top_two"))
        if METRICS[name].takes == "labels"
        else Options(MemberOptions(top=3), steps=())
    )
    decision = decide(options, candidates, replace(known, metric=METRICS[name]), never)
    assert decision.metric.name == name
    truth = known.truth(SCHEME)
    for index, answer in enumerate(decision.lineup.answers):
        assert decision.member_scores[index] == pytest.approx(METRICS[name].score(truth, answer))
    evaluated = decision.choice.evaluated
    assert evaluated[decision.choice.vote].score == max(one.score for vote, one in evaluated.items() if vote != SINGLE)
    assert (set(decision.untried) == {"hard", "rank"}) is (METRICS[name].takes == "probabilities")
    assert set(decision.untried).isdisjoint(evaluated)


@pytest.mark.parametrize(("words", "named"), [({"vote": "hard"}, "--vote"), ({"vote": "soft", "steps": ("offsets",)}, "--step")])
def test_what_a_metric_of_probabilities_has_no_use_for_is_refused_by_name(words, named):
    candidates, known = make_known(0, [0.7] * 2)
    with pytest.raises(ConfigError) as caught:
        decide(Options(MemberOptions(top=2), **words), candidates, replace(known, metric=METRICS["neg_log_loss"]), never)
    assert [mistake.path for mistake in caught.value.mistakes] == [named]
    assert "neg_log_loss" in str(caught.value)


def test_with_a_metric_that_falls_the_lowest_score_is_chosen():
    candidates, known = make_known(0, [0.2, 0.9, 0.5])
    worst = replace(known, metric=replace(known.metric, direction="minimize"))
    decision = decide(Options(MemberOptions(top=1), vote="best", steps=()), candidates, worst, never)
    assert decision.lineup.members[0].trials == ("t0",)


def test_optimism_is_of_all_trials_that_were_searched_and_not_of_those_that_kept_their_weights():
    candidates, known = make_known(0, [0.6] * 40)
    truth = known.truth(SCHEME)
    best = sorted(candidates, key=lambda name: -known.metric.score(truth, known.predicted[name]))[:5]
    unkept = {name: replace(candidate, votes=name in best) for name, candidate in candidates.items()}
    survivors = {name: candidates[name] for name in best}
    options = Options(MemberOptions(top=3), vote="soft", steps=())
    whole, kept = decide(options, unkept, known, never), decide(options, survivors, known, never)
    assert whole.lineup.members == kept.lineup.members
    assert whole.optimism.members > 40 > kept.optimism.members
    assert whole.optimism.expected > 1.5 * kept.optimism.expected


@pytest.mark.parametrize("seed", nightly_after(1, range(3)))
def test_equally_good_trials_are_not_significantly_different_and_their_best_score_is_known_to_be_too_high(seed):
    decision = decide(Options(MemberOptions(top=8), vote="soft", steps=()), *make_known(seed, [0.6] * 8), never)
    assert decision.alike.sum() >= 6
    assert decision.optimism.expected > 0
    assert list(decision.member_scores) == sorted(decision.member_scores, reverse=True)


def test_a_look_that_sees_more_is_taken_with_its_price():
    candidates, known = make_known(2, [0.4])
    truth = np.eye(6)[SCHEME.joint(known.labels)]
    asked = []

    def predict_validation(names, trials):
        asked.append((names, trials))
        return {name: {trial: truth for trial in trials} for name in names}

    decision = decide(Options(MemberOptions(top=1), vote="soft", steps=("auto",)), candidates, known, predict_validation)
    assert asked == [(("flip", "zoom", "wide"), ("t0",))]
    (step,) = [step for step in decision.steps if step.name.startswith("tta")]
    assert step.used and step.price == len(decision.pipelines[decision.final].looks) > 1
    assert decision.final.endswith(WITH_STEPS)


def test_a_look_that_sees_less_is_not_taken():
    candidates, known = make_known(3, [0.8])
    blind = np.full((GROUPS * SHOTS, 6), 1 / 6)
    spoil = np.roll(np.eye(6)[SCHEME.joint(known.labels)], 1, axis=1)

    def predict_validation(names, trials):
        return {name: {trial: spoil if name == "flip" else blind for trial in trials} for name in names}

    decision = decide(Options(MemberOptions(top=1), vote="soft"), candidates, known, predict_validation)
    (step,) = [step for step in decision.steps if step.name.startswith("tta")]
    assert not step.used and step.evaluated.gain.gain < 0
    assert decision.pipelines[decision.final].looks == ("plain",)


def test_calibration_shows_what_it_does_to_the_calibration_error():
    decision = decide(Options(MemberOptions(top=3), vote="soft", steps=("calibrate",)), *make_known(4, [0.9, 0.8, 0.7]), never)
    (step,) = decision.steps
    before, after = step.error
    assert step.used and after < before
    assert set(decision.pipelines[decision.final].calibrations) == set(decision.pipelines[decision.final].trials)


def test_what_is_not_known_is_refused_with_what_there_is():
    candidates, known = make_known(0, [0.5, 0.5])
    with pytest.raises(ConfigError, match="soft"):
        decide(Options(MemberOptions(), vote="loud"), candidates, known, never)
    with pytest.raises(ConfigError, match="offsets"):
        decide(Options(MemberOptions(), steps=("onsets",)), candidates, known, never)
    with pytest.raises(RunError, match="1 to"):
        decide(Options(MemberOptions(top=0)), candidates, known, never)


def test_transforms_are_averaged_trial_by_trial():
    by_transform = {"plain": {"a": np.array([[1.0, 0.0]])}, "flip": {"a": np.array([[0.0, 1.0]])}}
    np.testing.assert_array_equal(averaged(by_transform, ("plain", "flip"), ("a",))["a"], [[0.5, 0.5]])


def test_the_rules_can_be_compared_on_the_two_halves_of_a_finished_runs_groups(here, capsys):
    compare_rules(worlds=2, run=["faces"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["worlds"] == 2 and -1 <= figures["safe_gain"] <= 1 and 0 <= figures["new_losses"] <= 1


def test_a_run_of_which_all_groups_would_choose_and_none_score_is_refused(here, capsys):
    with pytest.raises(typer.Exit) as refused:
        compare_rules(worlds=1, run=["faces"], groups=5000)
    assert refused.value.exit_code == 2
    assert "--groups" in capsys.readouterr().err


def make_few(seed, skills):
    """Likewise, of so few groups that few votes are tried."""
    candidates, known = make_known(seed, skills)
    return candidates, known.take(np.flatnonzero(known.groups < 60))


def priced(known, **limit):
    """Options whose members cost 1 ms and 1 MB each, and the first trial 2."""
    prices = {name: Price(1.0 + (name == "t0"), 1.0, 1.0 + (name == "t0"), 1.0) for name in known.predicted}
    return replace(PLAIN, member_options=replace(PLAIN.member_options, limit=Limit(prices, **limit)))


def test_under_a_limit_only_what_is_within_it_answers_and_a_limit_above_all_changes_nothing():
    candidates, known = make_few(0, [0.9, 0.7, 0.7, 0.7, 0.7])
    free, wide = (decide(options, candidates, known, never) for options in (PLAIN, priced(known, ms=99.0)))
    assert wide.choice == free.choice and wide.pipelines == free.pipelines
    few = decide(priced(known, ms=1.0), candidates, known, never)
    assert few.final == SINGLE and few.pipelines[SINGLE].trials[0] != "t0" and len(few.pipelines[SINGLE].trials) == 1
    assert "soft" in few.choice.too_dear
    some = decide(
        replace(priced(known, megabytes=3.0), member_options=replace(priced(known, megabytes=3.0).member_options, top=3)),
        candidates,
        known,
        never,
    )
    assert not any(len(some.pipelines[name].trials) > 3 for name in (some.final, SINGLE))


def test_what_nothing_is_cheap_enough_for_or_a_vote_that_is_asked_for_is_not_is_refused_with_the_price():
    candidates, known = make_few(0, [0.7] * 3)
    with pytest.raises(RunError) as caught:
        decide(priced(known, ms=0.5), candidates, known, never)
    assert not missing(str(caught.value), "--max-ms 0.5", "t2, 1 ms")
    with pytest.raises(ConfigError) as refused:
        decide(replace(priced(known, ms=2.0), vote="soft"), candidates, known, never)
    assert not missing(str(refused.value), "--vote", "soft", "--max-ms 2")


def test_under_a_limit_no_more_transforms_are_tried_than_it_allows():
    candidates, known = make_few(0, [0.7])
    asked = []

    def predict(names, trials):
        asked.extend(names)
        return {name: known.predicted for name in names}

    options = replace(priced(known, ms=6.0), steps=("tta",))
    looks = decide(options, candidates, known, predict).pipelines[SINGLE + WITH_STEPS].looks
    assert set(asked) == {"flip", "zoom"} and len(looks) <= 3
    with pytest.raises(ConfigError):
        decide(replace(priced(known, ms=3.0), steps=("tta",)), candidates, known, never)
