"""Everything that the five reports tried by hand, as a configuration: the row of the reference task's checklist -> its settings.

A row is here when its technique is a value of a setting. All rows, with commands and tests of the others: `tests/reference_rows.py`.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from search_spaces.schema import flat, nested
from tests.conftest import nightly_after
from trainables.build import build_parts
from trainables.config import TrialConfig
from trainables.data.layouts.reading import read_images
from trainables.data.sampling import Sampler
from trainables.data.splits import NO_FOLD, split_groups
from trainables.data.training import Data, Extra
from trainables.data.views import View, build_views, statistics_of
from trainables.loop import Parts, train_epoch
from trainables.record import start_record
from trainables.seeding import generator
from tuner.demo.writing import write_people

CPU = torch.device("cpu")
STEPS = 6

FACE = {"view/crop": "face", "view/margin": 0.5}
VERTICAL = {"mix/name": "cutmix_vertical", "mix/prob": 0.7, "mix/low": 0.46, "mix/high": 0.54}

TECHNIQUES: dict[str, dict] = {
    "S0-2": {"augment/brightness": 0.1, "augment/contrast": 0.1, "augment/saturation": 0.1, "augment/hue": 0.1},
    "S0-3": {"view/crop": "box", "view/box": [80, 60]},
    "S0-4": {"augment/rotate": 15.0},
    "S0-5": {"augment/flip": 0.5},
    "S0-6": {"normalize": [[0.56, 0.524, 0.501], [0.258, 0.265, 0.267]]},
    "S0-7": {"mix/name": "mixup", "mix/prob": 1.0, "mix/alpha": 0.1, "loss/name": "bce"},
    "S0-8": {"mix/name": "cutmix", "mix/prob": 1.0, "mix/alpha": 1.0, "loss/name": "focal"},
    "S0-9": {"view/fit": "stretch", "view/size": [48, 32]},
    "S0-10": {"view/size": [64, 48]},
    "S0-11": {"data/holdout": 0.2, "data/folds": 2},
    "S0-12": {"data/folds": 2, "data/fold": 1},
    "S0-13": {"sampler/name": "weighted", "sampler/power": 1.0},
    "S0-14": {"loss/name": "cross_entropy", "loss/smoothing": 0.1},
    "S0-15": {"loss/name": "arcface", "loss/scale": 30.0, "loss/margin": 0.5},
    "S0-16": {"model/backbone": "resnet18", "model/weights": "none"},
    "S0-17": {"train/patience": 5},
    "S0-18": {"model/edges": "mix", "task": "age"},
    "S0-19": {"optimizer/name": "sgd", "optimizer/momentum": 0.9, "optimizer/nesterov": True, "optimizer/lr": 1e-2},
    "S0-20": {"optimizer/name": "adam", "optimizer/weight_decay": 0.01},
    "S0-21": {"schedule/name": "restarts", "schedule/floor": 0.01, "schedule/cycles": 2},
    "S0-22": {"train/batch_size": 8},
    "S0-23": {"task": "gender"},
    "S0-30": {"train/precision": "bf16"},
    "S1-1": {"model/backbone": "test_vit", "loss/smoothing": 0.1},
    "S1-2": {"model/backbone": "test_vit", "optimizer/layer_decay": 0.75},
    "S1-3": {"model/backbone": "eca_nfnet_l0", "model/weights": "none", "view/size": 32},
    "S1-5": {"augment/clahe": 0.2, "augment/sharpen": 0.2, "augment/gray": 0.2, "augment/blur": 0.2, "augment/pca": 0.1},
    "S1-6": {"augment/zoom": 0.2},
    "S1-9": {"loss/name": "focal", "loss/gamma": 2.0},
    "S1-10": {"loss/alpha": "inverse"},
    "S1-11": {"sampler/name": "weighted", "task": "age"},
    "S1-12": {"task": "heads"},
    "S1-13": {"task": [["mask", "gender"], ["age"]]},
    "S1-14": {"task": "age", "loss/regression": 0.05},
    "S1-15": {"task": "age", "loss/regression": 0.05, "labels/jitter": 5.0},
    "S1-16": {"labels/extra": True},
    "S1-17": {"labels/extra": True, "task": "mask"},
    "S1-19": {"model/weights": "{folder}/{backbone}.safetensors"},
    "S1-22": {"labels/extra": True, "labels/confidence": 0.5},
    "S1-23": {
        "model/dropout": 0.5,
        "model/dropout_samples": 5,
        "model/freeze": "backbone",
        "model/unfreeze_epoch": 1,
        "schedule/warmup": 0.1,
    },
    "S1-24": {"optimizer/name": "adamp", "schedule/name": "one_cycle"},
    "S1-25": {"augment/dropout": 0.5, "augment/grid_dropout": 0.5},
    "S1-26": {"labels/extra": True, "task": "joint"},
    "S1-27": {"sampler/name": "weighted", "sampler/power": 0.0, "view/crop": "center", "view/fraction": 0.7},
    "S1-28": {"model/backbone": "test_vit", "pool/name": "residual_attention"},
    "S1-29": {"model/backbone": "test_vit", "normalize": "backbone"},
    "S1-30": {"semi/name": "fixmatch", "semi/confidence": 0.2, "model/dropout": 0.2},
    "S2-3": {"labels/relabel": "consensus"},
    "S2-4": {"task": [["mask"], ["gender", "age"]]},
    "S2-5": {"labels/cuts": [30, 58], "task": "age"},
    "S2-6": {"sampler/name": "oversample"},
    "S2-7": {"sampler/name": "oversample", "augment/flip": 0.5, "augment/erase": 0.5},
    "S2-8": {"view/fit": "cover", "view/size": 32},
    "S2-9": {"view/crop": "box", "view/box": [64, 64]},
    "S2-10": {"augment/flip": 0.5},
    "S2-11": {"augment/shift": 0.06, "augment/scale": 0.1, "augment/rotate": 15.0},
    "S2-12": {"augment/hue": 0.1, "augment/saturation": 0.2},
    "S2-13": {"augment/brightness": 0.1, "augment/contrast": 0.1},
    "S2-14": {"augment/noise": 0.05},
    "S2-15": {"normalize": "imagenet"},
    "S2-16": {"model/backbone": "resnext26ts", "model/weights": "none"},
    "S2-17": {"model/freeze": "backbone", "model/hidden": 64, "model/dropout": 0.2},
    "S2-18": {"loss/name": "focal"},
    "S2-19": {"optimizer/name": "adam", "schedule/name": "cosine", "schedule/floor": 0.0},
    "S2-23": {"view/size": 32},
    "S3-2": {"data/folds": 2},
    "S3-4": {"task": "mask"},
    "S3-5": {"task": "age", "loss/ordinal": "number", "loss/regression": 0.05},
    "S3-6": {"model/second": "test_resnet"},
    "S3-7": {"sampler/name": "oversample", "task": "age"},
    "S3-8": {"sampler/name": "undersample", "task": "age"},
    "S3-10": FACE,
    "S3-11": {"mix/name": "cutmix", "mix/alpha": 1.0, "mix/prob": 0.5},
    "S3-12": {"loss/name": "cosine_ce", "loss/cosine": 0.1},
    "S3-13": {"optimizer/lr": 1e-4},
    "S3-15": {"train/accumulate": 2, "train/patience": 3, "loss/name": "focal", "schedule/name": "step", "schedule/factor": 0.5},
    "S3-16": {"model/backbone": "googlenet", "model/weights": "none", "view/size": 32},
    "S3-17": {"labels/extra": True},
    "S3-18": {"seed": 7},
    "S4-1": {"task": "heads"},
    "S4-3": {"labels/remove": [[27, 29], [57, 59]]},
    "S4-4": {"labels/cuts": [30, 58]},
    "S4-5": FACE,
    "S4-6": FACE,
    "S4-7": FACE | {"view/fraction": 0.7},
    "S4-8": {"view/crop": "grabcut", "view/fraction": 0.9},
    "S4-11": {"labels/extra": True, "labels/confidence": 0.6},
    "S4-12": {"augment/flip": 0.5},
    "S4-13": {"augment/saturation": 0.05, "augment/hue": 0.02},
    "S4-14": {"augment/erase": 1.0, "augment/erase_area": [0.05, 0.05], "augment/erase_aspect": [0.5, 1.0]},
    "S4-15": {"augment/brightness": 0.2, "augment/rotate": 10.0, "augment/shift": 0.1, "augment/most": 2},
    "S4-16": {"mix/name": "cutmix_intra", "mix/partner": "train", "mix/prob": 0.5, "mix/low": 0.5, "mix/high": 0.5},
    "S4-17": VERTICAL,
    "S4-19": {"model/backbone": "resnet34", "model/weights": "none"},
    "S4-20": {"model/backbone": "efficientnet_lite0", "model/weights": "none"},
    "S4-21": {"model/backbone": "test_vit"},
    "S4-22": {"view/size": 48, "train/batch_size": 32},
    "S4-23": {"sampler/name": "weighted"},
    "S4-24": {"optimizer/name": "adam", "optimizer/weight_decay": 5e-4, "schedule/name": "step", "schedule/every": 5},
    "S4-25": {"loss/name": "ce_f1", "loss/share": 0.5},
    "S4-26": {"data/fold": NO_FOLD, "data/only": 0},
    "S4-32": {"task": "age", "loss/name": "arcface", "loss/scale": 64.0, "loss/margin": 0.2, "model/neck": "batchnorm"},
    "S4-35": {"augment/policy": "rand", "augment/ops": 2, "augment/magnitude": 0.3},
    # Of the union in 3.1, what no row names by itself.
    "3.1 symmetric CE": {"loss/name": "symmetric_ce"},
    "3.1 soft F1": {"loss/name": "soft_f1"},
    "3.1 LDAM": {"loss/name": "ldam", "loss/margin": 0.5},
    "3.1 CORAL": {"task": "age", "loss/ordinal": "coral"},
    "3.1 CosFace": {"loss/name": "cosface", "loss/margin": 0.35},
    "3.1 DenseNet": {"model/backbone": "densenet121", "model/weights": "none", "view/size": 32},
    "3.1 alpha a head": {"task": "heads", "loss/name": "focal", "loss/alpha": ["inverse", "none", [1.0, 1.0, 3.0]]},
    "3.1 class-balanced": {"loss/alpha": "effective", "loss/beta": 0.9},
    "3.1 edges in the stem": {"model/edges": "stem"},
    "3.1 hidden layers": {"model/hidden": 32},
    "3.1 attention pooling": {"model/backbone": "test_vit", "pool/name": "attention"},
    "3.1 drop path": {"model/drop_path": 0.1, "model/backbone": "test_vit"},
    "3.1 last stages": {"model/freeze": "stages", "model/train_stages": 2},
    "3.1 bars": {"view/fit": "contain"},
    "3.1 distortions": {"augment/elastic": 0.3, "augment/distort": 0.2, "augment/tiles": 0.3},
    "3.1 TrivialAugment": {"augment/policy": "trivial"},
    "3.1 one image of seven": {"sampler/name": "one_per_person", "train/batch_size": 8},
    "3.1 Adagrad": {"optimizer/name": "adagrad", "optimizer/lr": 1e-2},
    "3.1 RAdam": {"optimizer/name": "radam"},
    "3.1 NAdam": {"optimizer/name": "nadam"},
    "3.1 Lion": {"optimizer/name": "lion", "optimizer/lr": 1e-3},
    "3.1 MADGRAD": {"optimizer/name": "madgrad"},
    "3.1 SAM": {"optimizer/sam": 0.05},
    "3.1 multi-step": {"schedule/name": "multi_step", "schedule/milestones": [0.5, 0.75]},
    "3.1 exponential": {"schedule/name": "exponential", "schedule/factor": 0.9},
    "3.1 lambda": {"schedule/name": "poly", "schedule/power": 2.0},
    "3.1 cyclic": {"schedule/name": "cyclic", "schedule/cycles": 2, "schedule/decay": 0.8},
    "3.1 plateau": {"schedule/name": "plateau", "schedule/patience": 1},
    "3.1 averaged weights": {"train/ema": 0.9},
    "3.1 dataset statistics": {"normalize": "dataset"},
}

BASE = {
    "epochs": 4,
    "seed": 0,
    "data/holdout": 0.2,
    "data/folds": 2,
    "view/size": 32,
    "model/backbone": "test_efficientnet",
    "model/weights": "{folder}/{backbone}.safetensors",
    "optimizer/lr": 1e-3,
    "train/batch_size": 16,
}

every_technique = pytest.mark.parametrize("row", TECHNIQUES)
# What trains, on a push: each set of settings once, one of the large backbones, and one view that looks for faces.
LARGE = {"eca_nfnet_l0", "resnext26ts", "googlenet", "densenet121", "resnet34", "efficientnet_lite0"}
SLOW_VIEWS = {"S4-7", "S4-8"}
SMALL = {row: changes for row, changes in TECHNIQUES.items() if changes.get("model/backbone") not in LARGE and row not in SLOW_VIEWS}
INITIALISED = [row for row, changes in TECHNIQUES.items() if "model/weights" not in changes or "{" in changes["model/weights"]]
INITIALISED.sort(key=lambda row: row in SLOW_VIEWS)
TRAINED = list({str(changes): row for row, changes in reversed(SMALL.items())}.values())


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """State dicts of the tiny backbones, in place of those that a hub would give."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    for name in ("test_efficientnet", "test_resnet", "test_vit"):
        size = {"img_size": 32} if timm.get_pretrained_cfg(name).fixed_input_size else {}
        save_file(timm.create_model(name, num_classes=0, **size).state_dict(), folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def strangers(tmp_path_factory) -> Path:
    """People who are not in the demo."""
    return write_people(tmp_path_factory.mktemp("strangers") / "strangers", people=20, eval_people=1, seed=5, size=(72, 96))


@pytest.fixture(scope="module")
def config_of(weights) -> Callable[[str], TrialConfig]:
    def config(row: str) -> TrialConfig:
        values = BASE | TECHNIQUES[row]
        values["model/weights"] = values["model/weights"].replace("{folder}", str(weights))
        return TrialConfig.from_values(nested(values))

    return config


@pytest.fixture(scope="module")
def data_of(demo, strangers, cache) -> Callable[[TrialConfig], Data]:
    """The demo people as a trial needs them, with extra images, pseudo-labels, corrections and weights at hand."""

    def data(config: TrialConfig) -> Data:
        view = View.of(config.view)
        found = read_images(demo, config.data)
        files = build_views(found, [view], cache)
        images = found.without(files.bad)
        split = split_groups(images, config.data, seed=0)
        others = read_images(strangers, config.data)
        views = build_views(others, [view], cache)
        others = others.without(views.bad)
        soft = np.random.default_rng(0).dirichlet(np.full(others.scheme.classes, 0.05), size=len(others)).astype(np.float32)
        corrected = images.labels.copy()
        corrected[:7, 1] = 1 - corrected[:7, 1]
        return Data(
            images,
            split,
            files.files,
            {view: statistics_of(files.files[view], images.take(split.train).ids)},
            extra=(Extra(others, views.files), Extra(others, views.files, soft), Extra(others, views.files, unlabelled=True)),
            relabelled={"consensus": corrected},
            weights=np.where(images.labels[:, 0] == 1, 2.0, 1.0),
        )

    return data


def on_one_group(parts: Parts, accumulate: int) -> Parts:
    """The parts with the batches of one optimizer step, repeated for ever."""
    positions = parts.batches.order(1)[: accumulate * parts.batches.batch_size]
    always = Sampler(len, lambda images, rng: np.arange(len(images)))
    return replace(parts, batches=replace(parts.batches, images=parts.batches.images.take(positions), sampler=always))


@pytest.mark.parametrize("row", nightly_after(len(TRAINED), [*TRAINED, *(row for row in TECHNIQUES if row not in TRAINED)]))
def test_a_technique_learns_a_repeated_batch_and_reaches_every_parameter_that_is_to_learn(row, config_of, data_of):
    config = config_of(row)
    parts = build_parts(config, data_of(config), CPU)
    parts = on_one_group(parts, config.train.accumulate)
    reached = set()
    for name, parameter in parts.model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda found, name=name: reached.add(name) if found.grad.abs().sum() > 0 else None)
    middle, losses = parts.schedule.span.total // 2, []
    # A backbone that thaws is reached once it has thawed.
    epoch = getattr(config.model, "unfreeze_epoch", 0) + 1
    for _ in range(STEPS):
        torch.manual_seed(0)
        losses.append(train_epoch(parts, config.train, epoch=epoch, first_step=middle, rng=generator(0, "mix")).loss)
    assert np.isfinite(losses).all() and losses[-1] < losses[0], losses
    assert reached == {name for name, parameter in parts.model.named_parameters() if parameter.requires_grad}


@every_technique
def test_what_a_technique_sets_stands_in_the_record(row, config_of, tmp_path):
    config = config_of(row)
    start_record(tmp_path / "0", config)
    written = flat(json.loads((tmp_path / "0" / "config.json").read_text()))
    for path, value in (TECHNIQUES[row] | {"model/weights": config.model.weights}).items():
        assert written[path] == value, path


@pytest.mark.parametrize("row", nightly_after(len(INITIALISED) - len(SLOW_VIEWS), INITIALISED))
def test_pretrained_weights_are_those_of_the_file_before_the_first_step(row, config_of, data_of):
    config = config_of(row)
    state = build_parts(config, data_of(config), CPU).model.state_dict()
    for name in filter(None, (config.model.backbone, config.model.second)):
        for key, value in load_file(config.model.weights.replace("{backbone}", name)).items():
            found = [own for full, own in state.items() if full.endswith(f".{key}") and own.shape[:1] == value.shape[:1]]
            # A first layer that was widened for the edges keeps the weights of the colours.
            assert any(torch.equal(own[:, : value.shape[1]] if own.ndim > 1 else own, value) for own in found), key
