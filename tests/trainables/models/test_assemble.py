import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.trainables.models.variants import EVERY_VARIANT, VARIANTS, with_backbone
from trainables.build import build_parts
from trainables.config import section
from trainables.data.layouts.contest import contest_scheme
from trainables.data.targets import read_task
from trainables.loop import fit, total_loss
from trainables.models.assemble import IMAGENET, build_model, to_input
from trainables.models.backbone import build_backbone, networks

CPU = torch.device("cpu")
SCHEME = contest_scheme((30, 60))
EVERY = pytest.mark.parametrize("variant", VARIANTS)
EVERY_NETWORK = pytest.mark.parametrize(("variant", "name"), EVERY_VARIANT)


def build(config, statistics=IMAGENET, numbers=(0.0, 1.0)):
    return build_model(config, read_task(config.task, SCHEME), statistics, numbers)


def some_images(config, count=4) -> torch.Tensor:
    channels = 3 if config.model.edges == "none" else 4
    return torch.rand(count, channels, 32, 32, generator=torch.Generator().manual_seed(0)) * 255


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


@EVERY_NETWORK
def test_first_weights_depend_on_the_seed_alone_and_torchs_generator_is_left_alone(make_config, name, variant):
    sections = with_backbone(variant, name)
    torch.manual_seed(1)
    first, after = build(make_config(**sections)), torch.rand(1)
    torch.manual_seed(2)
    again = build(make_config(**sections))
    assert same(first, again) and not same(first, build(make_config(**sections, seed=1)))
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize("loss", [{}, {"name": "arcface"}, {"ordinal": "coral"}])
@pytest.mark.parametrize(
    ("task", "classes"), [("joint", [18]), ("heads", [3, 2, 3]), ("age", [3]), ([["mask", "gender"], ["age"]], [6, 3])]
)
def test_a_model_has_a_head_of_logits_for_every_head_of_its_task(make_config, task, classes, loss):
    config = make_config(task=task, loss=loss)
    answer = build(config)(some_images(config))
    assert [tuple(head.shape) for head in answer.logits] == [(4, count) for count in classes]


@pytest.mark.parametrize("regression", [0.0, 0.3])
def test_a_number_is_answered_only_where_the_loss_asks_for_one(make_config, regression):
    config = make_config(loss={"regression": regression})
    model = build(config, numbers=(40.0, 12.0)).eval()
    number = model(some_images(config)).number
    if not regression:
        assert number is None and not any("number" in name for name in model.state_dict())
        return
    features = model.backbone((some_images(config) - model.mean) / model.std)
    torch.testing.assert_close(number, 40 + 12 * model.heads.number.layer(features).squeeze(1))
    assert number.shape == (4,) and number.dtype == torch.float32


def test_normalisation_is_part_of_the_model(make_config):
    statistics = ((0.1, 0.5, 0.7), (0.2, 0.3, 0.4))
    config = make_config()
    model = build(config, statistics).eval()
    images = some_images(config)
    by_hand = (images / 255 - torch.tensor(statistics[0]).view(1, 3, 1, 1)) / torch.tensor(statistics[1]).view(1, 3, 1, 1)
    torch.testing.assert_close(model(images).logits, model.heads(model.backbone(by_hand)).logits)
    assert {"mean", "std"} <= model.state_dict().keys()


@pytest.mark.parametrize("way", ["mix", "stem"])
def test_edges_are_0_or_1_and_not_normalised(make_config, way):
    model = build(make_config(model={"edges": way}), ((0.1, 0.5, 0.7), (0.2, 0.3, 0.4)))
    torch.testing.assert_close(model.mean.flatten() / 255, torch.tensor([0.1, 0.5, 0.7, 0.0]))
    torch.testing.assert_close(model.std.flatten() / 255, torch.tensor([0.2, 0.3, 0.4, 1.0]))


@EVERY_NETWORK
def test_weights_from_a_file_are_in_place_before_the_first_step(make_config, tmp_path, name, variant):
    config = make_config(**with_backbone(variant, name, weights=str(tmp_path / "{backbone}.safetensors")))
    files = {}
    for number, one in enumerate({config.model.backbone, config.model.second} - {""}):
        torch.manual_seed(number)
        files[one] = build_backbone(section("model", backbone=one, weights="none"), (32, 32))[0].state_dict()
        save_file(files[one], tmp_path / f"{one}.safetensors")
    model = build(config)
    model.begin_epoch(1)
    used = [config.model.backbone, config.model.second]
    for one, network in zip(used, networks(model.backbone).values(), strict=False):
        found = network.state_dict()
        assert found.keys() == files[one].keys()
        for key, value in files[one].items():
            if found[key].shape != value.shape:
                assert config.model.edges == "stem" and not found[key][:, 3].any()
                found[key] = found[key][:, :3]
            assert torch.equal(found[key], value), f"{one}: {key}"


@EVERY_NETWORK
def test_every_parameter_that_is_not_frozen_gets_a_gradient(data, make_config, name, variant):
    parts = build_parts(make_config(**with_backbone(variant, name)), data, CPU)
    parts.model.begin_epoch(1)
    batch = next(parts.batches.epoch(1))
    total_loss(parts, parts.model(to_input(batch.images, CPU)), batch.targets, batch.numbers).backward()
    for path, parameter in parts.model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, path
        if not path.startswith("backbone."):
            assert parameter.requires_grad and parameter.grad.any(), path


@EVERY
def test_the_optimizer_holds_what_is_trained_now_or_later(data, make_config, variant):
    parts = build_parts(make_config(**with_backbone(variant, "test_resnet")), data, CPU)
    held = {id(parameter) for group in parts.optimizer.param_groups for parameter in group["params"]}
    freeze = parts.model.freeze
    for path, parameter in parts.model.named_parameters():
        for_ever = freeze.epochs == float("inf") and path.removeprefix("backbone.") in freeze.names
        assert (id(parameter) in held) != for_ever, path


@EVERY
def test_every_variant_trains_all_that_stands_outside_the_backbone(few, small_batches, variant):
    config = small_batches(**with_backbone(variant, "test_resnet"))
    parts = build_parts(config, few, CPU)
    before = {path: parameter.detach().clone() for path, parameter in parts.model.named_parameters()}
    epochs = list(fit(parts, config.train, epochs=2, seed=0))
    assert len(epochs) == 2 and np.isfinite(epochs[-1].report.train_loss)
    for path, parameter in parts.model.named_parameters():
        if not path.startswith("backbone."):
            assert not torch.equal(parameter, before[path]), path


def test_a_batch_becomes_float_channels_first_and_keeps_its_values():
    images = np.random.default_rng(0).integers(256, size=(2, 5, 4, 3), dtype=np.uint8)
    made = to_input(torch.from_numpy(images), torch.device("cpu"))
    assert made.dtype == torch.float32 and made.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(made.numpy(), images.transpose(0, 3, 1, 2))
