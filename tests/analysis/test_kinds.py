"""Every command on runs that predict tags or a number, and on one that predicts both beside classes."""

import ast
import csv
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.pages.model_card import CARD
from tests.analysis.model_cards import HEADINGS, answered
from tests.conftest import nightly_after
from tests.messages import missing
from trainables.data.choices import as_choices
from trainables.data.corrections import correct
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig

TAGS = ("covered", "female", "old")
KINDS = {
    "tags": ({"tags": TAGS}, "average_precision"),
    "labels of tags": ({"tags": TAGS}, "f1_macro"),
    "number": ({"number": "years"}, "neg_mean_absolute_error"),
    "all three": ({"target": ("mask",), "tags": TAGS[1:], "number": "years"}, "f1_macro"),
}
TRIALS = [{}, {"model": {"backbone": "test_resnet", "weights": "none"}}, {"task": "heads", "view": {"size": [40, 32]}}]


@pytest.fixture(scope="session")
def table(people, tmp_path_factory):
    """The drawn people's images as a table with tags and their years, and a test part without labels."""
    images = read_images(people, DataConfig(cuts=(30, 60)))
    folder = tmp_path_factory.mktemp("tables") / "drawn"
    shutil.copytree(images.root, folder / "images")
    file = folder / "labels.csv"
    with file.open("w", newline="") as text:
        rows = csv.writer(text)
        rows.writerow(["image", "person", "mask", "years", *TAGS])
        for name, group, labels, number in zip(images.ids, images.names, images.labels, images.numbers, strict=True):
            mask = images.scheme.targets[0].values[labels[0]]
            rows.writerow([f"images/{name}", group, mask, f"{number:g}", int(labels[0] == 0), labels[1], int(labels[2] == 2)])
    return file


@pytest.fixture(scope="session", params=KINDS)
def made(request, make_run, table, tmp_path_factory):
    asked, metric = KINDS[request.param]
    runs = tmp_path_factory.mktemp("kinds") / "runs"
    return make_run(runs, "drawn", TRIALS, data=table, cuts=(), metric=metric, group="person", **asked)


@pytest.fixture
def at_home(made, tmp_path, monkeypatch):
    shutil.copytree(made.folder, tmp_path / "runs" / "drawn")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def run(app, *words):
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == 0, result.output + result.stderr
    return result.stdout


def test_an_ensemble_votes_is_scored_and_answers_for_other_images(at_home, made, table):
    from analysis.ensemble.__main__ import app
    from analysis.predict.__main__ import app as predict
    from analysis.report.__main__ import app as report

    assert run(app, "--run", "drawn", "--details").startswith("Answer: ")
    folder = at_home / "runs" / "drawn" / "ensemble"
    scores = json.loads((folder / "scores.json").read_text())
    answer = scores["answers"][scores["answer"]]
    assert answer["interval"][0] <= answer["score"] <= answer["interval"][1]
    assert any((folder / name).is_file() for name in ("confusion.png", "precision_recall.png", "number.png"))
    assert len(pd.read_csv(folder / "per_class.csv"))
    assert not missing((folder / CARD).read_text(), *HEADINGS, f"{answer['score']:.3f}", *scores["attributes"])
    out = at_home / "answers.csv"
    run(predict, "--ensemble", folder, "--photos", table.parent / "images", "--out", out)
    answered, scheme = pd.read_csv(out), made.images.scheme
    own = scheme.of_kind(scheme.kinds[0])
    assert len(answered) == len(made.images) and set(own.names) <= set(answered.columns)
    if own.kind == "tags":
        said = [set(text.split(";")) if isinstance(text, str) else set() for text in answered[own.names[0]]]
        assert said == [{tag for tag in own.class_names() if row[f"P({tag})"] >= 0.5} for _, row in answered.iterrows()]
    if own.kind == "number":
        assert answered[own.names[0]].between(-100, 200).all() and not any(name.startswith("P(") for name in answered.columns)
    assert "report" in run(report, "--run", "drawn")


@pytest.mark.parametrize("made", nightly_after(3, ["tags", "number", "all three", "labels of tags"]), indirect=True)
def test_mistakes_are_those_of_the_kind(at_home, made):
    from analysis.mistakes.__main__ import app
    from analysis.report.__main__ import app as report

    own = made.images.scheme.of_kind(made.images.scheme.kinds[0])
    printed = run(app, "--run", "drawn")
    folder = at_home / "runs" / "drawn" / "mistakes"
    found, errors = json.loads((folder / "mistakes.json").read_text()), pd.read_csv(folder / "confident.csv")
    assert found["kind"] == own.kind and len(errors) == found["errors"] and (folder / "index.html").is_file()
    truth = {name: row for name, row in zip(made.images.ids, made.images.truth(own), strict=True)}
    if own.kind == "number":
        assert errors["off"].is_monotonic_decreasing and found["rate"] == pytest.approx(errors["off"].mean(), rel=1e-4)
        assert [truth[name] for name in errors["photo"]] == pytest.approx(errors["true"].tolist(), abs=0.1)
        assert np.abs(errors["true"] - errors["predicted"]).tolist() == pytest.approx(errors["off"].tolist(), abs=0.2)
    if own.kind == "tags":
        wrong = [(name, own.class_names()[place]) for name, row in truth.items() for place in range(len(row))]
        told = {(row.photo, row.true.removeprefix("no ")): not row.true.startswith("no ") for row in errors.itertuples()}
        assert set(told) <= set(wrong) and len(told) == len(errors)
        assert all(truth[name][own.class_names().index(tag)] == there for (name, tag), there in told.items())
        tags = pd.read_csv(folder / "tags.csv")
        assert tags["name"].tolist() == own.class_names() and (tags["missed"] + tags["extra"]).sum() == len(errors)
        assert found["rate"] == pytest.approx(len({name for name, _ in told}) / found["images"], rel=1e-6)
    assert printed and "report" in run(report, "--run", "drawn")


def test_label_issues_are_of_classes_and_tags_and_their_table_corrects_the_labels(at_home, made):
    from analysis.suspects.__main__ import app

    images = made.images
    own = images.scheme.of_kind(images.scheme.kinds[0])
    if own.kind == "number":
        result = CliRunner().invoke(app, ["--run", "drawn"])
        assert result.exit_code == 2 and "drawn" in result.stderr and own.names[0] in result.stderr
        return
    run(app, "--run", "drawn")
    issues = pd.read_csv(at_home / "runs" / "drawn" / "suspects" / "suspects.csv")
    assert set(issues["attribute"]) <= {target.name for target in as_choices(images).scheme.targets}
    table = at_home / "relabel.csv"
    rows = issues[["photo", "attribute", "suggested", "given"]].drop_duplicates(["photo", "attribute"])
    rows.set_axis(["photo", "attribute", "value", "was"], axis=1).to_csv(table, index=False)
    corrected = correct(str(table), images, {})
    assert (corrected.labels != as_choices(images).labels).sum() == len(rows) > 0 and not corrected.left_out


def test_what_would_help_is_said_of_every_kind_and_what_cannot_be_known_of_it(at_home, made):
    from analysis.advise.__main__ import app

    assert run(app, "--run", "drawn")
    found = json.loads((at_home / "runs" / "drawn" / "advice.json").read_text())
    number = made.images.scheme.kinds[0] == "number"
    assert isinstance(found["ceiling"], str) == isinstance(found["needs"], str) == number
    assert not number or "number" in found["ceiling"] + found["needs"]


def test_leaks_are_looked_for_whatever_is_predicted(at_home, made):
    from analysis.leaks.__main__ import app

    run(app, "--run", "drawn")
    found = json.loads((at_home / "runs" / "drawn" / "leaks" / "leaks.json").read_text())
    assert (found["probe"] is None) == (made.images.scheme.kinds[0] != "classes") and len(found["meaning"]) > 1


def test_a_soup_of_no_two_trials_alike_is_refused(at_home, made):
    from analysis.soup.__main__ import app

    assert CliRunner().invoke(app, ["--run", "drawn"]).exit_code == 2


@pytest.mark.nightly
def test_an_ensemble_is_exported_with_the_answers_that_it_gives_by_the_lines_of_its_card(at_home):
    from analysis.ensemble.__main__ import app
    from analysis.export.__main__ import app as export

    run(app, "--run", "drawn")
    run(export, "--ensemble", at_home / "runs" / "drawn" / "ensemble", "--out", at_home / "model.onnx")
    assert len(ast.literal_eval(answered(at_home / "runs" / "drawn" / "ensemble" / CARD, at_home / "model.onnx"))) == 2
