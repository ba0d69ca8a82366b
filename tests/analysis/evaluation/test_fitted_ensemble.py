import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from analysis.evaluation.calibration import Calibration
from analysis.evaluation.fitted_ensemble import FILE, EnsembleFile, Pipeline, model_files, read_ensemble, read_trial_models, write_ensemble
from analysis.evaluation.steps import Offsets, Rule, Shares, TopTwo
from analysis.members.compose import Member, Part
from analysis.members.trials import load_runs
from analysis.members.tta import TRANSFORMS
from analysis.votes.stacking import Logistic
from analysis.votes.voting import Mean, Votes
from tests.analysis.ensembles import alone, mean_of, write
from tests.conftest import nightly_after
from tests.messages import missing
from trainables.data.targets import Classes, Scheme
from trainables.migrations import FORMAT, NewerFormatError
from trainables.record import MODEL, RunError, trial_folder
from trainables.storage import open_folder

SIDE = Scheme((Classes("side", ("left", "right")), Classes("size", ("small", "middle", "large"), (10, 20))))
WHOLE, SIZE = SIDE.names, ("size",)
TWO = (
    Member(SIDE, (Part("a/0", SIDE, WHOLE),)),
    Member(SIDE, (Part("a/1", SIDE.part(("side",)), ("side",)), Part("a/2", SIDE, SIZE)), (Part("a/3", SIDE.part(SIZE), SIZE),)),
)
EVERYTHING = Pipeline(
    SIDE,
    TWO,
    Mean((0.25, 0.75)),
    ("plain", "flip"),
    {"a/0": Calibration(SIDE, (("side",), ("size",)), (0.5, 2.0))},
    (Offsets((0.1, 0, -0.3, 0, 0, 1)), TopTwo(SIDE, (Rule("size", 2, 1, 0.4),)), Shares(SIDE, {"side": (0.5, 1.5)})),
)


def drawn(seed, images=9):
    """What the four trials predict of some images."""
    rng = np.random.default_rng(seed)
    sizes = {"a/0": 6, "a/1": 2, "a/2": 6, "a/3": 3}
    return {name: rng.dirichlet(np.full(size, 0.5), images) for name, size in sizes.items()}


def written(folder, pipeline, models=None):
    folder.mkdir(exist_ok=True, parents=True)
    write_ensemble(folder, EnsembleFile(models or {name: ("a/model",) for name in pipeline.trials}, pipeline))
    return folder


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_a_pipeline_read_from_its_file_answers_bitwise_as_before(seed, tmp_path):
    again = read_ensemble(written(tmp_path / "a" / "ensemble", EVERYTHING)).pipeline
    assert again == EVERYTHING
    np.testing.assert_array_equal(again(drawn(seed)), EVERYTHING(drawn(seed)))


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_the_answer_is_that_of_calibration_members_vote_and_steps_in_turn(seed):
    predicted = drawn(seed)
    warm = {**predicted, "a/0": EVERYTHING.calibrations["a/0"](predicted["a/0"])}
    answer = 0.25 * TWO[0].answer(warm) + 0.75 * TWO[1].answer(warm)
    for step in EVERYTHING.steps:
        answer = step(answer)
    np.testing.assert_allclose(EVERYTHING(predicted), answer, rtol=1e-12)
    np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=1e-9)


def test_an_images_answer_depends_on_no_other_image():
    predicted = drawn(0)
    for row in range(9):
        np.testing.assert_array_equal(EVERYTHING({name: joint[[row]] for name, joint in predicted.items()})[0], EVERYTHING(predicted)[row])


def test_a_folder_without_an_ensemble_is_refused_with_the_command_that_makes_one(tmp_path):
    words = f"ensemble.json .*python -m analysis.ensemble --run {tmp_path}/runs/faces "
    with pytest.raises(RunError, match=words):
        read_ensemble(tmp_path / "runs" / "faces" / "ensemble")


def test_a_newer_file_is_refused_with_both_formats(tmp_path):
    file = written(tmp_path / "faces" / "ensemble", EVERYTHING) / FILE
    file.write_text(json.dumps({"format": FORMAT + 1, "something": "else"}))
    with pytest.raises(NewerFormatError, match=rf"ensemble\.json.*{FORMAT + 1}.*{FORMAT}"):
        read_ensemble(file.parent)


def test_a_file_of_format_1_answers_bitwise_as_today(tmp_path):
    file = written(tmp_path / "faces" / "ensemble", EVERYTHING) / FILE
    values = json.loads(file.read_text())
    assert values.pop("format") == FORMAT
    file.write_text(json.dumps({"version": 1, **values}))
    np.testing.assert_array_equal(read_ensemble(file.parent).pipeline(drawn(0)), EVERYTHING(drawn(0)))


@pytest.mark.parametrize(
    "harm, words",
    [
        (lambda text: text[: len(text) // 2], "JSONDecodeError"),
        (lambda text: "", "JSONDecodeError"),
        (lambda text: "[1]", "ValueError"),
        (lambda text: "{}", "models: Field required"),
        (lambda text: text.replace('"kind": "mean"', '"kind": "loud"').replace('"kind":"mean"', '"kind":"loud"'), "pipeline/ensemble"),
        (lambda text: text.replace('"scheme"', '"schema"', 1), "pipeline/scheme: Field required"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong_and_the_fix(tmp_path, harm, words):
    file = written(tmp_path / "faces" / "ensemble", EVERYTHING) / FILE
    file.write_text(harm(file.read_text()))
    again = f"python -m analysis.ensemble --run {tmp_path}/faces"
    with pytest.raises(RunError, match=f"{FILE} is damaged .*{words}.*{again}$"):
        read_ensemble(file.parent)


def test_a_vote_that_earlier_versions_had_is_refused_with_the_command_that_votes_again(tmp_path):
    file = written(tmp_path / "faces" / "ensemble", EVERYTHING) / FILE
    values = json.loads(file.read_text())
    values["pipeline"]["ensemble"] = {"classes": [0, 1], "start": [-0.7, -0.7], "rounds": [], "kind": "boosted"}
    file.write_text(json.dumps(values))
    with pytest.raises(RunError) as refusal:
        read_ensemble(file.parent)
    message = str(refusal.value)
    assert str(file) in message and "boost" in message and "damaged" not in message
    assert message.endswith(f"analysis.ensemble --run {tmp_path}/faces")


@pytest.mark.parametrize(
    "pipeline, words",
    [
        (replace(EVERYTHING, ensemble=Mean((1.0,))), "which are no answer"),
        (replace(EVERYTHING, ensemble=Mean((0.0, 0.0))), "which are no answer"),
        (replace(EVERYTHING, ensemble=Logistic((0, 1), ((1.0,), (1.0,)), (0.0, 0.0))), "is damaged"),
        (replace(EVERYTHING, scheme=SIDE.part(SIZE), ensemble=Votes(), steps=()), "3 classes"),
        (replace(EVERYTHING, members=()), "no members"),
        (replace(EVERYTHING, looks=()), "no members or no transforms"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(tmp_path, pipeline, words):
    with pytest.raises(RunError, match=words):
        read_ensemble(written(tmp_path / "a" / "ensemble", pipeline))


def test_trials_whose_weights_are_not_named_are_refused_by_name(tmp_path):
    with pytest.raises(RunError, match="a/1, a/3"):
        read_ensemble(written(tmp_path / "a" / "ensemble", EVERYTHING, models={"a/0": ("x",), "a/1": (), "a/2": ("y",)}))


def test_models_are_found_from_the_folder_that_holds_the_runs_or_by_their_addresses(tmp_path):
    models = {"a/0": ("faces/trials/0/model.safetensors",), "a/1": ("file:///elsewhere/model.safetensors", "b/trials/1/model.safetensors")}
    found = model_files(tmp_path / "faces" / "ensemble", EnsembleFile(models, EVERYTHING))
    assert found["a/0"] == (tmp_path / "faces/trials/0/model.safetensors",)
    assert found["a/1"] == (open_folder("file:///elsewhere/model.safetensors"), tmp_path / "b/trials/1/model.safetensors")


@pytest.fixture
def copied(faces, tmp_path):
    """A copy of the run that a test may change."""
    return shutil.copytree(faces.folder, tmp_path / "runs" / "faces")


def test_weights_say_task_view_and_channels_themselves(copied):
    trials = load_runs([copied]).trials
    folder = write(copied, mean_of(trials))
    shutil.rmtree(trial_folder(copied, 0) / "last", ignore_errors=True)
    for name in ("config.json", "result.json", "reports.jsonl", "valid.npz"):
        for trial in trials:
            (trial.record.folder / name).unlink()
    found = read_trial_models(folder, read_ensemble(folder))
    for trial, models in zip(trials, found, strict=True):
        assert (models.name, models.task, models.models) == (trial.name, trial.task, trial.models)
        assert (models.view.height, models.edges) == (trial.record.config.view.height, trial.record.config.model.edges == "mix")


def test_all_weights_that_cannot_be_used_are_named_at_once(copied):
    trials = load_runs([copied]).trials
    pipeline = replace(mean_of(trials), looks=("plain", "sideways"))
    folder = write(copied, pipeline)
    (trial_folder(copied, 0) / MODEL).unlink()
    (trial_folder(copied, 1) / MODEL).write_bytes((trial_folder(copied, 1) / MODEL).read_bytes()[:5000])
    with pytest.raises(RunError) as refusal:
        read_trial_models(folder, read_ensemble(folder))
    message = str(refusal.value)
    assert "sideways" in message.splitlines()[0] and ", ".join(TRANSFORMS) in message
    assert not missing(message, *(f"{trial_folder(copied, number) / MODEL}: the weights of faces/{number} " for number in (0, 1)))
    assert message.endswith(f"python -m analysis.ensemble --run {copied}")


def test_weights_of_other_classes_than_the_ensembles_are_refused(copied, make_run):
    folder = write(copied, mean_of(load_runs([copied]).trials))
    other = make_run(copied.parent, "other", [{"task": "age"}])
    shutil.copy(trial_folder(other.folder, 0) / MODEL, trial_folder(copied, 2) / MODEL)
    with pytest.raises(RunError, match="faces/2 .*classes"):
        read_trial_models(folder, read_ensemble(folder))


def test_weights_of_one_trial_that_differ_in_task_or_view_are_refused(copied):
    zero, one = load_runs([copied]).trials[:2]
    pipeline = Pipeline(zero.task.scheme, (alone(zero),), Mean((1.0,)))
    files = tuple(f"faces/trials/{number}/{MODEL}" for number in (0, 1))
    folder = write(copied, pipeline)
    write_ensemble(folder, EnsembleFile({zero.name: files}, pipeline))
    with pytest.raises(RunError, match=f"faces/trials/1/{MODEL}: .*faces/trials/0/{MODEL}"):
        read_trial_models(folder, read_ensemble(folder))
