import copy

import pytest
import torch
from torch import nn

from tests.conftest import nightly_after
from tests.messages import mistaken
from tests.trainables.models.variants import FAMILIES
from trainables.build import build_parts
from trainables.checkpoint import pack_progress, unpack_progress
from trainables.config import section
from trainables.data.layouts.contest import contest_scheme
from trainables.data.targets import read_task
from trainables.loop import fit
from trainables.models.assemble import IMAGENET, build_model
from trainables.models.backbone import build_backbone
from trainables.models.freezing import build_freeze
from trainables.models.stages import stages
from trainables.registry import ConfigError

CPU = torch.device("cpu")
TASK = read_task("joint", contest_scheme((30, 60)))
SMALL = pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit"])


def build(make_config, **model):
    return build_model(make_config(model=model), TASK, IMAGENET)


def refused(make_config, **model) -> str:
    with pytest.raises(ConfigError) as caught:
        build(make_config, **model)
    return str(caught.value)


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(model.state_dict())


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of the parameters and buffers that are not what they were."""
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def in_last_stages(network: nn.Module, count: int) -> set[str]:
    """Names of the parameters of the last stages, and of the buffers in the modules that hold these parameters."""
    parameters = {name for stage in stages(network)[-count:] for name in stage}
    owners = {name.rpartition(".")[0] for name in parameters}
    return parameters | {name for name, _ in network.named_buffers() if name.rpartition(".")[0] in owners}


@pytest.mark.parametrize("name", FAMILIES)
def test_in_every_family_frozen_stages_stay_what_they_are_and_the_last_one_trains(make_config, name):
    model = build(
        make_config, backbone=name, freeze="stages", train_stages=1, drop_path=0.0 if name in ("densenet121", "googlenet") else 0.2
    )
    model.begin_epoch(1)
    before = snapshot(model.backbone)
    # The rate is small, so that a network without norms stays in its range.
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-3)
    for seed in range(2):
        images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 255
        torch.manual_seed(seed)
        model(images).logits[0].logsumexp(dim=1).sum().backward()
        optimizer.step()
    moved = changed(model.backbone, before)
    last = in_last_stages(model.backbone, 1)
    assert moved and moved <= last
    assert {path for path in last if "running_" in path} <= moved
    assert {path for path, parameter in model.backbone.named_parameters() if parameter.grad is not None} == set(stages(model.backbone)[-1])


@SMALL
@pytest.mark.parametrize("freeze", ["backbone", "stages"])
def test_frozen_parts_and_their_batch_statistics_are_unchanged_by_two_epochs(few, small_batches, name, freeze):
    config = small_batches(model={"backbone": name, "freeze": freeze})
    parts = build_parts(config, few, CPU)
    before = snapshot(parts.model)
    assert len(list(fit(parts, config.train, epochs=2, seed=0))) == 2
    moved = changed(parts.model, before)
    last = {f"backbone.{path}" for path in in_last_stages(parts.model.backbone, 1)} if freeze == "stages" else set()
    assert {path for path in moved if path.startswith("heads.")} == {path for path, _ in parts.model.named_parameters() if "heads." in path}
    assert {path for path in moved if path.startswith("backbone.")} <= last
    assert bool(moved & last) == (freeze == "stages")


@SMALL
@pytest.mark.parametrize(("freeze", "unfreeze"), nightly_after(2, [("backbone", 1), ("stages", 2), ("backbone", 2), ("stages", 1)]))
def test_what_is_frozen_thaws_after_the_epoch_asked_for(few, small_batches, name, freeze, unfreeze):
    config = small_batches(epochs=3, model={"backbone": name, "freeze": freeze, "unfreeze_epoch": unfreeze})
    parts = build_parts(config, few, CPU)
    before = snapshot(parts.model)
    network = parts.model.backbone
    last = {f"backbone.{path}" for path in in_last_stages(network, 1)} if freeze == "stages" else set()
    everything = {f"backbone.{path}" for path in network.state_dict()}
    for epoch in fit(parts, config.train, epochs=3, seed=0):
        moved = {path for path in changed(parts.model, before) if path.startswith("backbone.")}
        if epoch.progress.epoch <= unfreeze:
            assert moved <= last
        else:
            assert moved - last
            statistics = {path for path in everything if "running_" in path}
            assert statistics <= moved
        parts.model.begin_epoch(epoch.progress.epoch + 1)
        frozen = epoch.progress.epoch + 1 <= unfreeze
        assert all(parameter.requires_grad for parameter in network.parameters()) != frozen
        assert all(module.training for module in network.modules()) != frozen


@pytest.mark.parametrize(
    ("epoch", "freeze"),
    nightly_after(3, [(1, "backbone"), (2, "stages"), (3, "backbone"), (1, "stages"), (2, "backbone"), (3, "stages")]),
)
def test_a_trial_that_resumes_at_any_epoch_is_frozen_as_one_that_was_never_interrupted(few, small_batches, epoch, freeze):
    config = small_batches(epochs=4, model={"backbone": "test_efficientnet", "freeze": freeze, "unfreeze_epoch": 2, "dropout": 0.2})
    whole, first, second = (build_parts(config, few, CPU) for _ in range(3))
    list(fit(whole, config.train, epochs=4, seed=0))
    run = fit(first, config.train, epochs=4, seed=0)
    progress = [next(run).progress for _ in range(epoch)][-1]
    went_on = unpack_progress(pack_progress(first, progress), second)
    list(fit(second, config.train, epochs=4, seed=0, progress=went_on))
    assert not changed(second.model, whole.model.state_dict())


def test_what_thaws_later_takes_gradients_until_the_first_epoch_begins_and_what_never_does_takes_none(make_config):
    later, never = (build(make_config, backbone="test_resnet", freeze="backbone", unfreeze_epoch=epochs) for epochs in (1, 0))
    assert all(parameter.requires_grad for parameter in later.backbone.parameters())
    assert not any(parameter.requires_grad for parameter in never.backbone.parameters())
    later.begin_epoch(1)
    assert not any(parameter.requires_grad for parameter in later.backbone.parameters())


def test_frozen_stages_leave_out_no_block(make_config):
    model = build(make_config, backbone="test_vit", freeze="stages", train_stages=2, drop_path=0.5)
    model.begin_epoch(1)
    assert [block.training for block in model.backbone.blocks] == [False] * 4 + [True] * 2
    dropping = [block.drop_path1.training for block in model.backbone.blocks if type(block.drop_path1).__name__ == "DropPath"]
    assert dropping == [False] * 3 + [True] * 2


def test_as_many_stages_as_there_are_freeze_nothing_and_are_refused_for_each_backbone(make_config):
    stages = {"test_resnet": 5, "test_vit": 7}
    expected = [("model/train_stages: ", f"{name} has {count} stages", "freeze: none") for name, count in stages.items()]
    alone = refused(make_config, backbone="test_resnet", freeze="stages", train_stages=5)
    assert not mistaken(alone.splitlines(), expected[:1])
    both = refused(make_config, backbone="test_resnet", second="test_vit", freeze="stages", train_stages=9)
    assert not mistaken(both.splitlines(), expected)
    build(make_config, backbone="test_resnet", freeze="stages", train_stages=4)


def test_stages_of_both_backbones_are_frozen(make_config):
    model = build(make_config, backbone="test_resnet", second="test_vit", freeze="stages", train_stages=2)
    for network in (model.backbone.first, model.backbone.second):
        trained = {path for path, parameter in network.named_parameters() if parameter.requires_grad}
        assert trained == {path for stage in stages(network)[-2:] for path in stage}


def test_what_a_network_never_trains_is_not_thawed():
    config = section("model", backbone="test_vit", weights="none", freeze="backbone", unfreeze_epoch=1)
    backbone, _ = build_backbone(config, (32, 32))
    backbone.pos_embed.requires_grad_(False)
    freeze = build_freeze(config, backbone)
    for epoch in (1, 2):
        freeze.begin_epoch(backbone.train(), epoch)
        trained = {path for path, parameter in backbone.named_parameters() if parameter.requires_grad}
        assert trained == (set() if epoch == 1 else {path for path, _ in backbone.named_parameters()} - {"pos_embed"})
