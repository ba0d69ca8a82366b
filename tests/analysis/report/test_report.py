import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.evaluation.search.history import costs, history, parallel_lines, ranked, rungs, thinned
from analysis.evaluation.search.importance import Branch, importances, leading
from analysis.evaluation.search.reading import SearchedTrial
from analysis.evaluation.search.space import Dimension
from analysis.evaluation.search.values import setting_scores
from analysis.figures.colours import DARK, LIGHT
from analysis.figures.confusion import confusion_figure
from analysis.figures.search import answers_figure, history_figure
from analysis.figures.style import STEPS, as_svg, shade, text_on
from analysis.pages.tables import TOO_SMALL, number_range, percent_range, signed
from analysis.report.answer import scores_of
from analysis.report.topics.answer import baseline_words, caveats, gain_words, lead_words, sample_words
from search_spaces.read import read_space
from tests.messages import missing
from trainables.data.targets import Classes, Scheme
from trainables.metrics import METRICS
from trainables.record import Decision
from tuner.searchers.random import random_draws

METRIC = METRICS["f1_macro"]
SEEDS = range(20)
SPACE = (
    Dimension("loss/name", "choice", ("cross_entropy", "focal")),
    Dimension("loss/gamma", "float", (0.5, 4.0), when=(("loss/name", ("focal",)),)),
    Dimension("optimizer/lr", "float", (1e-5, 1e-2), log=True),
    Dimension("train/batch_size", "choice", (16, 32)),
)


def make_trials(count, seed, score=None):
    """Trials with drawn values, some of them without a score; `score` gives it from the values, else it is random."""
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        values = {
            "loss/name": str(rng.choice(["cross_entropy", "focal"])),
            "optimizer/lr": float(10 ** rng.uniform(-5, -2)),
            "train/batch_size": int(rng.choice([16, 32])),
        }
        if values["loss/name"] == "focal":
            values["loss/gamma"] = float(rng.uniform(0.5, 4))
        epochs = int(rng.integers(1, 5))
        scores = rng.uniform(0.1, 0.9, epochs) if score is None else np.full(epochs, score(values))
        curve = tuple(enumerate(map(float, scores), start=1))
        state = str(rng.choice(["finished", "stopped", "interrupted", "failed"]))
        reported = score is not None or rng.random() < 0.8
        decisions = tuple(
            Decision(epoch, curve[epoch - 1][1], 3, 0.2, bool(rng.random() < 0.5)) for epoch in (1, 2) if reported and epoch <= epochs
        )
        found.append(
            SearchedTrial(
                number,
                state if reported else "failed",
                "as it was",
                max(one for _, one in curve) if reported else None,
                curve if reported else (),
                float(rng.uniform(10, 100)),
                str(rng.choice(["CPU (x, AVX2)", "NVIDIA H100"])),
                values,
                values,
                decisions,
            )
        )
    return found


# How the search went


@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_so_far_is_the_highest_score_up_to_there_and_hours_are_added(seed):
    trials = make_trials(15, seed)
    for place, step in enumerate(history(trials, METRIC)):
        before = trials[: place + 1]
        assert step.number == trials[place].number and step.score == trials[place].score
        assert step.best == max((trial.score for trial in before if trial.score is not None), default=None)
        assert step.hours == pytest.approx(sum(trial.seconds for trial in before) / 3600)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rung_counts_the_trials_that_were_evaluated_there_and_those_that_passed(seed):
    trials = make_trials(15, seed)
    evaluated = [decision for trial in trials for decision in trial.decisions]
    assert [rung.epoch for rung in rungs(trials)] == sorted({decision.epoch for decision in evaluated})
    for rung in rungs(trials):
        own = [decision.passed for decision in evaluated if decision.epoch == rung.epoch]
        assert (rung.evaluated, rung.passed) == (len(own), own.count(True))


@pytest.mark.parametrize("seed", SEEDS)
def test_costs_by_outcome_add_up_to_all_trials(seed):
    trials = make_trials(20, seed)
    found = costs(trials, gpus_per_trial=0.5, metric=METRIC)
    assert {cost.state: cost.trials for cost in found} == Counter(trial.state for trial in trials)
    assert sum(cost.hours for cost in found) == pytest.approx(sum(trial.seconds for trial in trials) / 3600)
    on_gpu = sum(trial.seconds for trial in trials if trial.device == "NVIDIA H100")
    assert sum(cost.gpu_hours for cost in found) == pytest.approx(on_gpu / 3600 / 2)
    assert sum(cost.gpu_hours for cost in costs(trials, None, METRIC)) == pytest.approx(on_gpu / 3600)
    for cost in found:
        own = [trial for trial in trials if trial.state == cost.state]
        assert cost.epochs == sum(len(trial.curve) for trial in own)
        assert cost.best == max((trial.score for trial in own if trial.score is not None), default=None)


@pytest.mark.parametrize("seed", SEEDS)
def test_lines_run_from_the_worst_trial_to_the_best_and_leave_out_what_was_not_drawn(seed):
    trials = make_trials(15, seed)
    lines = parallel_lines(trials, SPACE, METRIC)
    assert [line.score for line in lines] == sorted(trial.score for trial in trials if trial.score is not None)
    by_number = {trial.number: trial for trial in trials}
    for line in lines:
        values = by_number[line.number].values
        assert line.places[0] == {"cross_entropy": 0.0, "focal": 1.0}[values["loss/name"]]
        assert (line.places[1] is None) == (values["loss/name"] == "cross_entropy")
        assert line.places[2] == pytest.approx((np.log10(values["optimizer/lr"]) + 5) / 3)


def test_trials_of_the_same_score_are_ranked_by_number():
    trials = make_trials(10, 0, score=lambda values: 0.5)
    assert [trial.number for trial in ranked(trials, METRIC)] == list(range(10))


@pytest.mark.parametrize(("count", "most"), [(0, 5), (4, 5), (5, 5), (6, 5), (1000, 7)])
def test_thinning_keeps_the_order_and_both_ends(count, most):
    kept = thinned(range(count), most)
    assert kept == sorted(set(kept)) and len(kept) == min(count, most)
    assert not count or (kept[0], kept[-1]) == (0, count - 1)


# What varied


@pytest.mark.parametrize("file", sorted(Path("search_spaces").rglob("*.yaml")), ids=lambda file: file.stem)
def test_every_searched_value_of_a_shipped_space_is_a_dimension_that_takes_what_is_drawn(file):
    space = read_space(file)
    dimensions = {one.path: one for one in map(Dimension.of, space.parameters)}
    assert list(dimensions) == [parameter.path for parameter in space.parameters]
    for values in random_draws(space, {}, seed=0, count=10):
        for path, value in space.drawn(values).items():
            assert dimensions[path].takes(value) and 0 <= dimensions[path].place(value) <= 1


def test_a_value_of_an_earlier_space_that_is_no_number_is_not_taken_for_one():
    dimension = SPACE[2]
    assert dimension.takes(0.001)
    assert not any(map(dimension.takes, ("auto", True, -1.0)))


def test_with_a_metric_that_falls_the_lowest_score_is_the_best():
    trials, errors = make_trials(15, 0), replace(METRIC, direction="minimize")
    scored = sorted(trial.score for trial in trials if trial.score is not None)
    assert [trial.score for trial in ranked(trials, errors)] == scored
    assert [line.score for line in parallel_lines(trials, SPACE, errors)] == scored[::-1]
    assert history(trials, errors)[-1].best == scored[0]
    assert min(cost.best for cost in costs(trials, None, errors) if cost.best is not None) == scored[0]
    assert all(choice.best == min(choice.scores) for choice in setting_scores(ranked(trials, errors), SPACE, errors)[0].choices)


# Which settings decided


@pytest.mark.parametrize("seed", range(5))
def test_the_setting_that_the_score_depends_on_is_the_important_one(seed):
    trials = make_trials(60, seed, score=lambda values: -abs(np.log10(values["optimizer/lr"]) + 3.5))
    whole, branch = importances(trials, SPACE, METRIC)
    assert whole.when == "every trial" and whole.trials == 60
    assert [path for path, _ in whole.shares][0] == "optimizer/lr"
    assert {path for path, _ in whole.shares} == {"loss/name", "optimizer/lr", "train/batch_size"}
    assert branch.when == "loss/name = focal" and branch.own == ("loss/gamma",)
    assert branch.trials == sum(trial.values["loss/name"] == "focal" for trial in trials)
    assert {path for path, _ in branch.shares} == {"loss/gamma", "optimizer/lr", "train/batch_size"}
    for found in (whole, branch):
        shares = [share for _, share in found.shares]
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)


def test_fewer_than_ten_trials_give_no_importances():
    assert all(branch.shares is None for branch in importances(make_trials(9, 0, score=lambda values: 0.5), SPACE, METRIC))
    assert importances(make_trials(10, 0, score=lambda values: values["optimizer/lr"]), SPACE, METRIC)[0].shares is not None


def test_the_leading_shares_keep_the_branch_s_own_settings_and_add_up():
    branch = Branch("loss/name = focal", ("g",), 50, (("a", 0.5), ("b", 0.3), ("c", 0.15), ("g", 0.03), ("d", 0.02)))
    found = leading(branch, most=2)
    assert [name for name, _ in found] == ["a", "b", "g", "2 others"]
    assert sum(share for _, share in found) == pytest.approx(1)
    assert leading(branch, most=5) == list(branch.shares)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_each_choice_gave_equals_a_group_by(seed):
    trials = ranked(make_trials(25, seed), METRIC)
    table = pd.DataFrame([{**trial.values, "score": trial.score} for trial in trials])
    found = {setting.path: setting for setting in setting_scores(trials, SPACE, METRIC)}
    for path in ("loss/name", "train/batch_size"):
        groups = table.groupby(table[path].astype(str))["score"]
        for choice in found[path].choices:
            own = groups.get_group(choice.value)
            assert len(choice.scores) == len(own)
            assert choice.median == pytest.approx(own.median()) and choice.best == own.max()
            assert (choice.interval is None) == (len(own) < 5)
            assert choice.interval is None or own.min() <= choice.interval[0] <= choice.median <= choice.interval[1] <= own.max()
    focal = table[table["loss/name"] == "focal"]
    assert found["loss/gamma"].trials == len(focal)
    assert found["loss/gamma"].points == tuple(zip(focal["loss/gamma"], focal["score"], strict=True))


def test_a_choice_that_no_trial_drew_is_listed_with_none():
    trials = [trial for trial in make_trials(20, 0, score=lambda values: 0.5) if trial.values["train/batch_size"] == 16]
    (sixteen, thirty_two) = setting_scores(trials, SPACE[3:], METRIC)[0].choices
    assert (thirty_two.value, thirty_two.scores, thirty_two.median, thirty_two.best) == ("32", (), None, None)
    assert len(sixteen.scores) == len(trials)


# The answer

ANSWER = {"score": 0.7, "interval": [0.6, 0.8], "accuracy": 0.75, "target_scores": {"shape": 0.9}, "gain": 0.05}
SINGLE = {**ANSWER, "score": 0.65, "gain": 0.0, "gain_interval": [0.0, 0.0], "distinguishable": False}


def scores(**changes):
    found = {
        "vote": "soft",
        "answer": "soft",
        "answers": {"best single": SINGLE, "soft": {**ANSWER, "gain_interval": [0.01, 0.09], "distinguishable": True}},
        "holdout": {"photos": 1260, "people": 180},
        "members": [{"name": "faces/3", "weight": 0.4, "valid_score": 0.6, "holdout_score": 0.61, "like_the_best": True}],
    }
    return scores_of({**found, **changes})


def test_the_answer_is_shown_with_its_score_interval_and_gain():
    assert not missing(lead_words(scores()), "Soft vote", "macro F1 0.700 (95 % CI 0.600 to 0.800)")
    assert "1,260 test images of 180 groups" in sample_words(scores()) and "75.0%" in sample_words(scores())
    assert not missing(gain_words(scores()), "best single model", "+0.050 macro F1 (95 % CI +0.010 to +0.090), significant")
    unclear = {"best single": SINGLE, "soft": {**ANSWER, "gain_interval": [-0.01, 0.09]}}
    assert gain_words(scores(answers=unclear)).count("(95 % CI -0.010 to +0.090), not significant") == 1


def test_an_interval_that_says_nothing_is_left_out_in_words():
    wide = {"best single": SINGLE, "soft": {**ANSWER, "interval": [0.1, 0.9], "gain_interval": [-0.4, 0.5]}}
    for words in (lead_words(scores(answers=wide)), gain_words(scores(answers=wide))):
        assert TOO_SMALL in words and "0.9" not in words and "0.5" not in words.replace("+0.050", "")
    assert number_range((0.0, 0.58)) == percent_range((0.0, 0.58)) == TOO_SMALL
    assert number_range((-9.0, -1.0), METRICS["neg_log_loss"].bounds) == "-9.000 to -1.000", "what has no end is not too wide"


def test_a_difference_that_three_digits_do_not_show_is_none():
    alike = {"best single": SINGLE, "soft": {**ANSWER, "gain": -0.0001, "gain_interval": [-0.01, 0.01]}}
    assert "no difference" in gain_words(scores(answers=alike)) and "0.0" not in gain_words(scores(answers=alike))
    assert [signed(value) for value in (0.0501, -0.0501, 0.0001, -0.0001)] == ["+0.050", "-0.050", "0.000", "0.000"]


def test_the_gain_over_the_baseline_is_shown_where_there_is_one():
    assert scores().baseline is None and scores(baseline=None).baseline is None
    found = scores(baseline={"trial": "faces/0", "valid_score": 0.5, "gain": 0.08, "gain_interval": [0.02, 0.14], "distinguishable": True})
    words = baseline_words(found.baseline, found.metric)
    assert "faces/0" in words and "+0.080 macro F1 (95 % CI +0.020 to +0.140), significant" in words


def test_where_the_best_single_model_answers_that_is_shown():
    assert lead_words(scores(answer="best single")).startswith("Best single model: ")
    assert "soft vote" not in gain_words(scores(answer="best single", answers={"best single": SINGLE}))
    assert "significantly better: soft vote" in gain_words(scores(answer="best single"))


def test_how_the_answer_was_chosen_is_shown_as_far_as_it_is_known():
    assert list(caveats(scores())) == []
    (often,) = caveats(scores(holdout={"questions": [{"vote": "soft"}, {"vote": "hard"}]}))
    assert "2 different calls" in often
    steps = [{"name": "tta: plain, flip", "used": True}, {"name": "offsets", "used": False}]
    unsure, taken, luck = caveats(
        scores(supported=False, steps=steps, members_to_choose_from=25, optimism={"expected": 0.021, "members": 40})
    )
    assert "not significantly better" in unsure
    assert "test-time augmentation: plain, flip" in taken
    assert "the best of 40" in luck and "0.021" in luck
    corrected = {"expected": 0.021, "members": 40, "corrected": 0.6, "corrected_interval": [0.5, 0.7]}
    (luck,) = caveats(scores(optimism=corrected))
    assert "0.600 without it (95 % CI 0.500 to 0.700)" in luck
    assert list(caveats(scores(optimism={"expected": -0.002, "members": 40}))) == [], "nothing is optimistic by less than nothing"


def test_scores_of_an_older_ensemble_are_read_as_far_as_they_go():
    older = {"vote": "hard", "answers": {"best single": {"score": 0.5}, "hard": {"score": 0.6}}}
    older["members"] = [{"trials": [{"run": "runs/masks", "number": 3}, {"run": "ages", "number": 1}], "valid_score": 0.4}]
    found = scores_of(older)
    assert found.chosen.name == "hard vote" and found.chosen.interval is None
    assert [member.name for member in found.members] == ["masks/3 x ages/1"]
    assert found.confusion is None and found.calibration is None and found.shifts == ()
    assert "not known" in gain_words(found)
    with pytest.raises(KeyError):
        scores_of({"vote": "hard"})


# Colours and pictures


def contrast(one, other):
    """Of two colours, 1 to 21. Source: Web Content Accessibility Guidelines 2.2."""

    def luminance(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        return np.dot([part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts], [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_shade_has_one_name_and_a_dark_counterpart():
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)


@pytest.mark.parametrize("shades", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read_upon_paper_and_upon_every_step_of_the_scale(shades):
    assert all(contrast(shades[name], shades["paper"]) >= 4.5 for name in ("ink", "pale", "blue"))
    assert all(contrast(shades[name], shades["paper"]) >= 2.5 for name in ("orange", "red", "purple"))
    names = {shade: name for name, shade in LIGHT.items()}
    for step in range(STEPS):
        share = step / (STEPS - 1)
        assert contrast(shades[names[shade(share)]], shades[names[text_on(share)]]) >= 4.5, step


def test_a_picture_for_a_page_names_its_colours_and_its_ids_are_its_own():
    svg = as_svg(history_figure(history(make_trials(10, 0), METRIC), METRIC), "history")
    tags = "".join(re.findall(r"<[^>]+>", svg))
    assert not set(re.findall(r"#[0-9a-f]{6}", tags)) & set(LIGHT.values())
    assert set(re.findall(r"var\(--(\w+)\)", tags)) <= LIGHT.keys()
    ids = re.findall(r'\bid="([^"]+)"', tags)
    assert len(ids) == len(set(ids)) and all(name.startswith("history-") for name in ids)
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', tags)) <= set(ids)
    assert svg == as_svg(history_figure(history(make_trials(10, 0), METRIC), METRIC), "history")


def test_names_in_a_picture_are_text_whatever_they_look_like():
    hostile = ["$x^", "<script>alert(1)</script>", f'id="a" {LIGHT["blue"]}', "& % \\frac{"]
    found = scores(answers={"best single": SINGLE, **dict.fromkeys(hostile, {**ANSWER, "gain_interval": [0, 1]})})
    svg = as_svg(answers_figure(found.answers, found.chosen.name, found.metric), "answers")
    assert "<script" not in svg and "&lt;script&gt;alert(1)" in svg
    assert "$x^" in svg and f'id="a" {LIGHT["blue"]}' in svg and "\\frac{" in svg
    scheme = Scheme((Classes("shape", tuple(hostile)),))
    svg = as_svg(confusion_figure(np.arange(16).reshape(4, 4), scheme, "$", "_{"), "confusion")
    assert "<script" not in svg and "$x^" in svg
