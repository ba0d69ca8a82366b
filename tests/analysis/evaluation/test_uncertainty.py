from dataclasses import dataclass, replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from analysis.evaluation.uncertainty import Gain, indistinguishable, likely_worth, optimism, paired_gain, simultaneous_gains
from tests.conftest import nightly_after
from trainables.metrics import METRICS
from trainables.metrics.evidence import interval, label_evidence, resample

# Shares of the contest's 18 classes in percent, and what a group's seven images show: five, one and one of three kinds.
SHARES = [14.5, 10.8, 2.2, 19.4, 21.6, 2.9, 2.9, 2.2, 0.44, 3.9, 4.3, 0.6, 2.9, 2.2, 0.44, 3.9, 4.3, 0.6]
KINDS = np.reshape(SHARES, (3, 6)).sum(axis=0)
SHOTS = np.array([0, 0, 0, 0, 0, 1, 2])
CLASSES = len(SHARES)
METRIC = METRICS["f1_macro"]
GROUPS = 204
SEEDS = range(100)


@dataclass(frozen=True)
class Population:
    """So many groups that their macro F1 is the true one."""

    truth: np.ndarray  # (groups, 7)
    predicted: np.ndarray  # (members, groups, 7)

    @classmethod
    def of(cls, groups, skills):
        """Members of these skills. A group's images err together, and some groups are hard for every member."""
        rng = np.random.default_rng(0)
        kind = rng.choice(6, size=groups, p=KINDS / KINDS.sum())
        hard, rare = rng.normal(size=groups), np.isin(kind, [2, 5])
        predicted = []
        for skill in skills:
            group = 0.7 * hard + 0.7 * rng.normal(size=groups)
            wrong = 0.8 * group[:, None] + 0.6 * rng.normal(size=(groups, 7)) > (skill - 0.8 * rare)[:, None]
            taken_for = (kind + rng.integers(1, 6, size=groups)) % 6
            slip = np.where(rng.random((groups, 7)) < 0.05, rng.integers(1, 3, size=(groups, 7)), 0)
            predicted.append(6 * ((SHOTS + slip) % 3) + np.where(wrong, taken_for[:, None], kind[:, None]))
        return cls(6 * SHOTS + kind[:, None], np.stack(predicted))

    def true_scores(self):
        """Macro F1 (members,)."""
        return np.array([METRIC.of_prediction(self.truth.ravel(), one.ravel(), CLASSES) for one in self.predicted])

    def sample(self, rng):
        """The evidence of each member for a few groups."""
        chosen = rng.integers(len(self.truth), size=GROUPS)
        truth, groups = self.truth[chosen].ravel(), np.repeat(np.arange(GROUPS), 7)
        return [label_evidence(METRIC, truth, one.ravel(), groups, CLASSES) for one in self.predicted[:, chosen]]


@pytest.fixture(scope="module")
def equals():
    """Fifty members of equal skill."""
    return Population.of(20_000, [0.8] * 50)


def covered(limits, value):
    return limits[0] <= value <= limits[1]


@pytest.mark.parametrize("skill", [0.8, 1.5])
def test_the_interval_of_a_score_holds_the_true_macro_f1_in_at_least_90_of_100_samples(skill):
    population = Population.of(100_000, [skill])
    (true,) = population.true_scores()
    hits = [covered(population.sample(rng)[0].interval(rng, draws=400), true) for rng in map(np.random.default_rng, SEEDS)]
    assert sum(hits) >= 90


@pytest.mark.nightly
def test_the_interval_of_optimism_holds_the_true_one_in_at_least_90_of_100_samples_of_equal_members(equals):
    true_scores, hits, expected, true = equals.true_scores(), [], [], []
    for rng in map(np.random.default_rng, SEEDS):
        members = equals.sample(rng)
        scores = np.array([one.score() for one in members])
        found = optimism(members, rng, draws=200)
        true.append(scores.max() - true_scores[scores.argmax()])
        hits.append(covered(found.interval, true[-1]))
        expected.append(found.expected)
    assert sum(hits) >= 90
    assert np.mean(true) > 0.03
    assert 0.7 * np.mean(true) < np.mean(expected) < 1.3 * np.mean(true)


@pytest.mark.parametrize(
    "skills",
    nightly_after(1, [[0.8] * 12, np.linspace(0.2, 1.2, 12), [0.8] * 6 + [0.0] * 6]),
    ids=["equal", "spread", "two kinds"],
)
def test_the_truly_best_is_among_those_that_are_not_significantly_different_in_at_least_90_of_100_samples(skills):
    population = Population.of(20_000, skills)
    best = population.true_scores().argmax()
    kept = [indistinguishable(population.sample(rng), rng, draws=200) for rng in map(np.random.default_rng, SEEDS)]
    assert np.sum(kept, axis=0)[best] >= 90


def test_members_far_behind_are_distinguished_and_the_best_on_these_groups_never_is():
    population = Population.of(20_000, [1.0, 0.95, -0.5, -0.5])
    for rng in map(np.random.default_rng, range(10)):
        members = population.sample(rng)
        kept = indistinguishable(members, rng)
        assert kept.tolist()[2:] == [False, False]
        assert kept[np.argmax([one.score() for one in members])]


def test_where_one_member_is_clearly_the_best_its_score_is_hardly_optimistic(equals):
    far = Population.of(20_000, [1.5, *[0.0] * 11])
    rng = np.random.default_rng(0)
    assert abs(optimism(far.sample(rng), rng).expected) < 0.01 < optimism(equals.sample(rng), rng).expected


def test_copies_of_one_member_are_no_more_optimistic_than_the_one(equals):
    one = equals.sample(np.random.default_rng(0))[:1]
    alone, copies = (optimism(one * times, np.random.default_rng(1)) for times in (1, 20))
    assert alone.expected == pytest.approx(copies.expected)
    assert alone.interval == pytest.approx(copies.interval)
    assert indistinguishable(one * 20, np.random.default_rng(1)).all()


def slow_macro_f1(truth, predicted):
    return f1_score(truth.ravel(), predicted.ravel(), labels=range(CLASSES), average="macro", zero_division=0)


@pytest.mark.parametrize("seed", range(3))
def test_gains_equal_a_slow_bootstrap_of_both_answers_on_the_same_groups(seed):
    population = Population.of(30, [0.4, 1.0])
    groups, (first, second) = np.repeat(np.arange(30), 7), population.predicted
    found = paired_gain(
        *(label_evidence(METRIC, population.truth.ravel(), one.ravel(), groups, CLASSES) for one in (second, first)),
        np.random.default_rng(seed),
        draws=40,
    )
    drawn = np.random.default_rng(seed).multinomial(30, np.full(30, 1 / 30), size=40)
    gains = []
    for times in drawn:
        rows = np.repeat(np.arange(30), times)
        gains.append(slow_macro_f1(population.truth[rows], second[rows]) - slow_macro_f1(population.truth[rows], first[rows]))
    assert found.gain == pytest.approx(slow_macro_f1(population.truth, second) - slow_macro_f1(population.truth, first))
    low, high = interval(np.array(gains))
    wide = found.interval[1] - found.interval[0]
    assert found.interval[0] <= low < high <= found.interval[1], "as wide as the draws, and wider, as they come from a few groups"
    assert wide < 1.6 * (high - low)


@pytest.mark.nightly
def test_the_best_of_eight_worthless_answers_seldom_seems_a_gain_though_alone_it_often_would(equals):
    alone = together = 0
    for seed in SEEDS:
        reference, *answers = equals.sample(np.random.default_rng(seed))[:9]
        best = np.argmax([one.score() for one in answers])
        alone += paired_gain(answers[best], reference, np.random.default_rng(seed), draws=400).interval[0] > 0
        found = simultaneous_gains(answers, reference, np.random.default_rng(seed), draws=400)
        together += found[best].interval[0] > 0
    assert together <= 6
    assert alone >= 10


@pytest.mark.parametrize("seed", nightly_after(2, range(5)))
def test_simultaneous_intervals_hold_all_at_once_in_95_of_100_draws_and_in_hardly_more(seed, equals):
    rng = np.random.default_rng(seed)
    reference, *answers = equals.sample(rng)[:6]
    found = simultaneous_gains(answers, reference, np.random.default_rng(seed), draws=1000)
    *drawn, base = resample([*answers, reference], np.random.default_rng(seed), 1000)
    inside = [(gain.interval[0] <= one - base) & (one - base <= gain.interval[1]) for gain, one in zip(found, drawn, strict=True)]
    assert 0.94 <= np.all(inside, axis=0).mean() <= 0.985
    assert np.ptp(np.mean(inside, axis=1)) < 0.02, "all leave out about the same share of the draws"


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_one_answer_and_copies_of_it_have_the_interval_of_the_one(equals, copies):
    one, reference = equals.sample(np.random.default_rng(0))[:2]
    alone = paired_gain(one, reference, np.random.default_rng(1), draws=4000)
    for gain in simultaneous_gains([one] * copies, reference, np.random.default_rng(1)):
        assert gain.gain == alone.gain
        assert gain.interval == pytest.approx(alone.interval, abs=1e-3)


def test_an_answer_that_is_the_reference_gains_nothing_for_certain_and_widens_no_interval(equals):
    one, reference = equals.sample(np.random.default_rng(0))[:2]
    with_it, without = (simultaneous_gains(given, reference, np.random.default_rng(1)) for given in ([one, reference], [one]))
    assert with_it == [*without, Gain(0.0, (0.0, 0.0))]


@pytest.mark.parametrize("limits, holds", [((-0.1, 0.1), False), ((0.0, 0.1), False), ((0.01, 0.1), True), ((-0.2, -0.1), True)])
def test_a_gain_is_significant_when_its_interval_leaves_zero_out(limits, holds):
    assert Gain(0.0, limits).significant is holds


@pytest.mark.parametrize("groups", nightly_after(1, [20, 40]))
def test_of_few_groups_too_intervals_hold_all_true_gains_at_once_in_at_least_90_of_100_samples(groups, monkeypatch):
    monkeypatch.setattr(f"{__name__}.GROUPS", groups)
    population = Population.of(20_000, [1.5, 1.4, 1.5, 1.6, 1.5])
    *true, reference = population.true_scores()
    hits = []
    for rng in map(np.random.default_rng, SEEDS):
        *answers, base = population.sample(rng)
        found = simultaneous_gains(answers, base, rng, draws=400)
        hits.append(all(covered(one.interval, worth - reference) for one, worth in zip(found, true, strict=True)))
    assert sum(hits) >= 90


def test_p_is_below_5_percent_where_the_interval_leaves_zero_out_and_nowhere_else(equals):
    for seed in range(20):
        reference, *answers = equals.sample(np.random.default_rng(seed))[:9]
        for gain in simultaneous_gains(answers, reference, np.random.default_rng(seed), draws=400):
            assert gain.significant is (gain.p < 0.05) or abs(gain.p - 0.05) < 0.01


@pytest.mark.parametrize("members, groups", nightly_after(1, [(50, 60), (50, 204), (200, 204)]))
def test_the_corrected_score_of_the_picked_best_has_an_interval_that_holds_its_worth_in_at_least_90_of_100_samples(
    members, groups, monkeypatch
):
    monkeypatch.setattr(f"{__name__}.GROUPS", groups)
    population = Population.of(10_000, [0.8] * members)
    true_scores, hits, told, plain = population.true_scores(), [], [], []
    for rng in map(np.random.default_rng, range(40)):
        found = population.sample(rng)
        scores = np.array([one.score() for one in found])
        worth = true_scores[scores.argmax()]
        best = optimism(found, rng, draws=200)
        hits.append(covered(best.corrected_interval, worth))
        told.append(best.corrected - worth)
        plain.append(scores.max() - worth)
    assert sum(hits) >= 36
    assert abs(np.mean(told)) < np.mean(plain) / 2


def test_the_gain_over_itself_is_nothing_for_certain(equals):
    (one,) = equals.sample(np.random.default_rng(0))[:1]
    assert paired_gain(one, one, np.random.default_rng(0)) == Gain(0.0, (0.0, 0.0))


def test_scores_far_apart_are_their_own_worth_and_scores_within_luck_share_one():
    far = likely_worth(np.array([0.2, 0.5, 0.8]), np.full(3, 0.01))
    np.testing.assert_allclose(far, np.eye(3), atol=1e-6)
    scores = 0.5 + 0.02 * np.random.default_rng(0).normal(size=200)
    near = likely_worth(scores, np.full(200, 0.02))
    np.testing.assert_allclose(near.sum(axis=1), 1)
    assert (near @ scores).std() < 0.3 * scores.std()


def test_the_same_generator_gives_the_same_answers(equals):
    members = equals.sample(np.random.default_rng(0))[:5]
    for ask in (optimism, lambda *given: indistinguishable(*given).tolist(), lambda members, rng: paired_gain(*members[:2], rng)):
        assert ask(members, np.random.default_rng(3)) == ask(members, np.random.default_rng(3))


def test_a_metric_that_falls_is_better_where_it_is_lower(equals):
    worse, better = sorted(equals.sample(np.random.default_rng(0))[:2], key=lambda one: one.score())
    errors = replace(METRIC, direction="minimize", formula=replace(METRIC.summed, score=lambda sums: 1 - METRIC.summed.score(sums)))
    up, down = (
        paired_gain(*(replace(one, metric=metric) for one in (better, worse)), np.random.default_rng(1)) for metric in (METRIC, errors)
    )
    assert up.gain > 0
    assert (down.gain, *down.interval) == pytest.approx((up.gain, *up.interval))
    rising, falling = (
        indistinguishable([replace(one, metric=metric) for one in (better, worse)], np.random.default_rng(1)) for metric in (METRIC, errors)
    )
    assert rising.tolist() == falling.tolist()
