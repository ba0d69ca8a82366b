"""Evidence: scores of groups, drawn again and again, and the intervals that follow."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import f1_score

from benchmarks.metrics import GROUPS, SHARES, SHOTS, simulate, simulate_numbers, simulate_tags
from tests.conftest import nightly_after
from trainables.metrics import METRICS, METRICS_OF
from trainables.metrics.evidence import AllImages, draw_groups, evidence, interval, label_evidence, resample

F1 = METRICS["f1_macro"]
SEEDS = nightly_after(2, range(5))
EVERY = [pytest.param(metric, id=f"{kind}-{name}") for kind, own in METRICS_OF.items() for name, metric in own.items()]
OF_SUMS = [one for one in EVERY if one.values[0].is_of_sums]


def draw(seed: int, groups: int = 12, shots: int = 5, classes: int = 4, skill: float = 0.4, kind: str = "classes"):
    """Truth, an answer, and groups of images."""
    rng, images = np.random.default_rng(seed), groups * shots
    whose = np.repeat(np.arange(groups), shots)
    if kind == "tags":
        truth = rng.random((images, classes)) < 0.4
        return truth, np.clip(rng.random((images, classes)) * (1 - skill) + skill * truth, 0, 1), whose
    if kind == "number":
        truth = rng.integers(1, 60, size=images).astype(float)
        return truth, truth[:, None] + 20 * (1 - skill) * rng.standard_normal((images, 1)), whose
    truth = rng.integers(classes, size=images)
    probabilities = rng.dirichlet(np.ones(classes), images) + skill * np.eye(classes)[truth]
    return truth, probabilities / probabilities.sum(axis=1, keepdims=True), whose


def as_whole(metric):
    """The same metric by the slower path: every draw scores all images, repeated as often as drawn."""

    def weighed(truth, prediction, weights):
        rows = [np.repeat(np.arange(len(truth)), one.astype(int)) for one in weights]
        return np.array([metric.of_prediction(truth[own], prediction[own], len(SHARES)) for own in rows])

    return replace(metric, formula=weighed)


@pytest.mark.parametrize("metric", EVERY)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_bootstrap_equals_a_slow_one_with_the_same_draws(metric, seed):
    truth, probabilities, groups = draw(seed, kind=metric.target)
    fast = evidence(metric, truth, probabilities, groups)
    drawn = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12), size=20)
    slow = []
    for times in drawn:
        rows = np.concatenate([np.flatnonzero(groups == group) for group in np.repeat(np.arange(12), times)])
        slow.append(metric.score(truth[rows], probabilities[rows]))
    np.testing.assert_allclose(resample([fast], np.random.default_rng(seed), draws=20)[0], slow, rtol=1e-6, atol=1e-9)
    assert fast.score() == pytest.approx(metric.score(truth, probabilities), abs=1e-12)


@pytest.mark.parametrize("metric", EVERY)
def test_weights_count_an_image_for_as_many_as_they_say(metric):
    truth, probabilities, groups = draw(0, kind=metric.target)
    weights = np.random.default_rng(0).integers(1, 4, size=len(truth))
    rows = np.repeat(np.arange(len(truth)), weights)
    weighed = evidence(metric, truth, probabilities, groups, weights)
    repeated = evidence(metric, truth[rows], probabilities[rows], groups[rows])
    assert weighed.score() == pytest.approx(repeated.score(), abs=1e-9)
    drawn = draw_groups(12, np.random.default_rng(0), 20)
    np.testing.assert_allclose(weighed.resampled(drawn), repeated.resampled(drawn), atol=1e-9)


def test_several_answers_are_scored_on_the_same_groups():
    both = [evidence(F1, *draw(seed)) for seed in (0, 1)]
    together = resample(both, np.random.default_rng(3), draws=20)
    np.testing.assert_array_equal(together, [resample([one], np.random.default_rng(3), draws=20)[0] for one in both])


def test_groups_are_numbered_by_their_ids_whatever_these_are():
    truth, probabilities, groups = draw(0)
    named = np.array([f"group {number:03}" for number in groups], dtype=object)
    one, other = (evidence(F1, truth, probabilities, ids).interval(np.random.default_rng(0)) for ids in (groups, named))
    assert one == other


@pytest.mark.parametrize("metric", OF_SUMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_slope_is_the_derivative_of_the_score(metric, seed):
    summed = metric.summed
    sums = np.ones(12) @ evidence(metric, *draw(seed, kind=metric.target)).sums.astype(float)
    steps = 1e-4 * np.eye(len(sums))
    slow = [(summed.score(sums + step) - summed.score(sums - step)) / 2e-4 for step in steps]
    np.testing.assert_allclose(summed.slope(sums), slow, rtol=1e-5, atol=1e-7)
    assert summed.slope(sums) @ sums == pytest.approx(0, abs=1e-9)  # twice the same images are as good as once


def slow_standard_error(found, times):
    """Of the score of groups that are there so often, from what little more of one of them changes."""
    sums, score, step = found.sums.astype(float), found.metric.summed.score, 1e-5
    rows = sums.toarray() if hasattr(sums, "toarray") else sums
    changes = [(score(times @ rows + step * row) - score(times @ rows - step * row)) / (2 * step) for row in rows]
    return np.sqrt(np.sum(times * np.square(changes)))


@pytest.mark.parametrize("metric", OF_SUMS)
def test_the_interval_of_a_score_equals_a_slow_studentised_bootstrap(metric):
    found = evidence(metric, *draw(0, groups=40, classes=7, skill=0.02, kind=metric.target))
    score, error = found.score(), slow_standard_error(found, np.ones(40))
    distances = []
    for times in np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=50):
        drawn = found.metric.summed.score(times.astype(float) @ found.sums.astype(float))
        distances.append((drawn - score) / max(slow_standard_error(found, times), error / 4))
    low, high = np.percentile(distances, [2.5, 97.5])
    expected = np.clip((score - high * error, score - low * error), *metric.bounds)
    assert found.interval(np.random.default_rng(0), draws=50) == pytest.approx(tuple(expected), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("score", [0, 1])
def test_an_answer_that_is_always_right_or_always_wrong_has_no_width(score):
    truth = np.repeat(np.arange(3), 20)
    found = label_evidence(F1, truth, truth if score else (truth + 1) % 3, np.repeat(np.arange(30), 2), 3)
    assert found.interval(np.random.default_rng(0)) == (score, score)


@pytest.mark.parametrize("mistakes", [1, 2, 5])
def test_few_mistakes_leave_a_short_interval_below_1(mistakes):
    truth = np.repeat(np.arange(3), 70)
    found = label_evidence(F1, truth, np.where(np.arange(210) < mistakes, 1, truth), np.repeat(np.arange(105), 2), 3)
    low, high = found.interval(np.random.default_rng(0))
    assert 0.85 < low < found.score() < high <= 1


@pytest.mark.parametrize("metric", EVERY)
def test_intervals_hold_the_point_estimate_and_narrow_with_more_groups(metric):
    widths = []
    for groups in (40, 640):
        found = evidence(metric, *draw(1, groups=groups, shots=7, classes=7, skill=0.02, kind=metric.target))
        low, high = found.interval(np.random.default_rng(0), draws=100)
        assert low < found.score() < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_images_of_one_group_are_no_independent_evidence():
    truth = np.repeat(np.arange(40) % 2, 7)
    predicted = np.where(np.repeat(np.random.default_rng(0).random(40) < 0.7, 7), truth, 1 - truth)
    alone, together = (
        np.std(resample([label_evidence(F1, truth, predicted, groups, 2)], np.random.default_rng(0)))
        for groups in (np.arange(280), np.repeat(np.arange(40), 7))
    )
    assert together > 2 * alone


def test_the_slower_path_scores_every_draw_as_the_sums_do():
    truth, probabilities = (part[:30].reshape(-1, *part.shape[2:]) for part in simulate(50, seed=0))
    groups = np.repeat(np.arange(30), SHOTS)
    fast, slow = (evidence(metric, truth, probabilities, groups) for metric in (F1, as_whole(F1)))
    assert isinstance(slow, AllImages)
    np.testing.assert_allclose(*(resample([one], np.random.default_rng(0), 50) for one in (fast, slow)), atol=1e-12)
    np.testing.assert_allclose(slow.interval(np.random.default_rng(0)), fast.interval(np.random.default_rng(0)), atol=0.05)


# How often intervals hold the true score: benchmarks/metrics.py draws many more samples


SIMULATED = {"classes": simulate, "tags": simulate_tags, "number": simulate_numbers}
ALL = [(kind, name, metric.is_of_sums) for kind, metrics in METRICS_OF.items() for name, metric in metrics.items()]


@pytest.fixture(scope="module")
def populations():
    return {kind: made(20_000, seed=0) for kind, made in SIMULATED.items()}


@pytest.mark.parametrize(
    ("kind", "name", "samples"),
    [
        *((kind, name, 100 if quick else 8) for kind, name, quick in ALL),
        # These take minutes.
        *(pytest.param(kind, name, 100, marks=pytest.mark.nightly) for kind, name, quick in ALL if not quick),
    ],
)
def test_the_interval_holds_the_true_score_in_about_95_of_100_samples_of_200_groups(kind, name, samples, populations):
    truth, answers = populations[kind]
    metric, width = METRICS_OF[kind][name], answers.shape[-1]

    def images(values):
        return values.reshape(-1, *values.shape[2:])

    true = metric.score(images(truth), answers.reshape(-1, width))
    held = 0
    for seed in range(samples):
        rng = np.random.default_rng(seed)
        chosen = rng.integers(len(truth), size=GROUPS)
        groups = np.repeat(np.arange(GROUPS), SHOTS)
        low, high = evidence(metric, images(truth[chosen]), images(answers[chosen]), groups).interval(rng, draws=300)
        held += low <= true <= high
    low, high = binom.interval(0.98, samples, 0.95)  # what chance leaves of 95 in 100
    assert low <= held <= high


PEAK = """
import resource, sys
import numpy as np
from trainables.metrics import METRICS
from trainables.metrics.evidence import label_evidence
classes = int(sys.argv[1])
rng = np.random.default_rng(0)
truth, groups = rng.integers(classes, size=20_000), rng.integers(2_000, size=20_000)
found = [label_evidence(METRICS["f1_macro"], truth, rng.permutation(truth), groups, classes) for _ in range(9)]
print(found[0].interval(rng, draws=100), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_square_of_the_classes():
    few, many = (
        int(subprocess.run([sys.executable, "-c", PEAK, str(classes)], capture_output=True, text=True, check=True).stdout.split()[-1])
        for classes in (10, 1000)
    )
    assert many - few < 300_000  # kB; counts of classes x classes of every group would take 16 GB an answer


def test_the_interval_is_the_middle_95_percent():
    assert interval(np.arange(1001.0)) == (25.0, 975.0)


def test_macro_f1_of_groups_is_scikit_learns():
    truth, probabilities, groups = draw(2)
    score = f1_score(truth, probabilities.argmax(axis=1), average="macro", labels=range(4), zero_division=0)
    assert evidence(F1, truth, probabilities, groups).score() == pytest.approx(score, abs=1e-12)
