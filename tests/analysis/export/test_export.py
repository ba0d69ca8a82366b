import ast
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from analysis.ensemble.__main__ import app as ensemble
from analysis.evaluation.fitted_ensemble import Pipeline
from analysis.evaluation.margin import Margin
from analysis.evaluation.steps import Offsets, Rule, Shares, TopTwo
from analysis.export import parity
from analysis.export.__main__ import app, not_one_file, write_checked
from analysis.export.onnx import export_models, export_pipeline
from analysis.export.parity import TOLERANCE, compare
from analysis.members.compose import Part
from analysis.members.mc_dropout import passes
from analysis.members.predictions import PLAIN, Source, TrialModels, predict_trials, wanted_views
from analysis.members.trials import load_runs
from analysis.pages.model_card import CARD
from analysis.votes import ENSEMBLES
from analysis.votes.voting import Mean
from tests.analysis.ensembles import alone, mean_of, write
from tests.analysis.model_cards import answered
from tests.messages import missing
from trainables.checkpoint import load_model, pack_model
from trainables.data.edges import with_edges
from trainables.data.views import build_views, open_view
from trainables.metrics import METRICS
from trainables.record import MODEL, trial_folder

METRIC = METRICS["f1_macro"]
TRIALS = [
    {"task": "joint"},
    {"task": "heads", "view": {"size": [48, 32]}, "model": {"backbone": "test_vit", "weights": "none"}},
    {"task": "age", "model": {"backbone": "test_resnet", "weights": "none"}},
    {"task": "joint", "model": {"backbone": "test_efficientnet", "weights": "none", "edges": "mix"}},
]


@pytest.fixture(scope="module", autouse=True)
def few_images():
    """Files are compared with PyTorch on a whole pass of images and a smaller one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "IMAGES", parity.PASS + 6)
        yield


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    """A run of four trials that differ in task, view, backbone and channels."""
    return make_run(tmp_path_factory.mktemp("runs"), "faces", TRIALS)


@pytest.fixture(scope="module")
def pipeline(run):
    """Two whole trials, one of them advised by the third, the fourth, and a step."""
    joint, heads, specialist, edges = load_runs([run.folder]).trials
    scheme = joint.task.scheme
    part = specialist.task.scheme
    advised = replace(alone(heads), advisors=(Part(specialist.name, part, part.names),))
    return Pipeline(scheme, (alone(joint), advised, alone(edges)), Mean((0.5, 0.3, 0.2)), steps=(Offsets((0.1, -0.4) * 9),))


@pytest.fixture(scope="module")
def exported(run, pipeline, tmp_path_factory):
    """The file of the whole ensemble, and what the command printed."""
    folder = tmp_path_factory.mktemp("exported")
    result = CliRunner().invoke(app, ["--ensemble", str(write(run.folder, pipeline)), "--out", str(folder)])
    assert result.exit_code == 0, result.output
    return folder / "ensemble.onnx", result.stdout


@pytest.fixture(scope="module")
def single(run):
    """The network of the first trial."""
    return export_models(TrialModels.of(load_runs([run.folder]).trials[0]))


def refused(*words):
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr


def test_the_file_of_an_ensemble_answers_for_real_images_as_the_ensemble_does(run, pipeline, exported, cache):
    runs = load_runs([run.folder])
    files = build_views(run.images, wanted_views(runs.trials), cache)
    ids = run.images.ids[:70]
    expected = pipeline(predict_trials(runs.trials, Source(files, ids), torch.device("cpu")))
    session = onnxruntime.InferenceSession(exported[0])
    inputs = json.loads(session.get_modelmeta().custom_metadata_map["card"])["inputs"]
    opened = {view: open_view(file) for view, file in files.files.items()}
    views = {str(view): seen.images[seen.rows(ids)] for view, seen in opened.items()}
    images = {one["name"]: with_edges(views[one["shows"]]) if one["edges"] else views[one["shows"]] for one in inputs}
    for count in (70, 1):
        (answer,) = session.run(["probabilities"], {name: pixels[:count] for name, pixels in images.items()})
        np.testing.assert_allclose(answer, expected[:count], atol=TOLERANCE)
        assert (answer.argmax(axis=1) == expected[:count].argmax(axis=1)).all()


def test_the_six_lines_of_a_model_card_answer_by_the_file_without_this_project(run, exported, tmp_path, monkeypatch):
    shutil.copytree(run.folder, tmp_path / "runs" / "faces")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(ensemble, ["--members", "faces/0", "--whole", "--vote", "best", "--step", "none"])
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession(exported[0])
    about = json.loads(session.get_modelmeta().custom_metadata_map["card"])
    (expected,) = session.run(["probabilities"], {one["name"]: np.zeros((2, *one["shape"][1:]), "uint8") for one in about["inputs"]})
    printed = answered(tmp_path / "runs/faces/ensemble" / CARD, exported[0].parent)
    assert ast.literal_eval(printed) == [about["classes"][number] for number in expected.argmax(axis=1)]


def test_the_card_in_the_file_says_classes_inputs_and_outputs(run, pipeline, exported):
    session = onnxruntime.InferenceSession(exported[0])
    card = json.loads(session.get_modelmeta().custom_metadata_map["card"])
    assert card["classes"] == pipeline.scheme.class_names()
    assert [one["name"] for one in card["attributes"]] == list(pipeline.scheme.names)
    assert [one["shape"] for one in card["inputs"]] == [["photos", 32, 32, 3], ["photos", 48, 32, 3], ["photos", 32, 32, 4]]
    assert [one["view"]["crop"] for one in card["inputs"]] == ["none"] * 3
    assert [one.name for one in session.get_inputs()] == [one["name"] for one in card["inputs"]]
    assert {one.type for one in session.get_inputs()} == {"tensor(uint8)"}
    assert [one.name for one in session.get_outputs()] == list(card["outputs"]) == ["probabilities", *pipeline.trials]


def test_the_command_says_how_alike_the_file_answers_what_it_takes_and_how_to_use_it(exported):
    file, printed = exported
    assert not missing(printed, "ONNX Runtime", f"100.0% of {parity.IMAGES} images", "(images, 32, 32, 4), RGB and Canny edges")
    assert f"onnxruntime.InferenceSession('{file}').run(['probabilities']" in printed
    assert f"Written: {file}" in printed


def test_a_file_that_answers_otherwise_is_not_written_and_the_difference_is_said(single, tmp_path):
    model, card = load_model(single.trials[0].models[0])
    with torch.no_grad():
        for values in model.heads.parameters():
            values.neg_()
    (tmp_path / MODEL).write_bytes(pack_model(model, card))
    other = replace(single, trials=(replace(single.trials[0], models=(tmp_path / MODEL,)),))
    printed = io.StringIO()
    assert not write_checked(Console(file=printed, width=200), other, tmp_path / "other.onnx").parity.holds
    assert "That is no faithful copy" in printed.getvalue() and "other.onnx is not written" in printed.getvalue()
    assert not (tmp_path / "other.onnx").exists()


def test_the_network_of_one_trial_takes_any_number_of_images_and_is_written(single, tmp_path):
    found = compare(single)
    assert found.holds and found.difference < 1e-5
    assert write_checked(Console(quiet=True), single, tmp_path / "one.onnx").parity.holds
    assert (tmp_path / "one.onnx").read_bytes() == single.content


def test_what_is_wrong_with_the_options_is_reported_at_once(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in ((), ("--run", str(run.folder)), ("--run", str(run.folder), "--trial", "0", "--ensemble", "x")):
        assert not missing(refused(*words), "--ensemble", "--run", "--trial")
    message = refused("--run", str(run.folder), "--trial", "9", "--out", "missing/9.onnx")
    assert not missing(message, "no trial 9", "0, 1, 2, 3", "--out missing/9.onnx: ", "faces-9.onnx")
    assert "x/ensemble.json" in refused("--ensemble", "x")


def test_a_trial_without_weights_is_refused(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "faces")
    (trial_folder(folder, 2) / MODEL).unlink()
    message = refused("--run", str(folder), "--trial", "2", "--out", str(tmp_path / "2.onnx"))
    assert not missing(message, "trial 2 of ", str(folder), "run/keep")


@pytest.mark.nightly
def test_an_ensemble_that_looks_twice_at_edges_is_written_as_the_models_of_its_trials(run, tmp_path):
    trials = load_runs([run.folder]).trials
    folder = write(run.folder, replace(mean_of([trials[0], trials[3]]), looks=("plain", "flip")))
    result = CliRunner().invoke(app, ["--ensemble", str(folder), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "faces/3" in result.stdout and "cannot be one file" in result.stdout
    assert {file.name for file in tmp_path.glob("*.onnx")} == {"faces-0.onnx", "faces-3.onnx"}


def test_passes_of_monte_carlo_dropout_are_not_one_file_and_it_is_said_why(run):
    trials = [TrialModels.of(trial) for trial in load_runs([run.folder]).trials[:2]]
    assert not missing(not_one_file(passes(3), trials), "3 passes", "Monte Carlo dropout", "leaves nothing out")
    assert not not_one_file(PLAIN, trials) and not not_one_file(("plain", "flip"), trials)


@pytest.mark.nightly
@pytest.mark.parametrize("number", range(1, 4))
def test_the_command_writes_the_model_of_any_trial(run, tmp_path, number):
    file = tmp_path / f"{number}.onnx"
    result = CliRunner().invoke(app, ["--run", str(run.folder), "--trial", str(number), "--out", str(file)])
    assert result.exit_code == 0, result.output
    assert file.is_file()


@pytest.mark.nightly
@pytest.mark.parametrize("name", ENSEMBLES)
def test_every_vote_with_every_step_and_look_is_one_file_that_answers_alike(run, name):
    trials = load_runs([run.folder]).trials[:2]
    scheme = trials[0].task.scheme
    rng = np.random.default_rng(0)
    target = rng.integers(scheme.classes, size=200)
    shown = rng.dirichlet(np.ones(scheme.classes), (2, 200)) + np.eye(scheme.classes)[target]
    vote = ENSEMBLES[name](shown / 2, target, np.arange(200) // 4, METRIC)
    steps = (TopTwo(scheme, (Rule(scheme.names[-1], 2, 1, 0.5),)), Shares(scheme, {scheme.names[-1]: (0.5, 1.0, 2.0)}))
    looks = ("plain", "flip", "zoom", "wide") if name == "best" else PLAIN
    pipeline = Pipeline(scheme, tuple(map(alone, trials)), vote, looks, steps=steps)
    assert compare(export_pipeline(pipeline, [TrialModels.of(trial) for trial in trials])).holds


@pytest.mark.nightly
@pytest.mark.parametrize("each", [False, True])
def test_a_margin_rule_that_asks_whether_members_disagree_is_in_the_file(run, each):
    trials = load_runs([run.folder]).trials[:2]
    scheme, (name, *_) = trials[0].task.scheme, trials[0].task.scheme.names[::-1]
    value = scheme.targets[-1].values[-1]
    for values in ((), ((name, value),)):
        margin = Margin(5.0, scheme, tuple(range(scheme.classes, 0, -1)), values, each, disagree=True)
        pipeline = Pipeline(scheme, tuple(map(alone, trials)), Mean((1.0, 0.0)), margin=margin)
        assert compare(export_pipeline(pipeline, [TrialModels.of(trial) for trial in trials])).holds


@pytest.mark.nightly
@pytest.mark.parametrize(
    "values",
    [
        {"task": "heads", "loss": {"ordinal": "coral"}},
        {"task": "heads", "loss": {"ordinal": "number", "regression": 0.1}},
        {"task": "joint", "loss": {"name": "arcface"}},
        {"task": "joint", "pool": {"name": "attention"}, "model": {"backbone": "test_vit", "weights": "none"}},
        {"task": "heads", "pool": {"name": "residual_attention"}},
        {"task": "joint", "model": {"backbone": "test_resnet", "second": "test_efficientnet", "weights": "none"}},
        {"task": "joint", "model": {"backbone": "test_resnet", "edges": "stem", "weights": "none", "hidden": 16, "neck": "batchnorm"}},
    ],
)
def test_heads_and_backbones_of_every_sort_are_said_in_onnx(make_run, tmp_path, values):
    made = make_run(tmp_path, "sorts", [values])
    assert compare(export_models(TrialModels.of(load_runs([made.folder]).trials[0]))).holds
