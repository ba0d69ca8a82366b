"""Exported networks in smaller numbers: they answer alike, keep their card, and are scored beside fp32 before anything is shown."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from analysis.ensemble.__main__ import app as ensemble
from analysis.evaluation.priced import priced_of
from analysis.evaluation.scoring import score_answers
from analysis.export import compared, parity
from analysis.export.__main__ import app
from analysis.export.compared import Compared
from analysis.export.onnx import ANSWER, export_models
from analysis.export.parity import agreement
from analysis.export.precision import half, integers
from analysis.members.predictions import TrialModels
from analysis.members.trials import load_runs
from analysis.report.__main__ import app as report
from tests.messages import missing


@pytest.fixture(scope="module")
def made(make_run, tmp_path_factory):
    """A run of two trials. Read it, do not change it."""
    return make_run(tmp_path_factory.mktemp("runs"), "faces", [{"task": "joint"}, {"task": "heads"}])


@pytest.mark.nightly
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_network_in_smaller_numbers_answers_nearly_alike_and_keeps_its_card(precision, made):
    export = export_models(TrialModels.of(load_runs([made.folder]).trials[0]))
    images = {"photos": np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)}
    content = half(export.content) if precision == "fp16" else integers(export.content, images)
    answers = [onnxruntime.InferenceSession(one).run([ANSWER], images)[0] for one in (export.content, content)]
    assert answers[1].dtype == np.float32 and np.abs(answers[0] - answers[1]).max() < 0.02
    cards = [{one.key: one.value for one in onnx.load_from_string(one).metadata_props} for one in (export.content, content)]
    assert cards[0]["card"] == cards[1]["card"]
    weights = {one.data_type for one in onnx.load_from_string(content).graph.initializer}
    assert (onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.INT8) in weights


def test_an_unknown_precision_and_an_ensemble_without_its_run_are_refused_before_anything_is_written(tmp_path):
    for asked, named in ((["--precision", "int4"], ("--precision", "int4", "int8")), (["--precision", "int8"], (tmp_path / "ensemble",))):
        result = CliRunner().invoke(app, ["--ensemble", str(tmp_path / "ensemble"), "--out", str(tmp_path / "out"), *asked])
        assert result.exit_code == 2 and not missing(result.stderr, *named) and not (tmp_path / "out").exists()


def test_a_precision_that_loses_significantly_says_so(made):
    runs = load_runs([made.folder])
    scheme, truth = runs.scheme, runs.holdout.truth(runs.scheme)
    right = np.eye(scheme.classes)[truth]
    scores = score_answers({"fp32": right, "int8": np.roll(right, 1, axis=0)}, runs.holdout, scheme, runs.metric, seed=0)
    bad = Compared("int8", 1.0, 1.0, 0.5, scores["int8"])
    assert bad.loses and "loses significantly" in bad.words("macro F1")
    assert not replace(bad, score=scores["fp32"]).loses


def test_numbers_are_the_same_answer_where_they_are_about_equal():
    one, other = np.array([[1.0], [2.0]]), np.array([[1.005], [2.1]])
    assert agreement(one, other, "number", compared.ALIKE) == 0.5


@pytest.mark.nightly
def test_the_command_scores_each_precision_on_the_hold_out_and_writes_that_down(made, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "IMAGES", 70)
    assert CliRunner().invoke(ensemble, ["--run", str(made.folder), "--vote", "soft"]).exit_code == 0
    asked = ["--ensemble", str(made.folder / "ensemble"), "--out", str(tmp_path), "--precision", "int8", "--precision", "fp16", "--json"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [one["precision"] for one in found["precisions"]] == ["fp32", "int8", "fp16"]
    assert found["precisions"][0]["changed"] == 0
    whole, *smaller = ((tmp_path / f"ensemble{name}.onnx").stat().st_size for name in ("", "-int8", "-fp16"))
    assert max(smaller) < whole
    beside = json.loads((tmp_path / "ensemble-precision.json").read_text())
    runs = load_runs([made.folder])
    train = {name for name, part in zip(runs.learned.ids, runs.learned.parts, strict=True) if part != runs.part}
    assert beside["calibration"]["images"] == len(beside["calibration"]["ids"]) <= compared.CALIBRATED
    assert set(beside["calibration"]["ids"]) <= train
    questions = json.loads((made.folder / "holdout.json").read_text())["questions"]
    assert any(one.get("exported") == "faces" and one["precision"] == ["int8", "fp16"] for one in questions)
    assert [one.name for one in priced_of(made.folder)] == ["faces, fp32", "faces, int8", "faces, fp16"]
    assert CliRunner().invoke(report, ["--run", str(made.folder)]).exit_code == 0
    assert "faces, int8" in Path(made.folder / "report" / "index.html").read_text()
