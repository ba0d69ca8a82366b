from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.messages import missing
from trainables.build import build_parts
from trainables.checkpoint import pack_progress, unpack_progress
from trainables.config import section
from trainables.data.augment import AugmentConfig
from trainables.data.training import Extra
from trainables.loop import Mixed, Step, add_gradients, batch_loss, fit, micro_batches
from trainables.models.heads import Answer
from trainables.registry import ConfigError
from trainables.seeding import generator
from trainables.semi import SHIFT, build_semi, fixmatch

CPU = torch.device("cpu")
FIXMATCH = {"name": "fixmatch", "confidence": 0.1, "ratio": 3}


@pytest.fixture(scope="module")
def more(few):
    """Few labelled images, and those of the other training groups without labels."""
    spare = np.setdiff1d(np.arange(len(few.images)), np.concatenate([few.split.train, few.split.valid]))[:60]
    return replace(few, extra=(Extra(few.images.take(spare), few.views, unlabelled=True),))


def reports(config, parts, *resumed):
    return [
        (epoch.report.train_loss, epoch.report.score, [one.tobytes() for one in epoch.probabilities])
        for epoch in fit(parts, config.train, epochs=config.epochs, seed=config.seed, **dict(resumed))
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_cross_entropy_with_sure_pseudo_labels_averaged_over_all_images(seed):
    rng = np.random.default_rng(seed)
    weak, strong = rng.normal(0, 2, size=(2, 9, 4))
    expected = 0.0
    for one, other in zip(weak, strong, strict=True):
        chances, logs = np.exp(one) / np.exp(one).sum(), other - np.log(np.exp(other).sum())
        expected -= (chances.max() >= 0.7) * logs[chances.argmax()] / 9
    assert fixmatch(torch.tensor(weak), torch.tensor(strong), 0.7).item() == pytest.approx(expected, rel=1e-5)
    assert expected > 0


def test_no_gradient_goes_through_the_weak_versions_nor_through_images_that_are_not_sure():
    weak = torch.tensor([[5.0, 0, 0], [0.1, 0, 0]], requires_grad=True)
    strong = torch.zeros(2, 3, requires_grad=True)
    fixmatch(weak, strong, 0.9).backward()
    assert weak.grad is None
    third = 1 / 3
    assert torch.allclose(strong.grad, torch.tensor([[third - 1, third, third], [0, 0, 0]]) / 2)
    assert fixmatch(weak, strong, 1.0).item() == 0


def test_the_versions_keep_the_trials_flips_and_the_strong_one_is_changed_further():
    semi = build_semi(section("semi", name="fixmatch", ops=3, magnitude=0.7))
    assert semi and build_semi(section("semi")) is None
    weak, strong = semi.weak(AugmentConfig(flip=0.5, blur=0.3)), semi.strong(AugmentConfig(flip=0.5, blur=0.3))
    assert weak == AugmentConfig(flip=0.5, shift=SHIFT)
    assert (strong.policy, strong.ops, strong.magnitude, strong.dropout, strong.flip, strong.blur) == ("rand", 3, 0.7, 1.0, 0.5, 0.0)


def test_every_batch_brings_images_without_labels_in_two_versions_each_of_them_as_often(more, small_batches):
    batches = build_parts(small_batches(semi=FIXMATCH), more, CPU).batches
    shown = batches.pairs.order(len(batches) * 24, generator(0, "unlabelled", 1))
    counts = np.bincount(shown, minlength=60)
    assert len(shown) == len(batches) * 24 and counts.max() - counts.min() <= 1
    for batch in batches.epoch(1):
        weak, strong = batch.unlabelled
        assert weak.shape == strong.shape == (24, 32, 32, 3) and weak.dtype == torch.uint8
        assert (weak != strong).float().mean() > 0.2


def test_they_change_nothing_about_the_labelled_images_of_a_batch_nor_do_threads(more, small_batches):
    augment = {"flip": 0.5, "rotate": 20.0}
    plain, semi = (build_parts(small_batches(semi=one, augment=augment), more, CPU).batches for one in ({}, FIXMATCH))
    helped = replace(semi, threads=3)
    for one, other, third in zip(plain.epoch(2), semi.epoch(2), helped.epoch(2), strict=True):
        assert one.unlabelled is None and torch.equal(one.images, other.images) and torch.equal(one.targets[0], other.targets[0])
        assert all(torch.equal(*pair) for pair in zip(other.unlabelled, third.unlabelled, strict=True))


@pytest.mark.parametrize("task", ["joint", "heads"])
def test_the_loss_of_a_batch_is_that_of_its_labelled_images_and_the_weighted_one_of_the_others_over_all_heads(more, small_batches, task):
    parts = build_parts(small_batches(task=task, semi=FIXMATCH | {"weight": 2.0}), more, CPU)
    sizes = [part.classes for part in parts.task.head_schemes]
    torch.manual_seed(0)
    logits = [torch.randn(4 + 2 * 12, size) for size in sizes]
    targets = [torch.zeros(4, dtype=torch.int64) for _ in sizes]
    parts = replace(parts, model=lambda images: Answer([own[: len(images)] for own in logits]))
    images = torch.zeros(4, 3, 32, 32)
    pair = (torch.zeros(12, 3, 32, 32), torch.zeros(12, 3, 32, 32))
    labelled = batch_loss(parts, Mixed(images, targets, torch.zeros(4)))
    found = batch_loss(parts, Mixed(images, targets, torch.zeros(4), pair))
    expected = labelled + 2 * sum(fixmatch(own[4:16], own[16:], 0.1) for own in logits)
    assert torch.allclose(found, expected)


def test_micro_batches_take_their_share_of_both(more, small_batches):
    pair = (torch.arange(24), torch.arange(24) + 100)
    parted = list(micro_batches(Mixed(torch.arange(8), [torch.arange(8)], torch.rand(8), pair), 3))
    assert [len(part.images) for part in parted] == [3, 3, 2]
    for number in range(2):
        assert torch.equal(torch.cat([part.unlabelled[number] for part in parted]), pair[number])


def test_two_trials_compute_the_same_bits_and_others_than_without_such_images(more, small_batches):
    config, without = small_batches(epochs=1, semi=FIXMATCH), small_batches(epochs=1)
    first, again, plain = (reports(one, build_parts(one, more, CPU)) for one in (config, config, without))
    assert first == again != plain


@pytest.mark.nightly
def test_a_trial_that_resumes_computes_the_bits_of_an_uninterrupted_one(more, small_batches):
    config = small_batches(epochs=2, semi=FIXMATCH, model={"backbone": "test_efficientnet", "dropout": 0.2})
    whole, cut, resumed = (build_parts(config, more, CPU) for _ in range(3))
    expected = reports(config, whole)
    first = next(fit(cut, config.train, epochs=2, seed=config.seed))
    packed = pack_progress(cut, first.progress)
    torch.rand(3)
    assert reports(config, resumed, ("progress", unpack_progress(packed, resumed))) == expected[1:]


def test_images_without_labels_do_not_train_as_labelled_ones(more, few, small_batches):
    config = small_batches()
    with_extra, without = (build_parts(config, one, CPU).batches.images for one in (more, few))
    assert with_extra.ids.tolist() == without.ids.tolist()


def test_the_gradient_is_that_of_both_losses(more, small_batches):
    parts = build_parts(small_batches(semi=FIXMATCH, optimizer={"sam": 0.05}), more, CPU)
    batch = next(parts.batches.epoch(1))
    gradients = []
    for one in (batch, replace(batch, unlabelled=None)):
        parts.optimizer.zero_grad()
        add_gradients(parts, Step([one], 1, 0.1, 1, 1), generator(0, "mix"))
        gradients.append(torch.cat([weight.grad.flatten() for weight in parts.model.parameters() if weight.grad is not None]))
    assert not torch.allclose(*gradients)


def test_what_cannot_learn_so_is_refused_by_name(few, small_batches):
    with pytest.raises(ConfigError) as caught:
        build_parts(small_batches(semi=FIXMATCH), few, CPU)
    assert not missing(str(caught.value), "semi/name: fixmatch", "data/unlabelled")


@pytest.mark.nightly
def test_a_trial_with_images_without_labels_learns_the_drawn_people(more, small_batches):
    config = small_batches(epochs=8, task="mask", optimizer={"lr": 1e-2}, semi=FIXMATCH | {"confidence": 0.8})
    found = [score for _, score, _ in reports(config, build_parts(config, more, CPU))]
    assert max(found) > found[0] and max(found) > 0.4
