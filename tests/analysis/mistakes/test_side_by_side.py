"""Two models beside each other, image by image."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.evaluation.uncertainty import paired_gain
from analysis.members.trials import load_runs
from analysis.mistakes.__main__ import app
from analysis.mistakes.side_by_side import UNKNOWN, Pair, compare, table_of
from tests.messages import missing
from trainables.metrics import METRICS
from trainables.metrics.evidence import evidence
from trainables.record import MODEL, trial_folder
from trainables.seeding import generator

CLASSES = ("red", "green", "blue")
NAMES = ("a", "b")


def call(*words):
    return CliRunner().invoke(app, list(words))


def refused(*words):
    """What is said, where the exit code is that of a user's mistake and nothing was written."""
    result = call(*words)
    assert result.exit_code == 2 and "Traceback" not in result.stderr and not result.stdout
    return result.stderr


def drawn(seed, images=60, known=True):
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=images)
    answers = rng.dirichlet(np.ones(3), size=(2, images)) + 0.3 * np.eye(3)[truth]
    truth = truth if known else np.full(images, UNKNOWN)
    return Pair(
        NAMES, CLASSES, [f"{row}.jpg" for row in range(images)], np.arange(images) // 2, truth, answers / answers.sum(axis=2, keepdims=True)
    )


@pytest.mark.parametrize("seed", range(5))
def test_each_row_has_the_two_most_probable_classes_of_each_model_and_who_is_right(seed):
    pair = drawn(seed)
    pair.truth[::7] = UNKNOWN
    found = table_of(pair)
    assert sorted(found["image"]) == sorted(pair.images)
    for row in found.to_dict("records"):
        place = pair.images.index(row["image"])
        tops = []
        for name, answer in zip(NAMES, pair.answers[:, place], strict=True):
            second, first = np.argsort(answer)[-2:]
            assert (row[f"{name}: first"], row[f"{name}: second"]) == (CLASSES[first], CLASSES[second])
            assert (row[f"{name}: P(first)"], row[f"{name}: P(second)"]) == (answer[first], answer[second])
            tops.append(first)
        true = pair.truth[place]
        right = [name for name, top in zip(NAMES, tops, strict=True) if top == true]
        expected = "" if true == UNKNOWN else {0: "neither", 1: "".join(right), 2: "both"}[len(right)]
        assert (row["agree"], row["right"]) == ("yes" if tops[0] == tops[1] else "no", expected)
        assert row["label"] == ("" if true == UNKNOWN else CLASSES[true])
    differ = (found["agree"] == "no").tolist()
    assert differ == sorted(differ, reverse=True)


@pytest.mark.parametrize("seed", range(3))
def test_who_is_right_where_they_differ_is_counted_with_the_interval_of_the_difference(seed):
    pair = drawn(seed)
    found = compare(pair, generator(0, "bootstrap"))
    tops = pair.answers.argmax(axis=2)
    rows = np.flatnonzero(tops[0] != tops[1])
    assert (found.images, found.differ, found.known) == (60, len(rows), len(rows))
    assert found.right == tuple((tops[:, rows] == pair.truth[rows]).sum(axis=1))
    assert found.neither == ((tops[:, rows] != pair.truth[rows]).all(axis=0)).sum()
    both = [evidence(METRICS["accuracy"], pair.truth[rows], answer[rows], pair.groups[rows]) for answer in pair.answers]
    assert found.gain == paired_gain(*both, generator(0, "bootstrap"))
    assert found.gain.gain == pytest.approx((found.right[0] - found.right[1]) / len(rows))


def test_nothing_is_said_of_who_is_right_without_labels_and_no_interval_of_few_groups():
    found = compare(drawn(0, known=False), generator(0, "bootstrap"))
    assert found.known == 0 and found.gain is None and "not known" in str(found)
    few = compare(drawn(0, images=8), generator(0, "bootstrap"))
    assert few.gain is None and "too few groups" in str(few)


def test_two_models_that_answer_alike_differ_nowhere():
    pair = drawn(0)
    pair.answers[1] = pair.answers[0]
    found = compare(pair, generator(0, "bootstrap"))
    assert found.differ == 0 and found.right == (0, 0)
    assert table_of(pair)["image"].tolist() == pair.images


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name, pair, number, columns=CLASSES):
    table = pd.DataFrame(pair.answers[number], columns=list(columns))
    table.insert(0, "image", pair.images)
    table.sample(frac=1, random_state=number).to_csv(name, index=False)


def test_two_tables_and_the_labels_of_a_third(folder):
    pair = drawn(1)
    for number, name in enumerate(("a.csv", "b.csv")):
        write(name, pair, number, [f"P({one})" for one in CLASSES])
    labels = pd.DataFrame({"image": pair.images, "class": np.array(CLASSES)[pair.truth], "person": pair.groups})
    labels.iloc[:50].to_csv("labels.csv", index=False)
    result = call("--side-by-side", "a.csv", "b.csv", "--truth", "labels.csv", "--out", "both.csv", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    tops = pair.answers.argmax(axis=2)
    differ = tops[0] != tops[1]
    assert (found["differ"], found["known"], found["files"]) == (differ.sum(), differ[:50].sum(), ["both.csv"])
    assert found["gain_interval"][0] <= found["gain"] <= found["gain_interval"][1]
    table = pd.read_csv("both.csv", keep_default_na=False).set_index("image").loc[pair.images]
    assert table["a.csv: first"].tolist() == np.array(CLASSES)[tops[0]].tolist()
    assert (table["label"] == "").sum() == 10
    labels.assign(**{"class": pair.truth}).drop(columns="person").to_csv("labels.csv", index=False)
    assert json.loads(call("--side-by-side", "a.csv", "b.csv", "--truth", "labels.csv", "--json").stdout)["known"] == differ.sum()


def test_what_is_wrong_with_tables_and_labels_is_named_at_once(folder):
    pair = drawn(1)
    write("a.csv", pair, 0)
    pd.DataFrame({"image": pair.images[1:], "ans": 1}).to_csv("labels.csv", index=False)
    said = refused("--side-by-side", "a.csv", "labels.csv", "--truth", "gone.csv")
    assert not missing(said, "labels.csv", "classes alone", "gone.csv", "0.jpg")
    write("b.csv", pair, 1)
    pd.DataFrame({"image": ["elsewhere.jpg"], "class": ["pink"]}).to_csv("truth.csv", index=False)
    assert not missing(refused("--side-by-side", "a.csv", "b.csv", "--truth", "truth.csv"), "pink", "elsewhere.jpg", "truth.csv")
    assert "a.csv" in refused("--side-by-side", "a.csv", "a.csv")
    assert "--run" in refused("--side-by-side", "a.csv", "b.csv", "--run", "faces")
    assert not missing(refused("--side-by-side", "a.csv", "faces/0", "--top", "2", "--out", "no/where.csv"), "faces/0", "--top", "--out")
    assert not missing(refused("--truth", "truth.csv", "--out", "x.csv"), "--truth", "--out")
    assert not (folder / "side_by_side.csv").exists()


def test_two_trials_are_compared_on_validation_or_on_the_holdout_which_is_noted(here):
    (trial_folder(here / "runs/faces", 1) / MODEL).unlink()
    result = call("--run", "faces", "--side-by-side", "faces/0", "faces/1", "--json")
    assert result.exit_code == 0, result.output
    runs = load_runs([here / "runs/faces"])
    answers = [next(trial for trial in (*runs.trials, *runs.unkept) if trial.name == f"faces/{number}").valid for number in (0, 1)]
    tops, truth = np.stack(answers).argmax(axis=2), runs.valid.truth(runs.scheme)
    found = json.loads(result.stdout)
    assert (found["images"], found["differ"]) == (len(truth), (tops[0] != tops[1]).sum())
    table = pd.read_csv("side_by_side.csv").set_index("image").loc[list(runs.valid.ids)]
    names = np.array(runs.scheme.class_names())
    assert table["label"].tolist() == names[truth].tolist() and table["faces/1: first"].tolist() == names[tops[1]].tolist()
    assert not (here / "runs/faces/holdout.json").exists()
    assert not missing(refused("--side-by-side", "faces/1", "faces/9", "--part", "holdout"), "faces/1 has no weights", "faces/9")
    assert call("--side-by-side", "faces/0", "faces/2", "--part", "holdout", "--out", "held.csv").exit_code == 0
    assert sorted(pd.read_csv("held.csv")["image"]) == sorted(runs.holdout.ids)
    (question,) = json.loads((here / "runs/faces/holdout.json").read_text())["questions"]
    assert question["side_by_side"] == ["faces/0", "faces/2"]


def test_trials_of_different_targets_are_refused_with_the_targets(here, make_run):
    make_run(here / "runs", "ages", [{"task": "age"}])
    assert not missing(refused("--run", "faces", "--run", "ages", "--side-by-side", "faces/0", "ages/0"), "ages/0: age", "faces/0: mask")
