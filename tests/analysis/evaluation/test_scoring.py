import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from analysis.evaluation.scoring import absent_classes, class_table, plain_findings, score_answers
from analysis.figures.confusion import confusion_figure
from analysis.members.trials import Sample
from trainables.data.layouts.contest import contest_scheme
from trainables.metrics import METRICS
from trainables.metrics.confusion import confusion

METRIC = METRICS["f1_macro"]
SCHEME = contest_scheme((30, 60))
EVERY = list(range(SCHEME.classes))


def case(seed, groups=25, shots=4, skill=0.5, classes=SCHEME.classes):
    """A sample and the scores (images, classes) of a model that is right in about `skill` of it."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=groups * shots)
    parts = np.full(len(truth), "holdout")
    sample = Sample(tuple(map(str, range(len(truth)))), np.repeat(np.arange(groups), shots), SCHEME.split(truth), SCHEME, parts)
    right = rng.random(len(truth)) < skill
    answer = np.where(right[:, None], np.eye(SCHEME.classes)[truth], rng.dirichlet(np.ones(SCHEME.classes), size=len(truth)))
    return sample, truth, answer


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_those_of_scikit_learn(seed):
    sample, truth, answer = case(seed)
    score = score_answers({"one": answer}, sample, SCHEME, METRIC, seed)["one"]
    predicted = answer.argmax(axis=1)
    assert score.score == pytest.approx(f1_score(truth, predicted, labels=EVERY, average="macro", zero_division=0))
    assert score.accuracy == pytest.approx((truth == predicted).mean())
    assert score.interval[0] <= score.score <= score.interval[1] + 0.1
    ages = f1_score(truth % 3, predicted % 3, average="macro")
    assert score.target_scores["age"] == pytest.approx(ages)


def test_the_gain_of_an_answer_over_itself_is_nothing_on_every_draw():
    sample, _, answer = case(0)
    scores = score_answers({"one": answer, "same": answer.copy()}, sample, SCHEME, METRIC, 0)
    assert (scores["same"].gain.gain, scores["same"].gain.interval) == (0, (0, 0))
    assert not scores["same"].gain.significant


def test_a_much_better_answer_is_significant_and_the_worse_way_round_too():
    sample, truth, poor = case(0, groups=60, skill=0.1)
    perfect = np.eye(SCHEME.classes)[truth]
    up = score_answers({"poor": poor, "perfect": perfect}, sample, SCHEME, METRIC, 0)["perfect"]
    down = score_answers({"perfect": perfect, "poor": poor}, sample, SCHEME, METRIC, 0)["poor"]
    assert up.gain.significant and down.gain.significant
    assert up.gain.gain == -down.gain.gain > 0
    np.testing.assert_allclose(up.gain.interval, [-down.gain.interval[1], -down.gain.interval[0]])


def test_paired_gains_are_narrower_than_the_answers_own_intervals():
    sample, _, answer = case(3, groups=60)
    other = answer.copy()
    other[0] = np.roll(other[0], 1)
    score = score_answers({"one": answer, "other": other}, sample, SCHEME, METRIC, 0)["other"]
    assert score.gain.interval[1] - score.gain.interval[0] < 0.5 * (score.interval[1] - score.interval[0])


def test_the_same_seed_gives_the_same_intervals_and_another_gives_others():
    sample, _, answer = case(1)
    first, again, other = (score_answers({"one": answer}, sample, SCHEME, METRIC, seed)["one"].interval for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("seed", range(5))
def test_the_class_table_equals_scikit_learn_class_by_class(seed):
    sample, truth, answer = case(seed, classes=16)
    table = class_table(answer, sample, SCHEME)
    predicted = answer.argmax(axis=1)
    references = {"precision": precision_score, "recall": recall_score, "F1": f1_score}
    for column, reference in references.items():
        expected = reference(truth, predicted, labels=EVERY, average=None, zero_division=0)
        np.testing.assert_allclose(table[column].fillna(0), expected)
    assert table["recall"].isna().tolist() == [number not in truth for number in EVERY]
    assert table["photos"].tolist() == np.bincount(truth, minlength=SCHEME.classes).tolist()
    assert table["people"].tolist() == [len({group for group, c in zip(sample.groups, truth, strict=True) if c == n}) for n in EVERY]


def test_classes_without_images_are_named():
    sample, _, _ = case(0, groups=100, classes=16)
    assert absent_classes(sample, SCHEME) == SCHEME.class_names()[16:]


@pytest.mark.parametrize("names", [("mask", "gender", "age"), ("gender",), ("mask", "age")])
def test_the_confusion_figure_writes_every_count_and_its_share_of_the_row(names):
    scheme = SCHEME.part(names)
    rng = np.random.default_rng(0)
    counts = confusion(rng.integers(scheme.classes, size=150), rng.integers(scheme.classes, size=150), scheme.classes)
    figure = confusion_figure(counts, scheme, "title", "subtitle")
    (axes,) = figure.axes
    written = {(text.xy[1], text.xy[0], text.get_text()) for text in axes.texts}
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = counts[row, column] / counts[row].sum()
        assert {(row, column, str(counts[row, column])), (row, column, f"{share:.0%}")} <= written
    assert [label.get_text() for label in axes.get_xticklabels()] == scheme.class_names()
    assert [text.get_text() for text in figure.texts][:2] == ["title", "subtitle"]


# Of six classes guessing names the true one among five nearly always.
@pytest.mark.parametrize("name", sorted(METRICS.keys() - {"top_5_accuracy"}))
def test_an_answer_that_is_always_the_same_and_one_that_guesses_are_reported_as_such_and_a_good_one_is_not(name):
    sample, truth, answer = case(0, groups=60, skill=0.8, classes=6)
    known, _, guesses = case(1, groups=60, skill=0.0, classes=6)
    always = np.tile(np.eye(SCHEME.classes)[3], (len(truth), 1))
    good, constant, luck = (plain_findings(one, sample, known, SCHEME, METRICS[name], 0) for one in (answer, always, guesses))
    assert good == []
    assert len(constant) == 2 and "always" in constant[0]
    assert all(f"{attribute.name} {value}" in constant[0] for attribute, value in zip(SCHEME.targets, named(3), strict=True))
    assert len(luck) == 1 and "guessing" in luck[0]


def named(number):
    """The values of a joint class."""
    return [attribute.values[value] for attribute, value in zip(SCHEME.targets, SCHEME.split(np.array([number]))[0], strict=True)]


def test_guessing_is_seldom_taken_for_knowledge():
    known, *_ = case(100, groups=60, classes=6)
    said = []
    for seed in range(30):
        sample, truth, _ = case(seed, groups=60, skill=0.0, classes=6)
        guesses = np.eye(SCHEME.classes)[np.random.default_rng(seed + 1000).integers(6, size=len(truth))]
        said.append(bool(plain_findings(guesses, sample, known, SCHEME, METRIC, 0)))
    assert sum(said) >= 27


def test_one_target_that_is_always_answered_alike_is_named():
    sample, truth, _ = case(2, groups=40, skill=1.0)
    answer = np.eye(SCHEME.classes)[truth - truth % 3 + 1]
    (first, *_) = plain_findings(answer, sample, sample, SCHEME, METRIC, 0)
    assert "age" in first and "mask" not in first
