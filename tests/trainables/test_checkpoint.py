import re
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests.conftest import ROOT
from tests.trainables.models.variants import EVERY_VARIANT, with_backbone
from trainables.build import build_parts
from trainables.card import Card
from trainables.checkpoint import load_model, pack_model, pack_progress, unpack_progress
from trainables.data.batches import plain_batches
from trainables.data.views import View
from trainables.loop import Progress, fit, predict
from trainables.models.assemble import build_model

CPU = torch.device("cpu")
STATISTICS = ((0.1, 0.5, 0.7), (0.2, 0.3, 0.4))
VIEW = torch.arange(5 * 32 * 32 * 3).reshape(5, 32, 32, 3).to(torch.uint8).numpy()


def probabilities(model, edges=False) -> list[bytes]:
    return [head.tobytes() for head in predict(model, plain_batches(VIEW, range(5), 5, edges=edges), CPU, torch.float32)]


def without_weights(config):
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": "none"})})


@pytest.mark.parametrize(("variant", "backbone"), EVERY_VARIANT)
def test_a_reloaded_model_predicts_the_same_bits_and_asks_for_nothing(data, make_config, tmp_path, backbone, variant):
    # The weights it began with need not be there any more.
    config = make_config(**with_backbone(variant, backbone, weights="imagenet") | {"task": [["age"], ["mask", "gender"]]})
    card = Card(config, data.images.scheme, epoch=4)
    model = build_model(without_weights(config), card.task, STATISTICS, (40.0, 12.0))
    edges = config.model.edges != "none"
    # Nothing in it stays as it is built.
    for parameter in model.parameters():
        parameter.data += 0.01 * torch.rand_like(parameter)
    model.begin_epoch(9)
    model(torch.rand(8, 4 if edges else 3, 32, 32) * 255)
    (tmp_path / "model.safetensors").write_bytes(pack_model(model, card))
    reloaded, read = load_model(tmp_path / "model.safetensors")
    assert read == card and not reloaded.training
    assert probabilities(reloaded, edges) == probabilities(model, edges)
    images = torch.rand(2, 4 if edges else 3, 32, 32) * 255
    answered, expected = reloaded(images).number, model(images).number
    assert (answered is None and expected is None) or torch.equal(answered, expected)
    assert (expected is not None) == bool(config.loss.regression)
    torch.testing.assert_close(reloaded.mean.flatten()[:3] / 255, torch.tensor(STATISTICS[0]))


def test_a_card_says_what_goes_in_and_what_comes_out(data, make_config):
    config = make_config(task=[["age"], ["gender"]], view={"size": [40, 32], "crop": "center", "fraction": 0.6})
    card = Card.read(Card(config, data.images.scheme, epoch=4).text())
    assert card.config == config and card.scheme == data.images.scheme and card.epoch == 4
    assert card.view == View("center", 0.6, 40, 32)
    assert card.task.heads == (("age",), ("gender",))


def test_the_same_model_packs_to_the_same_bytes_and_packing_leaves_it_alone(data, make_config):
    config = make_config()
    card = Card(config, data.images.scheme, epoch=4)
    model, again = (build_model(config, card.task, STATISTICS) for _ in range(2))
    before = probabilities(model)
    assert pack_model(model, card) == pack_model(model, card) == pack_model(again, card)
    assert probabilities(model) == before


def test_a_checkpoint_is_a_plain_safetensors_file(data, make_config, tmp_path):
    config = make_config()
    card = Card(config, data.images.scheme, epoch=4)
    model = build_model(config, card.task, STATISTICS)
    (tmp_path / "model.safetensors").write_bytes(pack_model(model, card))
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(model.state_dict())
        assert set(file.metadata()) == {"card"}


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_vit"])
def test_a_file_is_loaded_in_three_lines_without_us_as_the_page_shows(backbone, data, make_config, tmp_path):
    config = make_config(model={"backbone": backbone, "weights": "none"})
    card = Card(config, data.images.scheme, epoch=4)
    (tmp_path / "model.safetensors").write_bytes(pack_model(build_model(config, card.task, STATISTICS), card))
    image = Image.effect_noise((40, 50), 60).convert("RGB")
    image.save(tmp_path / "a.png")
    lines, use = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "elsewhere.md").read_text(), re.DOTALL)
    assert len(lines.splitlines()) == 3
    size = ", img_size=32" if backbone == "test_vit" else ""
    ours = {
        "runs/faces/trials/7/model.safetensors": f"{tmp_path}/model.safetensors",
        "a.jpg": f"{tmp_path}/a.png",
        '"resnet18"': f'"{backbone}"{size}',
    }
    for shown, here in ours.items():
        lines, use = lines.replace(shown, here), use.replace(shown, here)
    names = {name: import_module(name) for name in ("PIL.Image", "json", "numpy", "safetensors.torch", "timm", "torch")}
    found = {name.partition(".")[0]: import_module(name.partition(".")[0]) for name in names}
    exec(lines + use, found)
    view = np.array(image.resize((32, 32), Image.Resampling.BILINEAR))[None]
    (expected,) = predict(load_model(tmp_path / "model.safetensors")[0], plain_batches(view, range(1), 1), CPU, torch.float32)
    np.testing.assert_allclose(found["probabilities"].detach().numpy(), expected, rtol=1e-4, atol=1e-7)


def test_progress_is_unpacked_as_it_was_packed(data, make_config):
    config = make_config(schedule={"name": "plateau"})
    trained, fresh = (build_parts(config, data, CPU) for _ in range(2))
    epoch = next(fit(trained, config.train, epochs=2, seed=0))
    assert unpack_progress(pack_progress(trained, epoch.progress), fresh) == epoch.progress == Progress(1, 5, 1, epoch.report.score)
    for name, value in trained.model.state_dict().items():
        assert torch.equal(fresh.model.state_dict()[name], value)
    assert fresh.schedule.state() == trained.schedule.state()
    states = [parts.optimizer.state_dict()["state"] for parts in (trained, fresh)]
    assert states[0].keys() == states[1].keys() != set()
    assert all(torch.equal(states[0][key]["exp_avg"], states[1][key]["exp_avg"]) for key in states[0])


def test_progress_of_before_the_first_epoch_can_be_packed(data, make_config):
    parts = build_parts(make_config(), data, CPU)
    assert unpack_progress(pack_progress(parts, Progress()), parts) == Progress()
