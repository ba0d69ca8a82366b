"""What a notebook calls."""

import doctest
import json
from contextlib import contextmanager

import numpy as np
import optuna
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

import sweepvote as sv
import sweepvote.space
from analysis.evaluation.search.summary import write_summary
from search_spaces.read import read_space
from tests.conftest import TINY_SPACE, already
from tests.messages import missing
from trainables.record import read_records

SPACE = yaml.safe_load(TINY_SPACE)


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo, ray_cluster):
    """Two trials of a space that is a dict, searched and voted over."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("notebook"))

        @contextmanager
        def joined(address, *, dashboard):
            yield already(ray_cluster)

        patch.setattr("sweepvote.run.ray_starter", joined)
        patch.setattr("tuner.searching.gpus_here", lambda: 0)
        found = sv.search(
            SPACE, demo, trials=2, name="noted", metric="balanced_accuracy", changes={"run/probe": False, "run/epochs": 2, "run/grace": 1}
        )
        found.vote(top=2, vote="soft")
        yield found


def test_the_examples_of_the_docstrings_hold():
    tried = doctest.testmod(sweepvote.space)
    assert tried.attempted >= 3 and not tried.failed


def test_a_space_built_of_objects_is_the_dict_and_the_file(tmp_path):
    built = {
        "model": {"backbone": sv.choice("resnet18", "resnet34"), "weights": "none"},
        "loss": {"name": sv.choice("focal", "cross_entropy"), "gamma": sv.float(0.5, 4, when={"loss/name": ["focal"]})},
        "optimizer": {"lr": sv.float(1e-5, 1e-2, log=True)},
        "run": {"trials": 3},
        "train": {"batch_size": sv.int(16, 64, step=16)},
    }
    (tmp_path / "built.yaml").write_text(yaml.safe_dump(built, sort_keys=False))
    from_file, from_dict = read_space(tmp_path / "built.yaml"), read_space(built)
    assert [(one.path, one.domain, one.when) for one in from_file.parameters] == [
        (one.path, one.domain, one.when) for one in from_dict.parameters
    ]
    assert (from_file.fixed, from_file.run) == (from_dict.fixed, from_dict.run)


@pytest.mark.parametrize(
    "space, parts",
    [
        ({"extends": "quickstart.yaml", "loss": {"gama": 2}}, ["space: loss/gama", "did you mean loss/gamma"]),
        ({"extends": "quickstart.yaml", "optimizer": {"lr": np.float64(1)}}, ["space: optimizer/lr: ", "no plain value"]),
        ({"extends": "quikstart.yaml"}, ["space: extends: ", "quikstart.yaml", "did you mean quickstart.yaml"]),
        ("quikstart", ["quikstart", "quickstart.yaml"]),
    ],
)
def test_a_space_with_a_mistake_is_refused_with_its_path_and_the_nearest_name(space, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sv.UserError) as caught:
        sv.search(space)
    assert not missing(str(caught.value), *parts) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "given, parts",
    [
        ({"trials": "many"}, ["trials: ", "'many'"]),
        ({"time_budget": "soon"}, ["time_budget: ", "20m"]),
        ({"retries": -1}, ["run/retries: ", "-1"]),
        ({"seed": -1, "cpus_per_trial": 0, "gpus_per_trial": "one"}, ["seed: -1", "cpus_per_trial: 0", "gpus_per_trial: 'one'"]),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_by_the_name_of_its_option(given, parts):
    with pytest.raises(sv.UserError) as caught:
        sv.search("quickstart", **given)
    assert not missing(str(caught.value), *parts)


def test_an_option_that_is_none_is_a_type_error_with_the_nearest():
    with pytest.raises(TypeError, match="finalist'.*finalists"):
        sv.search("quickstart", finalist=2)


def test_a_run_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sv.UserError, match="no run 'faces'"):
        sv.load("faces")


def test_the_trials_are_a_table_with_a_column_for_each_setting_that_varies(run):
    records = read_records(run.folder)
    assert list(run.trials.index) == [record.number for record in records] == [0, 1]
    assert list(run.trials["state"]) == [record.result.state for record in records]
    assert list(run.trials["score"]) == [record.best["score"] for record in records]
    assert list(run.trials["loss/name"]) == ["cross_entropy", "focal"] and run.trials.attrs["metric"] == "balanced_accuracy"
    assert "model/backbone" not in run.trials and run.trials.attrs["shared"]["model/backbone"] == "test_efficientnet"


def test_the_summary_is_what_its_file_holds_and_names_best_and_answer(run):
    summary, written = run.summary, json.loads((run.folder / "summary.json").read_text())
    assert {name: value for name, value in written.items() if name != "format"} == json.loads(json.dumps(summary))
    best = run.trials["score"].idxmax()
    assert summary["best"]["trial"] == best and summary["trials"]["planned"] == 2
    assert summary["answer"]["answer"] and summary["files"]["ensemble"] and summary["command"].startswith("sweepvote.search(")


def test_the_parquet_file_holds_the_trials_with_every_setting(run):
    assert (run.folder / "trials.parquet").is_file()
    write_summary(run.folder)  # other tests may have changed its records since
    written = pd.read_parquet(run.folder / "trials.parquet").set_index("trial")
    trials = run.trials
    for name in ("state", "score", "seconds", "epochs", "loss/name"):
        assert written[name].tolist() == trials[name].tolist()
    assert written["best epoch"].tolist() == trials["best epoch"].tolist()
    assert set(written["model/backbone"]) == {"test_efficientnet"} and pq.read_schema(run.folder / "trials.parquet").metadata[b"run"]
    record = read_records(run.folder)[0]
    assert written["epochs"][0] == len(record.reports) and written["run/epochs"][0] == record.config.epochs
    assert json.loads(written["data/cuts"][0]) == list(record.config.data.cuts)


def test_the_study_is_optunas_with_every_trial_and_its_curve(run):
    study, records = run.study, read_records(run.folder)
    assert isinstance(study, optuna.Study) and study.direction.name == "MAXIMIZE"
    assert study.best_value == max(record.best["score"] for record in records)
    for trial, record in zip(study.trials, records, strict=True):
        assert trial.params["optimizer/lr"] == record.config.optimizer.lr
        assert list(trial.intermediate_values.values()) == [report["score"] for report in record.reports]


def test_a_vote_says_what_it_is_worth_and_answers_for_files_as_for_their_folder(run, demo):
    vote = sv.load("noted").vote(top=2, vote="soft")
    assert (
        vote.answer in vote.scores["answers"]
        and vote.scores["vote"] == "soft"
        and vote.metric == "balanced_accuracy"
        and vote.interval[0] <= vote.score <= vote.interval[1]
    )
    assert len(vote.members) == 2 and vote.against_best_single.keys() >= {"gain", "interval", "significant"}
    assert vote.against_baseline["trial"] == "noted/0"
    folder = demo / "eval" / "images"
    files = sorted(folder.iterdir())[:3]
    answers, all_of_them = vote.predict(files), vote.predict(folder).set_index("image")
    assert list(answers["image"]) == list(map(str, files))
    alike = all_of_them.loc[[file.name for file in files]].reset_index(drop=True)
    pd.testing.assert_frame_equal(answers.drop(columns="image"), alike, rtol=1e-4)
    with pytest.raises(sv.UserError, match="nowhere.jpg"):
        vote.predict(["nowhere.jpg"])


@pytest.mark.nightly
def test_a_run_is_resumed_with_more_trials_and_reported(run):
    more = sv.load(run.folder).resume(trials="+1")
    assert len(more.trials) == 3 and more.card.trials == 3
    assert more.report().is_file()
