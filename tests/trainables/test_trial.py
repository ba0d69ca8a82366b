import io
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tests.conftest import nightly_after
from tests.messages import missing, mistaken
from tests.trainables import conftest as demo
from trainables import trial
from trainables.build import build_parts
from trainables.checkpoint import load_model
from trainables.curves import Curves
from trainables.data.batches import plain_batches
from trainables.data.views import open_view
from trainables.loop import fit, predict
from trainables.record import (
    LAST,
    MODEL,
    read_last,
    read_predictions,
    read_record,
    read_reports,
    read_result,
    trial_folder,
    write_last,
    write_result,
)
from trainables.trial import Job, train
from trainables.versions import versions
from tuner.resume import verify

CLOCKS = {"seconds", "images_per_second", "peak_memory"}
EVERYTHING = {
    "task": "heads",
    "epochs": 3,
    "normalize": "dataset",
    "augment": {"flip": 0.5, "rotate": 10.0, "brightness": 0.2, "contrast": 0.2, "erase": 0.3},
    "mix": {"name": "mixup", "prob": 0.7},
    "sampler": {"name": "weighted"},
    "model": {"dropout": 0.3},
    "loss": {"name": "focal"},
    "schedule": {"name": "plateau", "patience": 0, "factor": 0.5},
    "train": {"accumulate": 2, "clip": 1.0},
}
DIVERGING = {"optimizer": {"name": "sgd", "lr": 1e30}, "schedule": {"name": "constant"}}

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="only a CPU promises the same bits")


class Died(Exception):
    """What ends a trial from outside."""


data, make_config = demo.few, demo.small_batches  # in place of the whole demo


@pytest.fixture(autouse=True)
def threads_of_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def job(data, tmp_path) -> Job:
    return Job(tmp_path / "run", data, "0.1+test", threads=1)


def known(job, number: int) -> int:
    """Reports in the record of a trial, which a new process repeats before it trains."""
    return len(read_reports(trial_folder(job.run, number)))


def run(config, job, number=0) -> list[dict]:
    """What a trial reports of the epochs that it trains."""
    before, reports = known(job, number), []
    train(number, config, job, reports.append)
    assert [report["epoch"] for report in reports[:before]] == list(range(1, before + 1))
    return reports[before:]


def die_after(epoch: int, config, job, number=0) -> None:
    def report(values: dict) -> None:
        if values["epoch"] == epoch:
            raise Died

    with pytest.raises(Died):
        train(number, config, job, report)


def lasting(folder) -> dict:
    """Everything of a record that is decided by the settings alone."""
    reports = [json.loads(line) for line in (folder / "reports.jsonl").read_text().splitlines()]
    return {
        "config": (folder / "config.json").read_bytes(),
        "reports": [{key: value for key, value in report.items() if key not in CLOCKS} for report in reports],
        "result": {key: value for key, value in json.loads((folder / "result.json").read_text()).items() if key != "attempt"},
        "predictions": (folder / "valid.npz").read_bytes(),
        "model": (folder / MODEL).read_bytes(),
    }


@on_cpu
def test_a_cache_that_is_deleted_during_a_run_ends_no_trial_and_changes_no_record(job, data, make_config, tmp_path):
    config = make_config(**EVERYTHING)
    run(config, job, number=0)
    views = {view: replace(file, cache=tmp_path / "cache") for view, file in data.views.items()}
    deleted = replace(job, data=replace(data, views=views))

    def delete(values: dict) -> None:
        if values["epoch"] == 1:
            shutil.rmtree(tmp_path / "cache")

    for number in (1, 2):
        train(number, config, deleted, delete)
        assert lasting(trial_folder(job.run, number)) == lasting(trial_folder(job.run, 0))


@on_cpu
def test_the_same_settings_leave_the_same_record_whatever_was_trained_in_between(job, make_config):
    config = make_config(**EVERYTHING)
    run(config, job, number=0)
    run(make_config(seed=5, epochs=1, augment={"rotate": 40.0}, model={"backbone": "test_resnet"}), job, number=1)
    run(make_config(**DIVERGING), job, number=2)
    torch.manual_seed(99)
    np.random.seed(99)
    run(config, job, number=3)
    assert lasting(trial_folder(job.run, 0)) == lasting(trial_folder(job.run, 3))


def test_a_finished_trial_leaves_a_complete_record(job, data, make_config):
    config = make_config()
    reports = run(config, job, number=4)
    record = read_record(trial_folder(job.run, 4))
    assert record.config == config and record.number == 4
    assert (record.result.state, record.result.reason) == ("finished", "trained all 2 epochs")
    assert (record.result.split, record.result.code, record.result.versions) == (data.split.hash, "0.1+test", versions())
    assert [report["epoch"] for report in record.reports] == [1, 2] and record.best["score"] == max(r["score"] for r in record.reports)
    assert reports == [
        {"number": 4, "best": max(r["score"] for r in record.reports[:index]), **report} for index, report in enumerate(record.reports, 1)
    ]
    assert read_last(record.folder) is None
    assert not [file for file in record.folder.iterdir() if "partial" in file.name]


@on_cpu
def test_predictions_are_those_of_the_kept_model_on_the_validation_images(job, data, make_config):
    run(make_config(**EVERYTHING), job)
    folder = trial_folder(job.run, 0)
    kept = read_predictions(folder)
    assert kept.ids == tuple(data.images.ids[index] for index in data.split.valid)
    model, card = load_model(folder / MODEL)
    seen = open_view(data.views[card.view])
    batches = plain_batches(seen.images, seen.rows(kept.ids), 64)
    for head, expected in zip(predict(model, batches, torch.device("cpu"), torch.float32), kept.heads, strict=True):
        assert head.tobytes() == expected.tobytes()


def test_patience_is_a_reason_to_finish(job, make_config):
    config = make_config(epochs=9, optimizer={"lr": 1e-30}, model={"backbone": "test_vit"}, train={"patience": 1})
    assert [report["last"] for report in run(config, job)] == [False, True]
    result = read_record(trial_folder(job.run, 0)).result
    assert result.state == "finished" and "1 epochs" in result.reason


def test_a_diverging_trial_fails_with_the_reason_and_says_so(job, make_config):
    reports = run(make_config(**DIVERGING), job)
    record = read_record(trial_folder(job.run, 0))
    assert record.result.state == "failed" and not record.best and record.reports == ()
    assert not missing(record.result.reason, "nan", "epoch 1, batch ", "1.0e+30")
    assert record.result.cause == "diverged"
    assert reports == [{"number": 0, "failed": record.result.reason, "cause": "diverged"}]


def test_settings_that_cannot_be_built_fail_with_the_reason(job, make_config):
    # Whether weights fit a head is known only with the data's attributes.
    [report] = run(make_config(loss={"alpha": [1.0, 2.0]}), job)
    assert report["number"] == 0 and report["failed"].startswith("loss/alpha: ") and "2 weights" in report["failed"]
    assert report["cause"] == "settings"
    assert read_record(trial_folder(job.run, 0)).result.state == "failed"


@on_cpu
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_trial_whose_process_died_resumes_and_leaves_the_record_of_an_unharmed_one(job, make_config, epoch):
    config = make_config(**EVERYTHING)
    run(config, job, number=0)
    die_after(epoch, config, job, number=1)
    left = read_record(trial_folder(job.run, 1))
    assert left.result.state == "interrupted" and len(left.reports) == epoch and left.best
    assert read_last(left.folder) is not None
    assert [report["epoch"] for report in run(config, job, number=1)] == list(range(epoch + 1, 4))
    assert lasting(trial_folder(job.run, 0)) == lasting(trial_folder(job.run, 1))


@on_cpu
def test_a_process_that_dies_between_reports_and_tensors_does_the_epoch_again(job, make_config):
    config = make_config(**EVERYTHING)
    run(config, job, number=0)
    die_after(1, config, job, number=1)
    folder = trial_folder(job.run, 1)
    tensors = read_last(folder)
    die_after(2, config, job, number=1)
    write_last(folder, tensors)
    assert [report["epoch"] for report in run(config, job, number=1)] == [2, 3]
    assert lasting(folder) == lasting(trial_folder(job.run, 0))


def state_epoch(folder) -> int:
    return torch.load(io.BytesIO(read_last(folder)), weights_only=True)["progress"]["epoch"]


def ticks() -> Callable[[], float]:
    """A clock by which a write takes one second, and an epoch between two writes one."""
    return lambda counter=itertools.count(): float(next(counter))


@pytest.fixture
def slow_disk(monkeypatch):
    """The states of tiny models are taken for large ones, so a write must wait for its share of the training time."""
    monkeypatch.setattr(trial, "SMALL", 0)
    monkeypatch.setattr(trial, "SPARED", 3.0)


@pytest.mark.usefixtures("slow_disk")
def test_a_large_state_is_written_at_first_and_when_training_has_gone_on_long_enough(job, make_config, monkeypatch):
    folder, kept, epochs_kept = trial_folder(job.run, 0), [], []
    monkeypatch.setattr(trial, "write_last", lambda where, content: (kept.append(content), write_last(where, content)))
    train(0, make_config(epochs=9), job, lambda values: epochs_kept.append(len(kept)), ticks())
    # A question is a tick: 1 second after the write, 2, and with the third it is due.
    assert epochs_kept == [1, 1, 1, 2, 2, 2, 3, 3, 3] and read_last(folder) is None


def test_a_small_state_is_written_after_every_epoch(job, make_config):
    seen = []
    train(0, make_config(epochs=4), job, lambda values: seen.append(values["last"] or state_epoch(trial_folder(job.run, 0))))
    assert seen == [1, 2, 3, True]


@on_cpu
@pytest.mark.usefixtures("slow_disk")
@pytest.mark.parametrize("deaths", nightly_after(2, [[3, 2], [3, 5, 6], [3], [3, 3], [2, 5]]))
def test_epochs_since_the_last_written_state_are_trained_again_and_their_reports_stand(job, make_config, deaths):
    config = make_config(**EVERYTHING | {"epochs": 7})
    run(config, job, number=0)
    folder = trial_folder(job.run, 1)

    def die(values: dict) -> None:
        if next(repeated, None) is None and values["epoch"] == death:
            raise Died

    reported = 0
    for death in deaths:
        repeated = iter(range(reported))
        before = (folder / "reports.jsonl").read_text() if reported else ""
        with pytest.raises(Died):
            train(1, config, job, die, ticks())
        verify(read_record(folder))
        reported = max(reported, death)
        assert state_epoch(folder) <= death
        # Clocks and all.
        assert (folder / "reports.jsonl").read_text().startswith(before)
        assert len(read_record(folder).reports) == reported
    first = state_epoch(folder) + 1
    reports = []
    train(1, config, job, reports.append, ticks())
    assert [report["epoch"] for report in reports[reported:]] == list(range(first, 8))
    assert lasting(folder) == lasting(trial_folder(job.run, 0))


def test_scores_that_are_known_stand_where_an_epoch_is_trained_again(data, make_config):
    config = make_config(epochs=3)
    parts = build_parts(config, data, torch.device("cpu"))
    found = [epoch.report for epoch in fit(parts, config.train, epochs=3, seed=config.seed, known_scores=[0.2, 2.0])]
    assert [report.score for report in found][:2] == [0.2, 2.0] and [report.best_epoch for report in found] == [1, 2, 2]


def test_a_second_death_before_any_epoch_keeps_what_the_first_attempt_reported(job, make_config):
    config = make_config(epochs=3)
    die_after(2, config, job)
    before = read_record(trial_folder(job.run, 0))
    with pytest.raises(KeyError):
        run(config, replace(job, data=replace(job.data, views={})))
    after = read_record(trial_folder(job.run, 0))
    assert after == replace(before, result=replace(before.result, attempt=2)) and (after.folder / LAST).is_file()


def test_a_job_has_the_data_of_each_fold_and_its_own_where_there_is_no_other(job):
    other = replace(job.data, split=replace(job.data.split, fold=1))
    both = replace(job, others={1: other})
    assert both.of_fold(1).data is other and both.of_fold(0).data is job.data and job.of_fold(1).data is job.data
    valid, train = set(other.split.valid), set(other.split.train)
    assert valid == set(np.flatnonzero(other.split.part == 1)) and not valid & train


class Small(torch.nn.Module):
    """A model on a device that has room for few images at a time."""

    def __init__(self, model, room: int):
        super().__init__()
        self.model, self.room = model, room

    @property
    def heads(self):
        return self.model.heads

    def begin_epoch(self, epoch):
        self.model.begin_epoch(epoch)

    def forward(self, images):
        if len(images) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore words")
        return self.model(images)

    def state_dict(self):
        return self.model.state_dict()

    def load_state_dict(self, state):
        self.model.load_state_dict(state)


@pytest.fixture
def small_device(monkeypatch):
    """Stands for a GPU that has room for a number of images, from an epoch on."""

    def build(room: int, from_build: int = 1) -> None:
        built = []

        def build_small(*args, **kwargs):
            parts = build_parts(*args, **kwargs)
            built.append(parts)
            return replace(parts, model=Small(parts.model, room)) if len(built) >= from_build else parts

        monkeypatch.setattr(trial, "build_parts", build_small)

    return build


@on_cpu
def test_a_batch_that_does_not_fit_goes_through_in_halves_and_the_record_says_so(job, make_config, small_device, monkeypatch):
    config = make_config(model={"backbone": "test_vit"}, train={"batch_size": 32})
    small_device(room=9)
    reports = run(config, job, number=1)
    result = read_record(trial_folder(job.run, 1)).result
    assert (result.state, result.micro_batch) == ("finished", 8)
    assert not mistaken(result.notes, [("out of GPU memory in epoch 1", "batches of 32", f"parts of {size}") for size in (16, 8)])
    assert [report["micro_batch"] for report in reports] == [8, 8] and [report["photos"] for report in reports] == [
        len(job.data.split.train) // 32 * 32
    ] * 2
    monkeypatch.undo()
    # A network without batch statistics computes the same sums, whatever the parts.
    whole = run(config, job, number=2)
    np.testing.assert_allclose([r["train_loss"] for r in reports], [r["train_loss"] for r in whole], rtol=1e-4)


@on_cpu
def test_a_trial_that_runs_out_of_memory_in_a_later_attempt_resumes_from_its_last_complete_epoch(job, make_config, small_device):
    config = make_config(epochs=3, train={"batch_size": 32})
    die_after(1, config, job)
    first = read_record(trial_folder(job.run, 0)).reports[0]
    small_device(room=16)
    assert [(report["epoch"], report["micro_batch"]) for report in run(config, job)] == [(2, 16), (3, 16)]
    record = read_record(trial_folder(job.run, 0))
    assert record.reports[0] == first
    assert not mistaken(record.result.notes, [("out of GPU memory in epoch 2", "batches of 32", "parts of 16")])


@on_cpu
def test_a_trial_keeps_its_parts_when_it_resumes(job, make_config, small_device):
    config = make_config(epochs=3, train={"batch_size": 32})
    small_device(room=16)
    die_after(1, config, job)
    assert [report["micro_batch"] for report in run(config, job)] == [16, 16]
    assert len(read_record(trial_folder(job.run, 0)).result.notes) == 1


def test_a_model_that_fits_in_no_parts_fails_for_memory(job, make_config, small_device):
    small_device(room=1)
    [report] = run(make_config(), job)
    assert report == {"number": 0, "failed": "CUDA out of memory. Tried to allocate 2.00 GiB.", "cause": "memory"}
    assert read_record(trial_folder(job.run, 0)).result.cause == "memory"


def test_a_process_that_was_left_behind_writes_no_more_when_another_has_taken_the_trial_over(job, make_config):
    config, folder = make_config(epochs=3), trial_folder(job.run, 0)
    heard = []

    def report(values: dict) -> None:
        heard.append(values["epoch"])
        if len(heard) == 1:
            write_result(folder, replace(read_result(folder), attempt=2, reason="another process is at work"))

    train(0, config, job, report)
    assert heard == [1], "the second epoch was neither reported nor written"
    assert read_result(folder).reason == "another process is at work" and len(read_record(folder).reports) == 1


def events(folder) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def test_tensorboard_shows_the_curves_of_a_trial_under_its_number_and_backbone(job, make_config):
    reports = run(make_config(epochs=3), job)
    shown = events(trial_folder(job.run, 0) / "test_efficientnet")
    curves = {tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}
    for tag, key in (("f1_macro", "score"), ("best/f1_macro", "best"), ("learning_rate", "lr"), ("train_loss", "train_loss")):
        np.testing.assert_allclose(curves[tag], [(report["epoch"], report[key]) for report in reports], rtol=1e-6)
    assert {"accuracy", "images_per_second", "f1_macro/mask", "f1_macro/gender", "f1_macro/age"} <= set(curves)


def test_hparams_lists_the_searched_settings_that_a_trial_has_even_of_one_that_died(job, make_config):
    config = make_config(task=[["mask"], ["age"]])
    die_after(1, config, replace(job, searched=("task", "optimizer/lr", "view/size", "loss/gamma")))
    hparams = events(trial_folder(job.run, 0) / "test_efficientnet").PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(hparams["_hparams_/session_start_info"]).session_start_info
    settings = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    assert settings == {"task": "[['mask'], ['age']]", "optimizer/lr": config.optimizer.lr, "view/size": 32}
    experiment = HParamsPluginData.FromString(hparams["_hparams_/experiment"]).experiment
    assert [info.name.tag for info in experiment.metric_infos] == ["best/f1_macro"]


def test_a_backbone_of_a_hub_is_one_folder(tmp_path, make_config):
    config = make_config()
    config = config.model_copy(update={"model": config.model.model_copy(update={"backbone": "hf-hub:timm/resnet50.a1_in1k"})})
    Curves(tmp_path, config, attempt=1).close()
    assert [file.parent.relative_to(tmp_path) for file in tmp_path.rglob("events.*")] == [Path("hf-hub_timm_resnet50.a1_in1k")]
