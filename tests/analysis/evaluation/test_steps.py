import math
from dataclasses import replace

import numpy as np
import pytest

from analysis.evaluation.calibration import Calibration
from analysis.evaluation.fitted_ensemble import ENSEMBLE_FILE, EnsembleFile, Pipeline
from analysis.evaluation.steps import STEPS, Offsets, Rule, Shares, TopTwo, best_offsets, best_top_two, moves_labels, useful_steps
from analysis.members.compose import Member, Part
from analysis.votes import Mean
from tests.conftest import nightly_after
from trainables.data.targets import Classes, Scheme
from trainables.metrics import METRICS

METRIC = METRICS["f1_macro"]
SCHEME = Scheme((Classes("colour", ("red", "green", "blue")), Classes("weight", ("<10", "10-19", ">=20"), (10, 20))))
CLASSES = SCHEME.classes


def random_step(kind, rng):
    if kind is Offsets:
        return Offsets(tuple(rng.normal(size=CLASSES).tolist()))
    if kind is TopTwo:
        pairs = [(name, one, other) for name in SCHEME.names for one in range(3) for other in range(3) if one != other]
        return TopTwo(SCHEME, tuple(Rule(*pair, gap=float(rng.choice([0.0, rng.uniform(0, 2)]))) for pair in pairs))
    return Shares(SCHEME, {name: tuple(rng.uniform(0, 2, size=3).tolist()) for name in SCHEME.names if rng.random() < 0.7})


KINDS = [Offsets, TopTwo, Shares]


def random_answer(rng, images=60, zeros=True):
    answer = rng.dirichlet(np.full(CLASSES, 0.7), size=images)
    if zeros:
        answer[rng.random(answer.shape) < 0.2] = 0
        answer[:, rng.integers(CLASSES)] += 1e-3
    return answer / answer.sum(axis=1, keepdims=True)


def slow_offsets(step, row):
    changed = [score * math.exp(value) for score, value in zip(row, step.values, strict=True)]
    return [score / sum(changed) for score in changed]


def slow_top_two(step, row):
    first, second = sorted(range(CLASSES), key=lambda one: (-row[one], one))[:2]
    ones, others = divmod(first, 3), divmod(second, 3)
    changed = list(row)
    differing = [column for column in range(2) if ones[column] != others[column]]
    if len(differing) == 1 and row[second] > 0:
        (column,) = differing
        for rule in step.rules:
            speaks = (rule.attribute, rule.likeliest, rule.second) == (SCHEME.names[column], ones[column], others[column])
            if speaks and rule.gap > 0 and math.log(row[first] / row[second]) <= rule.gap:
                changed[first], changed[second] = row[second], row[first]
    return changed


def slow_shares(step, row):
    nothing = (1.0, 1.0, 1.0)
    colours, weights = (step.factors.get(name, nothing) for name in SCHEME.names)
    changed = [score * colours[one // 3] * weights[one % 3] for one, score in enumerate(row)]
    return [score / sum(changed) for score in changed] if sum(changed) > 0 else row


SLOW = {Offsets: slow_offsets, TopTwo: slow_top_two, Shares: slow_shares}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_every_step_gives_the_scores_of_a_slow_reference(kind, seed):
    rng = np.random.default_rng(seed)
    step, answer = random_step(kind, rng), random_answer(rng)
    np.testing.assert_allclose(step(answer), [SLOW[kind](step, row.tolist()) for row in answer], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_every_step_gives_rows_that_sum_to_one_and_leaves_its_input_alone(kind, seed):
    rng = np.random.default_rng(seed)
    step, answer = random_step(kind, rng), random_answer(rng)
    before = answer.copy()
    changed = step(answer)
    assert (changed >= 0).all()
    np.testing.assert_allclose(changed.sum(axis=1), 1)
    assert np.array_equal(answer, before)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_step_makes_of_an_image_depends_on_no_other_image(kind):
    rng = np.random.default_rng(7)
    step, answer = random_step(kind, rng), random_answer(rng)
    alone = np.concatenate([step(answer[[image]]) for image in range(len(answer))])
    assert np.array_equal(step(answer), alone)


@pytest.mark.parametrize("step", [Offsets((0.0,) * CLASSES), TopTwo(SCHEME, (Rule("weight", 2, 1, gap=0.0),)), Shares(SCHEME)])
def test_a_step_of_nothing_changes_nothing(step):
    answer = random_answer(np.random.default_rng(0))
    np.testing.assert_allclose(step(answer), answer)


def test_an_image_to_whose_every_class_the_shares_give_nothing_stays_as_it_is():
    answer = np.zeros((1, CLASSES))
    answer[0, 0] = 1
    assert np.array_equal(Shares(SCHEME, {"colour": (0.0, 1.0, 1.0)})(answer), answer)


def test_the_rule_of_a_contest_winner_is_one_rule_of_top_two():
    """Most probable is the heaviest band, second the band before it with all else alike, and they are at most 0.3 apart: the second."""
    step = TopTwo(SCHEME, (Rule("weight", likeliest=2, second=1, gap=0.3),))
    answer = np.full((4, CLASSES), 0.01)
    heavy, middle, other = SCHEME.joint(np.array([[0, 2], [0, 1], [1, 1]]))
    answer[0, [heavy, middle]] = 0.5, 0.5 * np.exp(-0.29)
    answer[1, [heavy, middle]] = 0.5, 0.5 * np.exp(-0.31)
    answer[2, [heavy, other]] = 0.5, 0.5 * np.exp(-0.1)
    answer[3, [middle, heavy]] = 0.5, 0.5 * np.exp(-0.1)
    assert step(answer).argmax(axis=1).tolist() == [middle, heavy, heavy, middle]


# Fits


def made(seed, groups=150, noise=1.0, skew=None, rare=0.03):
    """Seven images a group, whose classes are all the group's: answers that are right by Bayes for these shares, then skewed."""
    rng = np.random.default_rng(seed)
    shares = np.array([1, 1, rare, 1, 1, rare, 1, 1, rare])
    own = rng.choice(CLASSES, size=groups, p=shares / shares.sum())
    own[:CLASSES] = np.arange(CLASSES)
    target, group = np.repeat(own, 7), np.repeat(np.arange(groups), 7)
    logits = 3 * np.eye(CLASSES)[target] / noise + rng.normal(size=(len(target), CLASSES)) + np.log(shares / shares.sum())
    # Neighbouring bands are the ones that are mistaken for each other.
    logits += (SCHEME.split(np.arange(CLASSES))[:, 0] == SCHEME.split(target)[:, [0]]) * 2.0
    logits += 0 if skew is None else skew
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True), target, group


def score(step, answer, target):
    return METRIC.score(target, step(answer))


UNCHANGED = Offsets((0.0,) * CLASSES)
BEST = {"offsets": best_offsets, "top_two": best_top_two}
SKEW = np.array([0, 0, 1.5] * 3)


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_no_other_offset_of_any_one_class_has_a_higher_macro_f1_than_the_best(seed):
    answer, target, _ = made(seed, groups=40, noise=2.0)
    step = best_offsets(answer, target, SCHEME, METRIC)
    reached = score(step, answer, target)
    for one in range(CLASSES):
        for value in np.linspace(-2, 2, 81):
            other = Offsets((*step.values[:one], float(value), *step.values[one + 1 :]))
            assert score(other, answer, target) <= reached + 1e-9


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_no_other_gap_of_any_one_rule_has_a_higher_macro_f1_than_the_best(seed):
    answer, target, _ = made(seed, groups=40, noise=2.0)
    step = best_top_two(answer, target, SCHEME, METRIC)
    reached = score(step, answer, target)
    for number, rule in enumerate(step.rules):
        for gap in np.linspace(0, 1, 21):
            changed = Rule(rule.attribute, rule.likeliest, rule.second, float(gap))
            other = TopTwo(SCHEME, (*step.rules[:number], changed, *step.rules[number + 1 :]))
            assert score(other, answer, target) <= reached + 1e-9


@pytest.mark.parametrize("name", BEST)
@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_the_best_numbers_never_lower_the_macro_f1_of_the_images_that_they_were_found_on(name, seed):
    answer, target, _ = made(seed, groups=30, noise=2.0)
    assert score(BEST[name](answer, target, SCHEME, METRIC), answer, target) >= score(UNCHANGED, answer, target)


def test_best_offsets_take_back_a_skew():
    answer, target, _ = made(0, groups=600, skew=SKEW)
    whole, _, _ = made(0, groups=600)
    assert score(best_offsets(answer, target, SCHEME, METRIC), answer, target) >= score(UNCHANGED, whole, target)


def test_rules_stand_between_any_two_values_and_between_neighbours_where_values_are_cut_from_a_number():
    answer, target, _ = made(0, groups=20)
    pairs = [(rule.attribute, rule.likeliest, rule.second) for rule in best_top_two(answer, target, SCHEME, METRIC).rules]
    assert pairs == [
        *[("colour", one, other) for one in range(3) for other in range(3) if one != other],
        *[("weight", 0, 1), ("weight", 1, 0), ("weight", 1, 2), ("weight", 2, 1)],
    ]


@pytest.mark.parametrize("name", useful_steps(METRICS["f1_macro"]))
def test_fits_gain_on_other_groups_where_answers_are_skewed(name):
    gains = []
    for seed in range(20):
        step = STEPS[name](*made(seed, skew=SKEW), SCHEME, METRIC)
        answer, target, _ = made(1000 + seed, skew=SKEW)
        gains.append(score(step, answer, target) - score(UNCHANGED, answer, target))
    assert np.mean(gains) > 3 * np.std(gains) / np.sqrt(len(gains))


@pytest.mark.parametrize("name", useful_steps(METRICS["f1_macro"]))
def test_fits_cost_other_groups_next_to_nothing_where_there_is_nothing_to_gain(name):
    kept, whole = [], []
    for seed in range(10):
        learned, fresh = made(seed, rare=1.0, groups=60), made(1000 + seed, rare=1.0, groups=300)
        before = score(UNCHANGED, *fresh[:2])
        kept.append(score(STEPS[name](*learned, SCHEME, METRIC), *fresh[:2]) - before)
        whole.append(score(BEST[name](*learned[:2], SCHEME, METRIC), *fresh[:2]) - before)
    assert np.mean(kept) > -0.004
    assert np.mean(whole) < np.mean(kept)


@pytest.mark.parametrize("name", useful_steps(METRICS["f1_macro"]))
def test_most_fits_keep_nothing_where_there_is_nothing_to_gain(name):
    unchanged = 0
    for seed in range(10):
        answer, target, groups = made(seed, rare=1.0, groups=60)
        unchanged += np.array_equal(STEPS[name](answer, target, groups, SCHEME, METRIC)(answer).argmax(axis=1), answer.argmax(axis=1))
    assert unchanged >= 6


@pytest.mark.parametrize("name", useful_steps(METRICS["f1_macro"]))
def test_the_same_images_in_another_order_give_the_same_fit(name):
    answer, target, groups = made(3, skew=SKEW)
    order = np.random.default_rng(0).permutation(len(target))
    assert STEPS[name](answer[order], target[order], groups[order], SCHEME, METRIC) == STEPS[name](answer, target, groups, SCHEME, METRIC)


@pytest.mark.parametrize("name", useful_steps(METRICS["f1_macro"]))
def test_one_group_proves_nothing_so_nothing_is_changed(name):
    answer, target, _ = made(0, groups=20, skew=SKEW)
    step = STEPS[name](answer, target, np.zeros(len(target), dtype=int), SCHEME, METRIC)
    assert np.array_equal(step(answer).argmax(axis=1), answer.argmax(axis=1))


@pytest.mark.parametrize("name", useful_steps(METRICS["f1_macro"]))
def test_answers_that_are_all_certain_can_be_fitted(name):
    _, target, groups = made(0)
    step = STEPS[name](np.eye(CLASSES)[target], target, groups, SCHEME, METRIC)
    assert score(step, np.eye(CLASSES)[target], target) == 1


@pytest.mark.parametrize("metric", [metric for metric in METRICS.values() if moves_labels(metric)], ids=lambda metric: metric.name)
@pytest.mark.parametrize("name", BEST)
def test_the_best_numbers_never_lower_the_score_by_any_metric_of_labels(name, metric):
    answer, target, _ = made(1, skew=SKEW)
    step = BEST[name](answer, target, SCHEME, metric)
    assert metric.score(target, step(answer)) >= metric.score(target, answer)
    lowest = replace(metric, direction="minimize")
    assert metric.score(target, BEST[name](answer, target, SCHEME, lowest)(answer)) <= metric.score(target, answer)


# Files


def test_every_step_and_calibration_of_a_pipeline_is_the_same_after_it_was_written_and_read():
    rng = np.random.default_rng(0)
    steps = tuple(random_step(kind, rng) for kind in KINDS)
    member = Member(SCHEME, (Part("run/1", SCHEME, SCHEME.names),))
    calibrations = {"run/1": Calibration(SCHEME, (("colour",), ("weight",)), (1.5, 0.7))}
    pipeline = Pipeline(SCHEME, (member,), Mean((1.0,)), ("plain", "flip"), calibrations, steps)
    content = EnsembleFile({"run/1": ("run/trials/1/model.safetensors",)}, pipeline)
    read = ENSEMBLE_FILE.validate_json(ENSEMBLE_FILE.dump_json(content, by_alias=True))
    assert read == content
    assert [type(step) for step in read.pipeline.steps] == KINDS
    answer = random_answer(rng)
    assert np.array_equal(read.pipeline({"run/1": answer}), pipeline({"run/1": answer}))
