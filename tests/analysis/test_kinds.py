"""Every command on runs that predict tags or a number, and on one that predicts both beside classes."""

import csv
import json
import shutil
from importlib import import_module

import pandas as pd
import pytest
from typer.testing import CliRunner

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


@pytest.mark.parametrize("command", ["leaks", "mistakes", "soup", "suspects"])
def test_a_command_that_is_about_classes_says_so_of_other_targets(at_home, made, command):
    app = import_module(f"analysis.{command}.__main__").app
    result = CliRunner().invoke(app, ["--run", "drawn"])
    about_classes = made.images.scheme.kinds[0] == "classes"
    # No two trials are alike, so there is no soup of them, whatever they predict.
    assert result.exit_code == (0 if about_classes and command != "soup" else 2), result.output
    assert command == "soup" or about_classes or str(at_home / "runs" / "drawn") in result.stderr or "runs/drawn" in result.stderr


@pytest.mark.nightly
def test_an_ensemble_is_exported_with_the_answers_that_it_gives(at_home):
    from analysis.ensemble.__main__ import app
    from analysis.export.__main__ import app as export

    run(app, "--run", "drawn")
    run(export, "--ensemble", at_home / "runs" / "drawn" / "ensemble", "--out", at_home / "model.onnx")
    assert (at_home / "model.onnx" / "ensemble.onnx").is_file()
