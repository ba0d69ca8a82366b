"""The examples of docs/extending.md: each is executed and used, and a search with some works from its copies alone."""

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from ray import tune
from rich.console import Console
from torch.nn.functional import cross_entropy, one_hot

from analysis.votes import ENSEMBLES, Ensemble
from search_spaces.read import read_space
from tests.conftest import ROOT, already, never
from tests.messages import missing
from trainables.config import section
from trainables.data.augment import build_augment
from trainables.data.layouts.reading import read_images
from trainables.data.sampling import build_sampler
from trainables.data.settings import DataConfig
from trainables.data.targets import read_task
from trainables.extensions import Extension, ExtensionError, fault_of, hashes, load, loaded, trust_file
from trainables.losses import LOSSES, Head
from trainables.metrics import METRICS
from trainables.models.assemble import IMAGENET, build_model
from trainables.optimizers import build_optimizer
from trainables.record import RunError, read_records, read_run
from trainables.schedules import build_schedule
from trainables.trial import Job, run_trial, train
from tuner.cli import Options, TrialCount
from tuner.comparison import conditions, unlike
from tuner.searchers import SEARCHERS
from tuner.searchers.sampling import Ask, quiet_study
from tuner.searching import search
from tuner.settings import RunSettings
from tuner.stoppers.history import History, TrialReport

PAGE = (ROOT / "docs" / "extending.md").read_text()
EXAMPLES = dict(re.findall(r"### An? (.+?)\n.*?```python\n(.*?)```", PAGE, re.DOTALL))


def test_the_page_has_one_example_of_each_kind():
    kinds = "loss backbone metric augmentation optimizer schedule sampler vote layout searcher pruner"
    assert sorted(EXAMPLES) == sorted(kinds.split()) and PAGE.count("```python") == len(EXAMPLES)


@pytest.fixture
def example(request, forget_extensions) -> None:
    load([Extension(f"{request.param}.py", EXAMPLES[request.param].encode())])


def of(kind: str):
    return pytest.mark.parametrize("example", [kind], indirect=True)


@of("loss")
def test_the_loss_treats_a_class_id_and_its_one_hot_row_alike_and_is_cross_entropy_without_its_term(example):
    logits, ids, head = torch.randn(8, 3), torch.randint(3, (8,)), Head("classes", np.ones(3), 3)
    loss, plain = (LOSSES["poly"].build(section("loss", name="poly", epsilon=epsilon), head) for epsilon in (2.0, 0.0))
    torch.testing.assert_close(loss(logits, ids), loss(logits, one_hot(ids, 3).float()))
    torch.testing.assert_close(plain(logits, ids), cross_entropy(logits, ids))


@of("backbone")
@pytest.mark.parametrize("freeze", ["none", "backbone"])
def test_the_backbone_is_built_trained_and_frozen_as_timms_own(example, make_config, data, freeze):
    config = make_config(model={"backbone": "tiny", "weights": "none", "freeze": freeze})
    model = build_model(config, read_task("joint", data.images.scheme), IMAGENET)
    assert model.features(torch.zeros(2, 3, 32, 32)).shape == (2, 32)
    assert all(parameter.requires_grad == (freeze == "none") for parameter in model.backbone.parameters())


@of("metric")
def test_the_metric_is_the_lowest_recall(example):
    metric, truth = METRICS["worst_recall"], np.array([0, 0, 1, 1, 1])
    answer = np.eye(2)[[0, 1, 1, 1, 0]]
    assert metric.score(truth, answer) == pytest.approx(0.5)


@of("augmentation")
def test_the_augmentation_changes_images(example):
    augment = build_augment(section("augment", policy="solarize", solarize=1.0))
    images = np.full((2, 16, 16, 3), 200, np.uint8)
    assert (augment(images, 0) != images).all()


@of("optimizer")
def test_the_optimizer_gets_its_settings(example):
    optimizer = build_optimizer(section("optimizer", name="rmsprop", lr=0.1, momentum=0.5), torch.nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.RMSprop) and optimizer.defaults["momentum"] == 0.5


@of("schedule")
def test_the_schedule_falls_to_zero_after_the_warm_up(example):
    schedule = build_schedule(section("schedule", name="linear", warmup=0.2), 1.0, 10, 5)
    rates = [schedule.lr(step) for step in range(51)]
    assert np.argmax(rates) == 10 and rates[30] == pytest.approx(0.5) and rates[50] == 0


@of("sampler")
def test_the_sampler_shows_a_part_of_the_images(example):
    sampler, images = build_sampler(section("sampler", name="part", part=0.25)), range(40)
    drawn = sampler.draw(images, np.random.default_rng(0))
    assert sampler.size(images) == len(drawn) == len(set(drawn.tolist())) == 10


@of("vote")
def test_the_vote_answers_alike_from_a_file_and_in_torch(example):
    answers, file = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 5)), TypeAdapter(Ensemble)
    vote = ENSEMBLES["geometric"](answers, np.zeros(5, int), np.arange(5), METRICS["accuracy"])
    again = file.validate_json(file.dump_json(vote))
    mean = np.sqrt(answers[0] * answers[1])
    np.testing.assert_allclose(again(answers), mean / mean.sum(axis=1)[:, None], atol=1e-6)
    np.testing.assert_allclose(vote(torch.from_numpy(answers)).numpy(), vote(answers))


@of("layout")
def test_the_layout_reads_images_and_labels(example, tmp_path):
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    lines = [{"file": f"{number}.png", "label": "ant" if number % 2 else "bee"} for number in range(4)]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)))
    images = read_images(tmp_path, DataConfig(layout="json_lines"))
    assert images.scheme.names == ("label",) and images.labels[:, 0].tolist() == [1, 0, 1, 0]


@of("searcher")
def test_the_searcher_proposes_what_the_space_can_draw(example, tiny_space):
    space = read_space(tiny_space)
    assert RunSettings(searcher="evolution").searcher == "evolution"
    trial = quiet_study(SEARCHERS["evolution"].make(Ask(space, 0, seed=0, startup=4))).ask()
    assert isinstance(trial, optuna.Trial) and space(trial)["loss"]["name"] in ("cross_entropy", "focal")


@of("pruner")
def test_the_pruner_stops_the_last_third(example):
    stopper, history = RunSettings(pruner="last_third", epochs=5).stopper(), History()
    for number, score in enumerate((0.1, 0.5, 0.9)):
        history.add(TrialReport(number, 1, score, last=False))
    assert [stopper.decide(history, TrialReport(9, 1, score, last=False)).passed for score in (0.2, 0.6)] == [False, True]
    assert stopper.decide(History(), TrialReport(9, 1, 0.0, last=False)) is None


# A search

SPACE = """
extensions: [my_parts.py]
run:       {trials: 2, epochs: 2, grace: 1, metric: worst_recall, searcher: random, finalists: 0}
data:      {holdout: 0.2, folds: 2}
task:      [[mask]]
view:      {size: 32}
model:     {backbone: tiny, weights: none}
loss:      {name: poly, epsilon: {float: [0.0, 2.0]}}
optimizer: {lr: 1.0e-2}
train:     {batch_size: 16}
"""
PARTS = "\n".join(EXAMPLES[kind] for kind in ("loss", "backbone", "metric"))


@pytest.fixture
def here(tmp_path, monkeypatch, forget_extensions) -> Path:
    """A folder with a space and the file that it names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "my_parts.py").write_text(PARTS)
    return tmp_path


def searched(start=never, **options) -> tuple[int, str]:
    said = StringIO()
    return search(Options(**options), Console(file=said, width=200), start), said.getvalue()


def refused(**options) -> str:
    with pytest.raises((ExtensionError, RunError)) as caught:
        searched(**options)
    return str(caught.value)


def test_trials_have_the_parts_that_the_run_keeps_and_resume_with_its_copy_after_the_file_has_gone(
    here, demo, ray_cluster, forget_extensions
):
    code, said = searched(already(ray_cluster), space="space.yaml", data=demo, name="mine", trials=TrialCount(1))
    assert code == 0, said
    known, run = hashes([Extension("my_parts.py", PARTS.encode())]), Path("runs") / "mine"
    assert read_run(run).extensions == known and (run / "extensions" / "my_parts.py").read_text() == PARTS
    (here / "my_parts.py").unlink()
    forget_extensions()
    code, said = searched(already(ray_cluster), resume="mine", trials=TrialCount(1, more=True))
    assert code == 0, said
    found = [(one.result.state, one.result.extensions, one.config.loss.name) for one in read_records(run)]
    assert found == [("finished", known, "poly")] * 2
    then = conditions(read_records(run)[0].result)
    words = unlike(then, replace(then, extensions={"my_parts.py": "0a1b"}))
    assert missing("".join(words), "my_parts.py", known["my_parts.py"][:12], "0a1b") == []

    # A version of its own beside an edited space
    (here / "my_parts.py").write_text(PARTS + "# changed\n")
    changed = Extension("my_parts.py", (here / "my_parts.py").read_bytes()).sha256
    assert missing(refused(resume="mine", space="space.yaml"), "my_parts.py", changed, known["my_parts.py"]) == []

    # On another user's machine
    forget_extensions()
    trust_file().unlink()
    assert missing(refused(resume="mine"), run / "extensions" / "my_parts.py", known["my_parts.py"], "--trust-code") == []
    assert missing(refused(space=str(run / "space.yaml")), run / "extensions" / "my_parts.py", "--trust-code") == []
    assert loaded() == ()


@pytest.mark.nightly
def test_whole_commands_work_from_the_copies_alone(here, demo, start_command):
    """Two workers train at a time; every command is a process of its own."""
    trusting = {"XDG_CONFIG_HOME": str(here / "config"), "CUDA_VISIBLE_DEVICES": ""}

    def commanded(*words: str | Path, expected: int = 0, **environment: str) -> str:
        process = start_command(here, *words, **trusting | environment)
        said = "".join(process.communicate(timeout=300))
        assert process.returncode == expected, said
        return said

    said = commanded("tuner.run", "--space", "space.yaml", "--data", demo, "--name", "mine", "--no-dashboard", "--finalists", "2")
    assert "2 trials at a time" in said
    (here / "my_parts.py").unlink()
    commanded("tuner.run", "--resume", "mine", "--trials", "+1", "--no-dashboard")
    assert "Bitwise identical" in commanded("tuner.replay", "--run", "mine", "--trial", "0")
    commanded("analysis.ensemble", "--run", "mine", "--top", "2")
    commanded("analysis.report", "--run", "mine")
    commanded("analysis.export", "--run", "mine", "--trial", "0", "--out", "trial.onnx")
    run = here / "runs" / "mine"
    (run / "extensions").rename(run / "aside")  # an ensemble has its own
    predict = ("analysis.predict", "--ensemble", run / "ensemble", "--photos", demo / "eval" / "images", "--out")
    commanded(*predict, "answers.csv")
    commanded("analysis.export", "--ensemble", run / "ensemble", "--out", "onnx")
    assert (here / "onnx" / "ensemble.onnx").is_file()
    assert "is missing" in commanded("analysis.report", "--run", "mine", expected=2)

    stranger = {"XDG_CONFIG_HOME": str(here / "other")}
    said = commanded(*predict, "others.csv", expected=2, **stranger)
    assert missing(said, run / "ensemble" / "extensions" / "my_parts.py", "--trust-code") == []
    commanded(*predict, "others.csv", "--trust-code", **stranger)
    assert (here / "others.csv").read_bytes() == (here / "answers.csv").read_bytes()


def test_an_error_of_a_part_is_said_with_its_line(here, demo):
    (here / "my_parts.py").write_text(PARTS.replace("epsilon * (1 -", "undefined_name * (1 -"))
    with pytest.raises(NameError) as caught:
        searched(space="space.yaml", data=demo, dry_run=True)
    line = PARTS[: PARTS.index("epsilon * (1 -")].count("\n") + 1
    assert missing(fault_of(caught.value), f"my_parts.py:{line}: ", "NameError", "undefined_name") == []


def test_a_trial_whose_part_raises_has_failed_for_its_settings_with_the_line(here, data, make_config):
    (here / "run.json").write_text("{}")
    broken = Extension("my_parts.py", PARTS.replace("return (epsilon", "return undefined_name + (epsilon").encode())
    load([broken])
    config, told = make_config(loss={"name": "poly"}, model={"backbone": "tiny", "weights": "none"}), []
    train(0, config, Job(here, data, "code", 1, extensions=(broken,)), told.append)
    (record,) = read_records(here)
    line = broken.code.decode()[: broken.code.decode().index("undefined_name")].count("\n") + 1
    assert (record.result.state, record.result.cause, record.result.extensions) == ("failed", "settings", hashes([broken]))
    assert missing(record.result.reason, f"my_parts.py:{line}: ", "NameError", "undefined_name") == []
    assert told[-1]["failed"] == record.result.reason


def test_a_file_that_a_worker_cannot_execute_ends_the_search_with_its_line(here, monkeypatch):
    told = []
    monkeypatch.setattr(tune, "report", told.append)
    run_trial({"number": 3, "values": {}}, Job(here, None, "code", 1, extensions=(Extension("my_parts.py", b"import not_there"),)))
    assert told[0]["number"] == 3 and missing(told[0]["halt"], "my_parts.py:1: ", "not_there") == []
