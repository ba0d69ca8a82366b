"""A run, as MLflow's own client finds it again."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from analysis.evaluation.search.exported import exported
from analysis.export_mlflow import __main__ as command
from analysis.members.trials import load_runs
from tests.analysis.ensembles import mean_of, write
from tests.messages import missing
from trainables.record import MODEL, read_record, read_records, trial_folder, write_json, write_reports


@pytest.fixture(scope="module")
def run(faces, tmp_path_factory):
    """A run with an ensemble of two of its four trials."""
    folder = shutil.copytree(faces.folder, tmp_path_factory.mktemp("exported") / "runs" / "faces")
    write(folder, mean_of(load_runs([folder]).trials[:2]))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Where MLflow keeps runs in files: no server and no database has to come up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        yield str(tmp_path_factory.mktemp("store") / "mlruns")
        mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def sent(run, store):
    """What the first export says."""
    return export(run, store)


def export(run, uri, *words):
    result = CliRunner().invoke(command.app, [str(run), "--uri", uri, "--json", *words])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*words):
    result = CliRunner().invoke(command.app, list(map(str, words)))
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return result.stderr


def children(client, sent):
    (experiment,) = client.search_experiments(filter_string=f"name = '{sent['experiment']}'")
    found = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{sent['run']}'")
    return {one.data.tags["sweepvote.trial"]: one for one in found}


def assert_all_is_there(run, sent):
    client = MlflowClient(sent["tracking"])
    found, records = children(client, sent), read_records(run)
    assert set(found) == {str(record.number) for record in records} == set(sent["trials"])
    for record in records:
        child = found[str(record.number)]
        assert child.data.params["optimizer/lr"] == str(record.config.optimizer.lr)
        assert json.loads(child.data.params["data/cuts"]) == list(record.config.data.cuts)
        curve = client.get_metric_history(child.info.run_id, "f1_macro")
        assert [(point.step, point.value) for point in curve] == [(report["epoch"], report["score"]) for report in record.reports]
        assert child.data.metrics["best/f1_macro"] == record.best["score"]
        assert {MODEL, "config.json", "valid.npz"} <= {file.path for file in client.list_artifacts(child.info.run_id)}
    parent = client.get_run(sent["run"])
    assert parent.info.run_name == "faces" and parent.data.params["metric"] == "f1_macro"
    assert {"run.json", "split.csv", "ensemble"} <= {file.path for file in client.list_artifacts(sent["run"])}


def test_each_trial_is_a_child_with_its_settings_curve_and_files(run, sent):
    assert_all_is_there(run, sent)


def test_the_model_answers_as_the_ensemble_does_when_the_run_is_gone(run, sent, people, tmp_path):
    from sweepvote import Vote

    files = [str(file) for file in sorted((people / "eval" / "images").iterdir())]
    expected = Vote(run / "ensemble").predict(files, device="cpu")
    away = run.rename(run.parent / "away")
    try:
        model = mlflow.pyfunc.load_model(sent["model"])
        pd.testing.assert_frame_equal(model.predict(files), expected)
        pd.testing.assert_frame_equal(model.predict(pd.DataFrame({"image": files})), expected)
    finally:
        away.rename(run)


def test_exported_again_nothing_is_doubled(run, store, sent):
    again = export(run, store)
    assert again == sent | {"trials": dict.fromkeys(sent["trials"], "unchanged")}
    assert_all_is_there(run, again)


def test_a_trial_that_went_on_gets_its_new_epochs_and_no_other_is_touched(run, store, sent, tmp_path):
    more = shutil.copytree(run, tmp_path / "faces")
    folder = trial_folder(more, 1)
    write_reports(folder, [*read_record(folder).reports, {"epoch": 2, "score": 0.75}])
    write_json(folder / "result.json", json.loads((folder / "result.json").read_text()) | {"best_epoch": 2})
    again = export(more, store)
    assert again["trials"] == dict.fromkeys(sent["trials"], "unchanged") | {"1": "changed"} and again["run"] == sent["run"]
    assert_all_is_there(more, again)


def test_another_search_of_the_same_name_takes_the_place_of_its_trials(run, store, tmp_path):
    first = export(run, store, "--experiment", "another")
    other = shutil.copytree(run, tmp_path / "faces")
    config = json.loads((trial_folder(other, 2) / "config.json").read_text())
    write_json(trial_folder(other, 2) / "config.json", config | {"optimizer": {**config["optimizer"], "lr": 0.5}})
    second = export(other, store, "--experiment", "another")
    assert second["trials"] == dict.fromkeys(first["trials"], "unchanged") | {"2": "new"}
    assert_all_is_there(other, second)


def test_what_is_damaged_is_named_and_the_rest_is_exported(run, store, tmp_path):
    harmed = shutil.copytree(run, tmp_path / "faces")
    (trial_folder(harmed, 3) / "config.json").write_text("{")
    (trial_folder(harmed, 0) / MODEL).unlink()  # the ensemble needs it
    result = CliRunner().invoke(command.app, [str(harmed), "--uri", store, "--experiment", "harmed", "--json"])
    assert result.exit_code == 1 and not missing(result.stderr, "trials/3", f"trials/0/{MODEL}")
    sent = json.loads(result.stdout)
    assert set(sent["trials"]) == {"0", "1", "2"} and sent["model"] is None


def test_a_server_that_does_not_answer_is_named_within_seconds(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        assert not missing(refused(run, "--uri", address), address, "mlflow server", "--uri")
    assert time.monotonic() - began < 10
    mlflow.set_tracking_uri(None)


def test_without_mlflow_it_says_what_to_install_beside_what_else_is_wrong(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.command.find_spec", lambda name: None)
    assert not missing(refused("nowhere"), "mlflow-skinny", "--extra mlflow", "'nowhere'")


def test_the_key_of_a_run_is_of_its_name_and_its_split(run, tmp_path):
    moved = shutil.copytree(run, tmp_path / "faces")
    assert exported(moved).key == exported(run).key
    renamed = moved.rename(tmp_path / "others")
    assert exported(renamed).key != exported(run).key


@contextmanager
def server(folder):
    """MLflow's own, with a database; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            assert process.poll() is None, (folder / "log").read_text()
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


@pytest.mark.nightly
def test_a_real_server_has_it_all_and_serves_the_model(run, people, tmp_path, start_command):
    with server(tmp_path) as address:
        for expected in ("new", "unchanged"):
            process = start_command(run.parent, "analysis.export_mlflow", run, "--uri", address, "--json")
            output, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
            sent = json.loads(output)
            assert set(sent["trials"].values()) == {expected}
            mlflow.set_tracking_uri(address)
            assert_all_is_there(run, sent)
        files = [str(file) for file in sorted((people / "eval" / "images").iterdir())]
        answers = mlflow.pyfunc.load_model(sent["model"]).predict(files)
        assert answers["image"].tolist() == files
        np.testing.assert_allclose(answers.filter(like="P(").astype(float).sum(axis=1), 1, atol=1e-5)
    mlflow.set_tracking_uri(None)
