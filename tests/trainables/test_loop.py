import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from tests.conftest import nightly_after
from tests.messages import missing
from tests.trainables import conftest as demo
from trainables.build import build_parts
from trainables.checkpoint import pack_progress, unpack_progress
from trainables.config import TrialConfig
from trainables.data.batches import plain_batches
from trainables.data.splits import HOLDOUT, NO_FOLD
from trainables.loop import (
    DivergedError,
    Epoch,
    Mixed,
    Parts,
    Progress,
    choose_precision,
    fit,
    in_groups,
    micro_batches,
    next_micro_batch,
    optimizer_steps,
    predict,
    total_loss,
)
from trainables.losses import LOSSES
from trainables.metrics import Metric
from trainables.mixing import mix_batch
from trainables.models.assemble import Answer, to_input
from trainables.models.cuts import Cuts
from trainables.optimizers import OPTIMIZERS
from trainables.seeding import generator

CPU = torch.device("cpu")
VIT = {"backbone": "test_vit", "weights": "none"}  # no BatchNorm, so a batch is the sum of its images
EVERYTHING = {
    "task": [["mask", "gender"], ["age"]],
    "epochs": 4,
    "augment": {"flip": 0.5, "rotate": 10.0, "erase": 0.3},
    "mix": {"name": "cutmix_vertical", "prob": 0.7},
    "sampler": {"name": "weighted"},
    "model": {"dropout": 0.3},
    "loss": {"regression": 0.05},
    "optimizer": {"sam": 0.05, "layer_decay": 0.8},
    "schedule": {"name": "plateau", "patience": 0, "factor": 0.5, "warmup": 0.2},
    "train": {"accumulate": 2, "clip": 1.0, "ema": 0.9},
}
MEANS = sorted(LOSSES.keys() - {"soft_f1", "ce_f1"})  # losses that are a mean over images
START = Progress()
CLOCKS = {"seconds": 0.0, "images_per_second": 0.0, "peak_memory": 0.0}


def run(config: TrialConfig, parts: Parts, progress: Progress = START) -> list[Epoch]:
    return list(fit(parts, config.train, epochs=config.epochs, seed=config.seed, progress=progress))


def what_counts(epochs: list[Epoch]) -> list:
    return [(replace(epoch.report, **CLOCKS), [head.tobytes() for head in epoch.probabilities], epoch.progress) for epoch in epochs]


def weights(parts: Parts) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in parts.model.parameters()])


data, make_config = demo.few, demo.small_batches  # in place of the whole demo


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
    predicted = parts.task.answer(epoch.probabilities).argmax(axis=1)
    truth, classes = parts.validation.truth, range(parts.task.scheme.classes)
    assert [head.shape for head in epoch.probabilities] == [(len(truth), part.classes) for part in parts.task.head_schemes]
    assert epoch.report.score == pytest.approx(f1_score(truth, predicted, average="macro", labels=classes, zero_division=0))
    assert epoch.report.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert set(epoch.report.target_scores) == set(parts.task.scheme.names)
    assert epoch.report.last and epoch.report.epoch == epoch.report.best_epoch == 1


def test_probabilities_are_the_softmax_of_the_model_in_evaluation(data, make_config):
    parts = build_parts(make_config(task="heads", model={"dropout": 0.9}), data, CPU)
    rows = parts.validation.rows[:10]
    found = predict(parts.model, plain_batches(parts.validation.view, rows, 4), CPU, torch.float32)
    with torch.no_grad():
        logits = parts.model.eval()(to_input(torch.from_numpy(parts.validation.view[rows]), CPU)).logits
    for probabilities, head in zip(found, logits, strict=True):
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, head.softmax(dim=1).numpy(), atol=1e-6)


@pytest.mark.parametrize(("stop", "micro_batch"), nightly_after(2, [(1, 0), (2, 3), (2, 0), (3, 0)]))
def test_a_trial_that_resumes_computes_the_bits_of_an_uninterrupted_one(data, make_config, stop, micro_batch):
    config = make_config(**EVERYTHING)
    whole, first, second = (build_parts(config, data, CPU, micro_batch=micro_batch) for _ in range(3))
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


@pytest.mark.parametrize("direction, best_epoch, best_score", [("maximize", 2, 0.5), ("minimize", 1, 0.2)])
def test_progress_keeps_the_first_of_equally_good_epochs(direction, best_epoch, best_score):
    progress = Progress()
    for epoch, score in enumerate([0.2, 0.5, 0.5, 0.2], start=1):
        progress = progress.after(epoch, 3, score, Metric("any", "any", direction))
    assert progress == Progress(epoch=4, step=12, best_epoch=best_epoch, best_score=best_score)


def test_two_batches_of_4_that_accumulate_equal_one_of_8(data, make_config):
    # Of a number of images that both sizes divide, or one leaves out images that the other trains on.
    part = data.split.part.copy()
    part[data.split.train[40:]] = HOLDOUT
    data = replace(data, split=replace(data.split, part=part))
    trained = []
    for train in ({"batch_size": 4, "accumulate": 2}, {"batch_size": 8, "accumulate": 1}):
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


# Micro-batches

STILL = {"name": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}  # one step moves the weights by exactly their gradient


def slow_gradient(config: TrialConfig, parts: Parts) -> torch.Tensor:
    """What one step over all batches of the first epoch gathers, image by image."""
    batches = list(parts.batches.epoch(1))
    parts.model.train()
    for batch in batches:
        for number, image in enumerate(to_input(batch.images, CPU)):
            answer = parts.model(image[None])
            targets = [target[number : number + 1] for target in batch.targets]
            loss = sum(loss(head, target) for loss, head, target in zip(parts.losses, answer.logits, targets, strict=True))
            if parts.regression and not batch.numbers[number].isnan():
                loss = loss + parts.regression * torch.nn.functional.smooth_l1_loss(answer.number[0], batch.numbers[number])
            (loss / len(batch.images) / len(batches)).backward()
    return torch.cat([parameter.grad.flatten() for parameter in parts.model.parameters()])


def some_unknown(parts: Parts) -> Parts:
    """The parts with training images of which two in three have no number."""
    images = parts.batches.images
    numbers = np.where(np.arange(len(images)) % 3, np.float32(np.nan), images.numbers)
    return replace(parts, batches=replace(parts.batches, images=replace(images, numbers=numbers)))


@pytest.mark.parametrize(("name", "micro_batch"), [*((name, 3) for name in MEANS), *(("cross_entropy", size) for size in (0, 2, 7, 500))])
def test_the_gradient_of_a_mean_loss_is_that_of_its_images_however_they_are_parted(data, make_config, name, micro_batch):
    config = make_config(epochs=1, task="heads", model=VIT, loss={"name": name}, optimizer=STILL, train={"accumulate": 5})
    parts = build_parts(config, data, CPU, micro_batch=micro_batch)
    before = weights(parts)
    run(config, parts)
    expected = slow_gradient(config, build_parts(config, data, CPU))
    # Weights change by some 0.1; float32 rounds sums of other orders to within 1e-5 on every CPU type that was seen.
    torch.testing.assert_close(before - weights(parts), expected, atol=1e-5, rtol=1e-3)


MIXED = [(name, "mixup", 8, 1) for name in MEANS]
UNEVEN = [(name, mixer, 7, 2) for name, mixer in [("cross_entropy", "cutmix_vertical"), *((name, "mixup") for name in MEANS)]]


@pytest.mark.parametrize(("name", "mixer", "batch_size", "accumulate"), nightly_after(len(MIXED) + 1, MIXED + UNEVEN))
def test_micro_batches_train_mixed_batches_as_whole_ones_do(data, make_config, name, mixer, batch_size, accumulate):
    train = {"batch_size": batch_size, "accumulate": accumulate, "clip": 1.0}
    optimizer = {"name": "sgd", "lr": 0.05}
    config = make_config(epochs=1, model=VIT, loss={"name": name}, mix={"name": mixer, "prob": 0.8}, optimizer=optimizer, train=train)
    trained = []
    for micro_batch in (0, 3):
        parts = build_parts(config, data, CPU, micro_batch=micro_batch)
        trained.append((weights(parts), run(config, parts)[0].report, weights(parts)))
    (first, whole, moved), (_, parted, also_moved) = trained
    torch.testing.assert_close(also_moved, moved, atol=1e-5, rtol=0)
    assert (moved - first).abs().max() > 1e-3
    assert parted.train_loss == pytest.approx(whole.train_loss, rel=1e-5)
    assert (whole.micro_batch, parted.micro_batch, whole.photos) == (0, 3, parted.photos)


@pytest.mark.parametrize("micro_batch", [0, 2, 3, 500])
def test_the_gradient_of_predicted_numbers_is_that_of_the_images_whose_number_is_known(data, make_config, micro_batch):
    config = make_config(epochs=1, model=VIT, loss={"regression": 0.05}, optimizer=STILL, train={"accumulate": 5})
    parts = some_unknown(build_parts(config, data, CPU, micro_batch=micro_batch))
    before = weights(parts)
    run(config, parts)
    expected = slow_gradient(config, some_unknown(build_parts(config, data, CPU)))
    torch.testing.assert_close(before - weights(parts), expected, atol=1e-6, rtol=1e-4)


def test_a_batch_without_any_known_number_adds_nothing_to_the_loss(data, make_config):
    parts = build_parts(make_config(loss={"regression": 0.05}), data, CPU)
    logits, ids, unknown = torch.randn(4, 18), torch.arange(4), torch.full((4,), torch.nan)
    number = torch.randn(4, requires_grad=True)
    loss = total_loss(parts, Answer([logits], number), [ids], unknown)
    loss.backward()
    assert loss.item() == pytest.approx(parts.losses[0](logits, ids).item()) and number.grad.tolist() == [0] * 4


def test_known_numbers_add_their_weighted_distance_in_full_and_in_half_precision(data, make_config):
    parts = build_parts(make_config(loss={"regression": 0.5}), data, CPU)
    logits, ids = torch.zeros(4, 18), torch.arange(4)
    numbers = torch.tensor([30.0, torch.nan, 20.0, 50.5])
    # Distances of 10 and 0.5; an image whose number is unknown has none. Smooth: a half of the square below 1.
    expected = float(np.log(18)) + 0.5 * ((10 - 0.5) + 0 + 0 + 0.5**2 / 2) / 4
    for precision in (torch.float32, torch.float16):
        number = torch.tensor([40.0, 25.0, 20.0, 50.0], dtype=precision)
        assert total_loss(parts, Answer([logits], number), [ids], numbers).item() == pytest.approx(expected)


def test_a_loss_of_the_whole_batch_sees_a_micro_batch_at_a_time(data, make_config):
    config = make_config(epochs=1, model=VIT, loss={"name": "soft_f1"}, optimizer={"lr": 1e-30}, train={"batch_size": 40})
    parts = build_parts(config, data, CPU, micro_batch=15)
    [batch] = parts.batches.epoch(1)
    assert len(batch.images) == 40
    with torch.no_grad():
        logits = parts.model.train()(to_input(batch.images, CPU)).logits[0]
        losses = [float(parts.losses[0](logits[part], batch.targets[0][part])) for part in (slice(14), slice(14, 27), slice(27, 40))]
    expected = np.average(losses, weights=[14, 13, 13])
    assert run(config, parts)[0].report.train_loss == pytest.approx(expected, rel=1e-5)


def test_whole_batches_train_bitwise_as_a_plain_loop(data, make_config):
    config = make_config(epochs=2, augment={"flip": 0.5}, schedule={"name": "cosine"})
    ours, plain = (build_parts(config, data, CPU) for _ in range(2))
    run(config, ours)
    plain.model.train()
    batches = [batch for epoch in (1, 2) for batch in plain.batches.epoch(epoch)]
    for step, batch in enumerate(batches):
        plain.optimizer.zero_grad()
        plain.losses[0](plain.model(to_input(batch.images, CPU)).logits[0], batch.targets[0]).backward()
        for group in plain.optimizer.param_groups:
            group["lr"] = plain.schedule.lr(step)
        plain.optimizer.step()
    assert torch.equal(weights(ours), weights(plain))


@pytest.mark.parametrize("micro_batch", [8, 500])
def test_a_micro_batch_that_holds_the_whole_batch_changes_no_bit_of_the_training(data, make_config, micro_batch):
    config = make_config(**EVERYTHING | {"epochs": 1})
    whole, same = (build_parts(config, data, CPU, micro_batch=size) for size in (0, micro_batch))
    losses = [run(config, parts)[0].report.train_loss for parts in (whole, same)]
    assert losses[0] == losses[1] and torch.equal(weights(whole), weights(same))


def test_the_same_micro_batches_compute_the_same_bits(data, make_config):
    config = make_config(**EVERYTHING | {"epochs": 2})
    first, again = (what_counts(run(config, build_parts(config, data, CPU, micro_batch=3))) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("micro_batch", [3, 5])
def test_no_pass_has_more_images_than_the_micro_batch_and_none_in_training_a_single_one(data, make_config, micro_batch):
    config = make_config(epochs=1)
    parts = build_parts(config, data, CPU, micro_batch=micro_batch)
    passes = {True: [], False: []}
    parts.model.register_forward_hook(lambda model, inputs, output: passes[model.training].append(len(inputs[0])))
    (epoch,) = run(config, parts)
    assert max(*passes[True], *passes[False]) <= micro_batch and min(passes[True]) > 1
    assert sum(passes[True]) == epoch.report.photos and sum(passes[False]) == len(parts.validation.rows)


@pytest.mark.parametrize("images", range(1, 40))
def test_micro_batches_are_the_batch_in_order_in_even_parts_none_of_a_single_image(images):
    shown, ids, rows, numbers = torch.arange(images), torch.arange(images) % 3, torch.rand(images, 4), torch.rand(images)
    for most in range(2, 45):
        parted = list(micro_batches(Mixed(shown, [ids, rows], numbers), most))
        sizes = [len(part.images) for part in parted]
        assert torch.equal(torch.cat([part.images for part in parted]), shown)
        assert torch.equal(torch.cat([part.targets[0] for part in parted]), ids)
        assert torch.equal(torch.cat([part.targets[1] for part in parted]), rows)
        assert torch.equal(torch.cat([part.numbers for part in parted]), numbers)
        assert max(sizes) <= max(most, 3 if images % 2 else 2) and max(sizes) - min(sizes) <= 1
        assert min(sizes) >= min(2, images)
        assert len(parted) == (-(-images // most) if most > 2 else max(1, images // 2))
    (part,) = micro_batches(Mixed(shown, [ids], numbers), 0)
    assert torch.equal(part.images, shown) and torch.equal(part.targets[0], ids) and torch.equal(part.numbers, numbers)


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "expected"),
    [(64, 0, [32, 16, 8, 4, 2]), (100, 0, [50, 25, 13, 7, 4, 2]), (64, 20, [10, 5, 3, 2]), (16, 40, [8, 4, 2]), (3, 0, [2]), (2, 0, [])],
)
def test_micro_batches_are_halved_until_two_images_are_left(batch_size, micro_batch, expected):
    tried = []
    while micro_batch := next_micro_batch(batch_size, micro_batch):
        tried.append(micro_batch)
    assert tried == expected and micro_batch is None


# Precision


def with_scale(parts: Parts, scale: float) -> Parts:
    return replace(parts, scaler=torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=4))


def test_a_float16_trial_that_resumes_keeps_the_scale_it_had_found(data, make_config):
    config = make_config(epochs=3, model=VIT, train={"precision": "fp16"})
    # The first steps overflow and are left out, which a trial that had lost its scale would do again.
    whole, first, second = (with_scale(build_parts(config, data, CPU), 2.0**40) for _ in range(3))
    expected = what_counts(run(config, whole))
    epochs = fit(first, config.train, epochs=config.epochs, seed=config.seed)
    before = [next(epochs)]
    found = first.scaler.state_dict()
    assert found["scale"] < 2.0**40
    progress = unpack_progress(pack_progress(first, before[0].progress), second)
    assert second.scaler.state_dict() == found
    assert what_counts([*before, *run(config, second, progress)]) == expected
    assert torch.equal(weights(second), weights(whole)) and second.scaler.state_dict() == whole.scaler.state_dict()


@pytest.mark.parametrize(("begun", "gone_on"), [("fp32", "fp16"), ("fp16", "fp32"), ("bf16", "fp16")])
def test_a_trial_resumes_in_another_precision(data, make_config, begun, gone_on):
    first, second = (make_config(model=VIT, train={"precision": precision}) for precision in (begun, gone_on))
    parts, others = build_parts(first, data, CPU), build_parts(second, data, CPU)
    epoch = next(fit(parts, first.train, epochs=2, seed=0))
    (last,) = run(second, others, unpack_progress(pack_progress(parts, epoch.progress), others))
    assert last.report.epoch == 2 and np.isfinite(last.report.train_loss)


@pytest.mark.parametrize(("precision", "scaled"), [("fp32", False), ("bf16", False), ("fp16", True)])
def test_gradients_are_scaled_in_float16_only(data, make_config, precision, scaled):
    assert build_parts(make_config(train={"precision": precision}), data, CPU).scaler.is_enabled() == scaled


@pytest.mark.parametrize(("batches", "accumulate"), [(6, 2), (7, 2), (7, 3), (1, 4), (5, 1), (5, 5)])
def test_batches_are_grouped_in_order_into_the_steps_that_the_schedule_counts(batches, accumulate):
    groups = list(in_groups(range(batches), accumulate))
    assert [batch for group in groups for batch in group] == list(range(batches))
    assert all(len(group) == accumulate for group in groups[:-1]) and 0 < len(groups[-1]) <= accumulate
    assert len(groups) == optimizer_steps(batches, accumulate)


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


def test_each_group_of_parameters_takes_its_share_of_the_learning_rate(data, make_config):
    config = make_config(epochs=1, model=VIT, optimizer=STILL | {"layer_decay": 0.5})
    parts = build_parts(config, data, CPU)
    run(config, parts)
    scales = {group["lr_scale"] for group in parts.optimizer.param_groups}
    assert len(scales) > 2 and max(scales) == 1
    assert all(group["lr"] == parts.schedule.lr(4) * group["lr_scale"] for group in parts.optimizer.param_groups)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains_weights_that_stay_in_float32(data, make_config, precision):
    config = make_config(epochs=1, model=VIT, train={"precision": precision, "clip": 1.0})
    parts = build_parts(config, data, CPU)
    before = weights(parts)
    (epoch,) = run(config, parts)
    assert weights(parts).dtype == torch.float32 and not torch.equal(weights(parts), before)
    assert np.isfinite(epoch.report.train_loss) and epoch.probabilities[0].dtype == np.float32


def test_a_cpu_computes_in_float32_unless_set_otherwise():
    assert choose_precision("auto", CPU) is choose_precision("fp32", CPU) is torch.float32
    assert (choose_precision("bf16", CPU), choose_precision("fp16", CPU)) == (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("micro_batch", [0, 3])
def test_a_diverging_trial_says_epoch_batch_step_and_learning_rate(data, make_config, micro_batch):
    config = make_config(optimizer={"name": "sgd", "lr": 1e30}, schedule={"name": "constant"})
    said = r"(nan|inf) .*epoch 1, batch ([2-5]) of 5 \(step \2\).* 1\.0e\+30$"
    with pytest.raises(DivergedError, match=said):
        run(config, build_parts(config, data, CPU, micro_batch=micro_batch))


@pytest.mark.parametrize(("accumulate", "bad", "step"), [(1, 4, 4), (2, 3, 2), (2, 4, 2), (2, 5, 3), (3, 5, 2), (9, 5, 1)])
def test_a_batch_that_spoils_the_loss_is_named_whichever_step_gathers_it(data, make_config, accumulate, bad, step):
    config = make_config(epochs=1, train={"accumulate": accumulate}, loss={"regression": 0.1})
    parts = build_parts(config, data, CPU)
    images = parts.batches.images
    numbers = images.numbers.copy()
    numbers[parts.batches.order(1)[8 * (bad - 1)]] = np.inf
    parts = replace(parts, batches=replace(parts.batches, images=replace(images, numbers=numbers)))
    with pytest.raises(DivergedError) as caught:
        run(config, parts)
    assert not missing(str(caught.value), "inf", f"epoch 1, batch {bad} of 5 (step {step})", f"{parts.schedule.lr(step - 1):.1e}")


def test_the_step_of_a_diverging_trial_counts_optimizer_steps_since_its_first_epoch(data, make_config):
    config = make_config(train={"accumulate": 2}, schedule={"name": "cosine"}, epochs=2)
    parts = build_parts(config, data, CPU)
    fit_epochs = fit(parts, config.train, epochs=2, seed=0)
    assert next(fit_epochs).progress.step == 3
    with torch.no_grad():
        next(parts.model.parameters()).fill_(torch.nan)
    with pytest.raises(DivergedError) as caught:
        next(fit_epochs)
    assert not missing(str(caught.value), "nan", "epoch 2, batch 1 of 5 (step 4)", f"{parts.schedule.lr(3):.1e}")


def test_a_trial_that_diverges_with_its_last_step_says_so_too(data, make_config):
    config = make_config(epochs=1, optimizer={"name": "sgd", "lr": 1e30}, schedule={"name": "constant"}, train={"batch_size": 40})
    with pytest.raises(DivergedError, match=r" after epoch 1, at learning rate 1\.0e\+30$"):
        run(config, build_parts(config, data, CPU))


def test_threads_change_nothing_and_none_survives_a_trial(data, make_config):
    config = make_config(epochs=1, augment={"rotate": 20.0})
    before = set(threading.enumerate())
    alone, helped = (what_counts(run(config, build_parts(config, data, CPU, threads=threads))) for threads in (0, 3))
    assert alone == helped and set(threading.enumerate()) <= before


def test_no_thread_survives_a_trial_that_diverged(data, make_config):
    config = make_config(optimizer={"name": "sgd", "lr": 1e30}, schedule={"name": "constant"})
    before = set(threading.enumerate())
    with pytest.raises(DivergedError) as caught:
        run(config, build_parts(config, data, CPU, threads=3))
    del caught
    assert set(threading.enumerate()) <= before


def test_reports_measure_time_speed_and_memory(data, make_config):
    config = make_config(epochs=1)
    report = run(config, build_parts(config, data, CPU))[0].report
    assert report.seconds > 0 and report.peak_memory > 1
    assert report.images_per_second > 5 * 8 / report.seconds


@pytest.mark.parametrize("sampler", ["shuffle", "weighted"])
def test_reports_count_the_different_images_of_an_epoch_and_the_one_shown_most(data, make_config, sampler):
    config = make_config(sampler={"name": sampler})
    parts = build_parts(config, data, CPU)
    for epoch in run(config, parts):
        shown = {}
        for position in parts.batches.order(epoch.report.epoch).tolist():
            shown[position] = shown.get(position, 0) + 1
        assert (epoch.report.distinct, epoch.report.largest_repeat) == (len(shown), max(shown.values()))
        assert epoch.report.photos == sum(shown.values()) == 40
        assert (epoch.report.largest_repeat > 1) == (sampler == "weighted")
        classes = parts.batches.images.classes[parts.batches.order(epoch.report.epoch)].tolist()
        assert epoch.report.shown == [classes.count(one) for one in range(parts.task.scheme.classes)]


# Optimizers


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trial_of_every_optimizer_resumes_bitwise(data, make_config, name):
    config = make_config(epochs=2, optimizer={"name": name, "lr": 1e-3, "layer_decay": 0.9})
    whole, first, second = (build_parts(config, data, CPU) for _ in range(3))
    expected = what_counts(run(config, whole))
    before = next(fit(first, config.train, epochs=2, seed=config.seed))
    after = run(config, second, unpack_progress(pack_progress(first, before.progress), second))
    assert what_counts([before, *after]) == expected
    assert torch.equal(weights(second), weights(whole))


def slow_sharpness_aware_epoch(config: TrialConfig, parts: Parts) -> None:
    """The epoch as the paper has it: w <- w - lr * clip(gradient at w + radius * gradient / norm), over all batches of a step."""
    rng = generator(config.seed, "mix", 1)
    batches = list(parts.batches.epoch(1))
    parts.model.train()
    for step, first in enumerate(range(0, len(batches), config.train.accumulate)):
        mixed = []
        for batch in batches[first : first + config.train.accumulate]:
            classes = [part.classes for part in parts.task.head_schemes]
            mixed.append(mix_batch(parts.mixer, to_input(batch.images, CPU), batch.targets, batch.numbers, classes, rng))

        def gradient(mixed: list = mixed) -> torch.Tensor:
            parts.model.zero_grad()
            losses = [parts.losses[0](parts.model(images).logits[0], target) for images, [target], _ in mixed]
            torch.stack(losses).mean().backward()
            return torch.cat([parameter.grad.flatten() for parameter in parts.model.parameters()])

        here = weights(parts)
        uphill = gradient()
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(here + config.optimizer.sam * uphill / uphill.norm(), parts.model.parameters())
        found = gradient()
        if config.train.clip:
            found = found * min(1.0, config.train.clip / float(found.norm()))
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(here - parts.schedule.lr(step) * found, parts.model.parameters())


WAYS = [(1, 0.0, 0), (2, 0.0, 0), (2, 0.1, 0), (2, 0.1, 3)]


@pytest.mark.parametrize(
    ("accumulate", "clip", "micro_batch", "prob"),
    nightly_after(
        4, [(*way, prob) for probs in [(0.0, 0.7, 0.0, 0.7), (0.7, 0.0, 0.7, 0.0)] for way, prob in zip(WAYS, probs, strict=True)]
    ),
)
def test_sharpness_aware_minimization_steps_by_the_gradient_at_the_worst_point_nearby(
    data, make_config, accumulate, clip, micro_batch, prob
):
    mix = {"name": "mixup", "prob": prob} if prob else {"name": "none"}
    sgd = {"name": "sgd", "lr": 0.05, "momentum": 0.0, "weight_decay": 0.0}
    train = {"accumulate": accumulate, "clip": clip}
    config = make_config(epochs=1, model=VIT, optimizer=sgd | {"sam": 0.5}, mix=mix, train=train)
    ours, slow = (build_parts(config, data, CPU, micro_batch=size) for size in (micro_batch, 0))
    run(config, ours)
    slow_sharpness_aware_epoch(config, slow)
    torch.testing.assert_close(weights(ours), weights(slow), atol=2e-6, rtol=1e-4)
    plain = make_config(epochs=1, model=VIT, optimizer=sgd, mix=mix, train=train)
    parts = build_parts(plain, data, CPU)
    run(plain, parts)
    assert (weights(parts) - weights(ours)).abs().max() > 1e-4


def test_statistics_of_batch_norm_are_those_of_the_weights_themselves_with_and_without_sharpness(data, make_config):
    found = []
    for radius in (0.0, 0.5):
        config = make_config(epochs=1, optimizer=STILL | {"lr": 1e-30, "sam": radius})
        parts = build_parts(config, data, CPU)
        run(config, parts)
        found.append([buffer.clone() for buffer in parts.model.buffers()])
    assert len(found[0]) > 2
    assert all(torch.equal(without, sharp) for without, sharp in zip(*found, strict=True))


def test_a_sharpness_aware_step_that_overflows_in_float16_leaves_the_weights_and_halves_the_scale(data, make_config):
    config = make_config(epochs=1, model=VIT, optimizer={"sam": 0.05}, train={"precision": "fp16", "batch_size": 40, "clip": 1.0})
    parts = with_scale(build_parts(config, data, CPU), 2.0**40)
    before = weights(parts)
    run(config, parts)
    assert torch.equal(weights(parts), before) and parts.scaler.get_scale() == 2.0**39


@pytest.mark.parametrize("clip", [pytest.param(0.0, marks=pytest.mark.nightly), 1.0])
def test_a_sharpness_aware_trial_in_float16_finds_a_scale_and_trains(data, make_config, clip):
    config = make_config(epochs=2, model=VIT, optimizer={"sam": 0.05}, train={"precision": "fp16", "clip": clip})
    parts = with_scale(build_parts(config, data, CPU), 2.0**20)
    losses = [epoch.report.train_loss for epoch in run(config, parts)]
    assert parts.scaler.get_scale() < 2.0**20 and losses[-1] < losses[0]


# A number decides the class

BY_NUMBER = {"task": [["mask", "gender"], ["age"]], "loss": {"ordinal": "number", "regression": 0.1}}


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_cuts_of_a_number_are_those_that_fit_the_validation_images_of_each_epoch(data, make_config, ema):
    config = make_config(**BY_NUMBER, epochs=2, train={"ema": ema})
    parts = build_parts(config, data, CPU)
    *_, last = run(config, parts)
    rows, model = parts.validation.rows, parts.evaluated.eval()
    with torch.no_grad():
        number = model(to_input(torch.from_numpy(parts.validation.view[rows]), CPU)).number
    ages = parts.task.scheme.split(parts.validation.truth)[:, parts.task.scheme.names.index("age")]
    again = Cuts((30, 60), parts.model.heads.cuts._std)
    again.fit(number.numpy(), ages)
    torch.testing.assert_close(again.cuts, model.heads.cuts.cuts, rtol=1e-3, atol=0.05)
    torch.testing.assert_close(parts.model.heads.cuts.cuts, model.heads.cuts.cuts)
    np.testing.assert_allclose(last.probabilities[1], model.heads.cuts(number).softmax(dim=1).numpy(), atol=1e-4)


@pytest.mark.parametrize("fold", nightly_after(1, [0, NO_FOLD]))
def test_a_trial_whose_number_decides_resumes_bitwise(data, make_config, fold):
    config = make_config(**BY_NUMBER, epochs=2, data={"fold": fold}, train={"ema": 0.9})
    given = replace(data, split=replace(data.split, fold=fold))
    whole, first, second = (build_parts(config, given, CPU) for _ in range(3))
    expected = what_counts(run(config, whole))
    before = next(fit(first, config.train, epochs=2, seed=config.seed))
    after = run(config, second, unpack_progress(pack_progress(first, before.progress), second))
    assert what_counts([before, *after]) == expected and torch.equal(weights(second), weights(whole))
    assert torch.equal(second.evaluated.heads.cuts.cuts, whole.evaluated.heads.cuts.cuts)


def test_without_a_validation_split_the_cuts_fit_the_images_that_train_by_their_true_classes(data, make_config):
    config = make_config(task="age", loss=BY_NUMBER["loss"], data={"fold": NO_FOLD}, labels={"cuts": [30, 58]})
    parts = build_parts(config, unvalidated(data), CPU)
    images = parts.batches.images
    assert parts.cut_by.truth.tolist() == np.digitize(images.numbers, (30, 60)).tolist()
    assert parts.cut_by.rows.tolist() == parts.batches.rows.tolist()


@pytest.mark.nightly
def test_a_number_that_is_learned_tells_the_classes(data, make_config):
    config = make_config(
        task="age", loss={"ordinal": "number", "regression": 1.0}, epochs=12, optimizer={"lr": 1e-2}, data={"fold": NO_FOLD}
    )
    parts = build_parts(config, unvalidated(data), CPU)
    run(config, parts)
    cut = parts.cut_by
    (told,) = predict(parts.model, plain_batches(cut.view, cut.rows, 64), CPU, torch.float32)
    assert accuracy_score(cut.truth, told.argmax(axis=1)) > 1.2 * np.bincount(cut.truth).max() / len(cut.truth)


# Nobody validates


def unvalidated(data):
    return replace(data, split=replace(data.split, fold=NO_FOLD))


def test_without_a_validation_split_a_trial_trains_on_all_and_its_newest_epoch_is_its_best(data, make_config):
    config = make_config(epochs=3, data={"fold": NO_FOLD})
    parts = build_parts(config, unvalidated(data), CPU)
    epochs = run(config, parts)
    assert len(parts.batches.images) == len(data.split.train) + len(data.split.valid)
    for number, epoch in enumerate(epochs, start=1):
        assert (epoch.report.score, epoch.report.accuracy, epoch.report.target_scores) == (None, None, {})
        assert epoch.report.best_epoch == epoch.progress.best_epoch == number
        assert [head.shape for head in epoch.probabilities] == [(0, 18)] and epoch.probabilities[0].dtype == np.float32
    assert [epoch.report.last for epoch in epochs] == [False, False, True]


def test_without_a_validation_split_a_trial_resumes_bitwise(data, make_config):
    config = make_config(epochs=2, task="heads", data={"fold": NO_FOLD}, train={"ema": 0.9})
    whole, first, second = (build_parts(config, unvalidated(data), CPU) for _ in range(3))
    expected = what_counts(run(config, whole))
    before = next(fit(first, config.train, epochs=2, seed=config.seed))
    after = run(config, second, unpack_progress(pack_progress(first, before.progress), second))
    assert what_counts([before, *after]) == expected and torch.equal(weights(second), weights(whole))


def test_without_a_validation_split_a_trial_that_diverges_with_its_last_step_says_so_too(data, make_config):
    config = make_config(epochs=1, optimizer={"name": "sgd", "lr": 1e30}, schedule={"name": "constant"}, train={"batch_size": 80})
    parts = build_parts(config, unvalidated(data), CPU)
    for parameter in parts.model.parameters():
        parameter.register_hook(lambda gradient: gradient * 1e30)
    with pytest.raises(DivergedError, match=r" after epoch 1, at learning rate 1\.0e\+30$"):
        run(config, parts)
