"""Every command takes a run's address in place of its name, and leaves what it writes beside the run."""

import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.ensemble.__main__ import app as ensemble
from analysis.evaluation.fitted_ensemble import read_ensemble
from analysis.export.__main__ import app as export
from analysis.leaks.__main__ import app as leaks
from analysis.mistakes.__main__ import app as mistakes
from analysis.predict.__main__ import app as predict
from analysis.report.__main__ import app as report
from analysis.suspects.__main__ import app as suspects
from tests.conftest import nightly_after
from tests.s3 import BUCKET, s3_server
from trainables.storage import open_folder, write_atomically


@pytest.fixture(scope="module")
def store():
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        yield f"s3://{BUCKET}/runs"


@pytest.fixture(scope="module")
def stored(store, faces):
    """The address of a run whose answer the ensemble command has written."""
    address = f"{store}/faces"
    for file in faces.folder.rglob("*"):
        if file.is_file():
            write_atomically(open_folder(f"{address}/{file.relative_to(faces.folder)}"), file.read_bytes())
    printed = call(ensemble, "--run", address, "--top", 2, "--vote", "soft", "--step", "none")
    assert f"{address}/ensemble/" in printed
    return address


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty folder, in which nothing but what was asked for may appear."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    return tmp_path


def call(app, *words):
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result.output


def written(address):
    return sorted(info.path.removeprefix(f"{open_folder(address).path}/") for info in open_folder(address).files())


def test_the_ensemble_lies_beside_the_trials_and_names_their_models(stored, elsewhere):
    found = read_ensemble(open_folder(f"{stored}/ensemble"))
    assert {str(file) for files in found.models.values() for file in files} <= {f"{stored}/{name}" for name in written(stored)}
    assert set(written(f"{stored}/ensemble")) >= {"ensemble.json", "scores.json", "submission.csv", "confusion.png", "per_class.csv"}
    assert list(elsewhere.iterdir()) == []


def test_images_are_answered_by_an_ensemble_in_the_store(stored, people, elsewhere):
    call(predict, "--ensemble", f"{stored}/ensemble", "--photos", people / "eval" / "images", "--out", "answers.csv")
    answers = pd.read_csv(elsewhere / "answers.csv")
    assert len(answers) == len(list((people / "eval" / "images").iterdir()))


def test_images_in_the_store_are_predicted_like_those_of_this_machine(stored, store, people, elsewhere, monkeypatch):
    folder = people / "eval" / "images"
    names = sorted(file.name for file in folder.iterdir())[:3]
    for name in names:
        write_atomically(open_folder(f"{store}/photos/{name}"), (folder / name).read_bytes())
    monkeypatch.setenv("SWEEPVOTE_CACHE", str(elsewhere / "cache"))
    call(predict, "--ensemble", f"{stored}/ensemble", "--photos", folder, "--out", "all.csv")
    for place in (f"{store}/photos", f"{store}/photos/{names[0]}"):
        call(predict, "--ensemble", f"{stored}/ensemble", "--photos", place, "--out", "answers.csv")
        answers, all_of_them = (pd.read_csv(elsewhere / f"{name}.csv", index_col=0) for name in ("answers", "all"))
        pd.testing.assert_frame_equal(answers, all_of_them.loc[answers.index], rtol=1e-4)
    result = CliRunner().invoke(predict, ["--ensemble", f"{stored}/ensemble", "--photos", f"{store}/nothing", "--out", "answers.csv"])
    assert result.exit_code == 2 and f"{store}/nothing" in result.output


@pytest.mark.nightly
def test_an_ensemble_in_the_store_is_exported_to_this_machine(stored, elsewhere):
    call(export, "--ensemble", f"{stored}/ensemble", "--out", "here")
    assert [file.name for file in (elsewhere / "here").iterdir()] == ["ensemble.onnx"]


@pytest.mark.parametrize(
    "app, file",
    nightly_after(
        2,
        [
            (report, "report/index.html"),
            (leaks, "leaks/pairs.csv"),
            (suspects, "suspects/index.html"),
            (mistakes, "mistakes/confident.png"),
        ],
    ),
    ids=["report", "leaks", "suspects", "mistakes"],
)
def test_what_a_command_finds_lies_beside_the_run(app, file, stored, elsewhere):
    printed = call(app, "--run", stored)
    assert file in written(stored)
    assert f"{stored}/{file}" in printed
    assert list(elsewhere.iterdir()) == []
