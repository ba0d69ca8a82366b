import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from trainables.checkpoint import pack_progress, unpack_progress
from trainables.config import TrialConfig
from trainables.data.batches import plain_batches
from trainables.loop import DivergedError, Epoch, Parts, Progress, choose_precision, fit, gathered, optimizer_steps, predict
from trainables.models.assemble import to_input
from trainables.parts import build_parts

CPU = torch.device("cpu")
VIT = {"backbone": "test_vit", "weights": "none"}  # no BatchNorm, so a batch is the sum of its photos
EVERYTHING = {
    "task": [["mask", "gender"], ["age"]],
    "epochs": 4,
    "augment": {"flip": 0.5, "rotate": 10.0, "erase": 0.3},
    "mix": {"name": "cutmix_vertical", "prob": 0.7},
    "sampler": {"name": "weighted"},
    "model": {"dropout": 0.3},
    "schedule": {"name": "plateau", "patience": 0, "factor": 0.5, "warmup": 0.2},
    "train": {"accumulate": 2, "clip": 1.0},
}
START = Progress()
CLOCKS = {"seconds": 0.0, "images_per_second": 0.0, "peak_memory": 0.0}


def run(config: TrialConfig, parts: Parts, progress: Progress = START) -> list[Epoch]:
    return list(fit(parts, config.train, epochs=config.epochs, seed=config.seed, progress=progress))


def what_counts(epochs: list[Epoch]) -> list:
    return [(replace(epoch.report, **CLOCKS), [head.tobytes() for head in epoch.probabilities], epoch.progress) for epoch in epochs]


def weights(parts: Parts) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in parts.model.parameters()])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The order of additions, and so the last bits, depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_loss_falls_on_a_small_data_set(data, make_config):
    config = make_config(epochs=6)
    losses = [epoch.report.train_loss for epoch in run(config, build_parts(config, data, CPU))]
    assert losses[-1] < 0.8 * losses[0] and np.isfinite(losses).all()


@pytest.mark.parametrize("task", ["joint", "heads", "age", [["mask", "gender"], ["age"]]])
def test_reports_score_the_joint_class_of_the_task(data, make_config, task):
    config = make_config(task=task, epochs=1)
    parts = build_parts(config, data, CPU)
    (epoch,) = run(config, parts)
    predicted = parts.task.joint_probabilities(epoch.probabilities).argmax(axis=1)
    truth, classes = parts.validation.truth, range(parts.task.scheme.classes)
    assert [head.shape for head in epoch.probabilities] == [(len(truth), part.classes) for part in parts.task.head_schemes]
    assert epoch.report.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro", labels=classes, zero_division=0))
    assert epoch.report.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert set(epoch.report.attribute_f1) == set(parts.task.scheme.names)
    assert epoch.report.last and epoch.report.epoch == epoch.report.best_epoch == 1


def test_probabilities_are_the_softmax_of_the_model_in_evaluation(data, make_config):
    parts = build_parts(make_config(task="heads", model={"dropout": 0.9}), data, CPU)
    rows = parts.validation.rows[:10]
    found = predict(parts.model, plain_batches(parts.validation.view, rows, 4), CPU, torch.float32)
    with torch.no_grad():
        logits = parts.model.eval()(to_input(torch.from_numpy(parts.validation.view[rows]), CPU))
    for probabilities, head in zip(found, logits, strict=True):
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, head.softmax(dim=1).numpy(), atol=1e-6)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_trial_that_goes_on_computes_the_bits_of_an_uninterrupted_one(data, make_config, stop):
    config = make_config(**EVERYTHING)
    whole, first, second = (build_parts(config, data, CPU) for _ in range(3))
    expected = what_counts(run(config, whole))

    epochs = fit(first, config.train, epochs=config.epochs, seed=config.seed)
    before = [next(epochs) for _ in range(stop)]
    packed = pack_progress(first, before[-1].progress)
    torch.rand(7)
    after = run(config, second, unpack_progress(packed, second))
    assert what_counts([*before, *after]) == expected
    assert torch.equal(weights(second), weights(whole))


def test_another_seed_computes_something_else(data, make_config):
    configs = [make_config(epochs=1, seed=seed) for seed in (0, 1)]
    first, second = (what_counts(run(config, build_parts(config, data, CPU))) for config in configs)
    assert first != second


def test_patience_ends_a_trial_that_gets_no_better(data, make_config):
    config = make_config(epochs=20, model=VIT, optimizer={"lr": 1e-30}, train={"patience": 2})
    reports = [epoch.report for epoch in run(config, build_parts(config, data, CPU))]
    assert [report.last for report in reports] == [False, False, True]
    assert {report.best_epoch for report in reports} == {1}


def test_without_patience_a_trial_trains_all_its_epochs(data, make_config):
    config = make_config(epochs=4, model=VIT, optimizer={"lr": 1e-30})
    assert [epoch.report.last for epoch in run(config, build_parts(config, data, CPU))] == [False, False, False, True]


def test_progress_keeps_the_first_of_equally_good_epochs():
    progress = Progress()
    for epoch, score in enumerate([0.2, 0.5, 0.5, 0.4], start=1):
        progress = progress.after(epoch, 3, score)
    assert progress == Progress(epoch=4, step=12, best_epoch=2, best_score=0.5)


def test_two_batches_of_8_that_accumulate_equal_one_of_16(data, make_config):
    trained = []
    for train in ({"batch_size": 8, "accumulate": 2}, {"batch_size": 16, "accumulate": 1}):
        config = make_config(epochs=1, model=VIT, optimizer={"name": "sgd", "lr": 0.05}, train=train)
        parts = build_parts(config, data, CPU)
        report = run(config, parts)[0].report
        trained.append((weights(parts), report))
    torch.testing.assert_close(trained[0][0], trained[1][0], atol=1e-5, rtol=0)
    assert trained[0][1].train_loss == pytest.approx(trained[1][1].train_loss, rel=1e-4)
    assert trained[0][1].lr == trained[1][1].lr


def test_a_last_step_of_fewer_batches_weighs_them_as_if_they_were_all_asked_for(data, make_config):
    trained = []
    for accumulate in (5, 1000):
        config = make_config(epochs=1, model=VIT, optimizer={"name": "sgd", "lr": 0.5}, train={"accumulate": accumulate})
        parts = build_parts(config, data, CPU)
        assert len(parts.batches) == 5
        run(config, parts)
        trained.append(weights(parts))
    assert torch.equal(*trained)


@pytest.mark.parametrize(("batches", "accumulate"), [(6, 2), (7, 2), (7, 3), (1, 4), (5, 1), (5, 5)])
def test_the_batches_of_every_optimizer_step_share_it_equally(batches, accumulate):
    shares = [1 / gathered(batch, batches, accumulate) for batch in range(1, batches + 1)]
    steps = [sum(shares[first : first + accumulate]) for first in range(0, batches, accumulate)]
    assert steps == pytest.approx([1] * optimizer_steps(batches, accumulate))


def test_clipping_bounds_how_far_a_step_goes(data, make_config):
    moved = {}
    for clip in (0.0, 0.01):
        config = make_config(
            epochs=1, model=VIT, optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}, train={"clip": clip}
        )
        parts = build_parts(config, data, CPU)
        before = weights(parts)
        run(config, parts)
        moved[clip] = float((weights(parts) - before).norm())
    assert moved[0.01] <= 5 * 0.1 * 0.01 * 1.001 < moved[0.0]


def test_each_step_takes_its_learning_rate_from_the_schedule(data, make_config):
    config = make_config(epochs=3, schedule={"name": "cosine", "warmup": 0.2}, train={"accumulate": 2})
    parts = build_parts(config, data, CPU)
    epochs = run(config, parts)
    assert [epoch.progress.step for epoch in epochs] == [3, 6, 9]
    assert [epoch.report.lr for epoch in epochs] == [parts.schedule.lr(step) for step in (2, 5, 8)]
    assert {group["lr"] for group in parts.optimizer.param_groups} == {parts.schedule.lr(8)}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains_weights_that_stay_in_float32(data, make_config, precision):
    config = make_config(epochs=1, train={"precision": precision, "clip": 1.0})
    parts = build_parts(config, data, CPU)
    before = weights(parts)
    (epoch,) = run(config, parts)
    assert weights(parts).dtype == torch.float32 and not torch.equal(weights(parts), before)
    assert np.isfinite(epoch.report.train_loss) and epoch.probabilities[0].dtype == np.float32


def test_a_cpu_computes_in_float32_unless_told_otherwise():
    assert choose_precision("auto", CPU) is choose_precision("fp32", CPU) is torch.float32
    assert (choose_precision("bf16", CPU), choose_precision("fp16", CPU)) == (torch.bfloat16, torch.float16)


def test_a_diverging_trial_says_epoch_batch_and_learning_rate(data, make_config):
    config = make_config(optimizer={"name": "sgd", "lr": 1e30}, schedule={"name": "constant"})
    with pytest.raises(DivergedError, match=r"^the loss is (nan|inf) in epoch 1, batch [2-5], at learning rate 1\.0e\+30$"):
        run(config, build_parts(config, data, CPU))


def test_a_trial_that_diverges_with_its_last_step_says_so_too(data, make_config):
    config = make_config(epochs=1, optimizer={"name": "sgd", "lr": 1e30}, schedule={"name": "constant"}, train={"batch_size": 160})
    with pytest.raises(DivergedError, match=r"^the model answers with no numbers after epoch 1, at learning rate 1\.0e\+30$"):
        run(config, build_parts(config, data, CPU))


def test_threads_change_nothing_and_none_survives_a_trial(data, make_config):
    config = make_config(epochs=1, augment={"rotate": 20.0})
    before = set(threading.enumerate())
    alone, helped = (what_counts(run(config, build_parts(config, data, CPU, threads=threads))) for threads in (0, 3))
    assert alone == helped and set(threading.enumerate()) <= before


def test_no_thread_survives_a_trial_that_diverged(data, make_config):
    config = make_config(optimizer={"name": "sgd", "lr": 1e30}, schedule={"name": "constant"}, train={"batch_size": 8})
    before = set(threading.enumerate())
    with pytest.raises(DivergedError) as caught:
        run(config, build_parts(config, data, CPU, threads=3))
    del caught
    assert set(threading.enumerate()) <= before


def test_reports_measure_time_speed_and_memory(data, make_config):
    config = make_config(epochs=1)
    report = run(config, build_parts(config, data, CPU))[0].report
    assert report.seconds > 0 and report.peak_memory > 1
    assert report.images_per_second > 5 * 32 / report.seconds
