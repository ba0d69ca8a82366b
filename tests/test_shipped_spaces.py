"""Every space that comes with the package, with a GPU and without: what it draws exists, can be built, trains, and means something."""

import hashlib
from functools import cache as remember
from itertools import product

import numpy as np
import pytest
import timm
import torch

from search_spaces.read import BASES, FOLDER, read_space, shipped_spaces
from search_spaces.schema import Choice, Space, SpaceError, flat, same
from tests.conftest import nightly_after
from trainables.build import build_parts
from trainables.config import TrialConfig, choosers
from trainables.data.layouts.contest import contest_scheme
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig
from trainables.data.training import Data
from trainables.data.views import build_views
from trainables.models.backbone import build_backbone
from trainables.models.settings import ModelConfig
from tuner.preflight import check_space, cover, covered_targets, draw, values_of, views_of
from tuner.rehearsal import rehearse
from tuner.searchers.random import random_draws

SCHEME = contest_scheme((30, 60))
FIXED = {"epochs": 2, "seed": 0}
DEMO = ["data/folds=2", "data/holdout=0.2"]  # as conftest splits the demo's people

# Of what each space draws, with a GPU and without: the names of Optuna's parameters, their order, and the values for one seed. A proposal
# is repeated only as long as these stay.
DRAWN = {
    "all.yaml": ("e217e3c0c09a46ef", "a2a70079c44483a1"),
    "beit.yaml": ("85d4a08e71b2c9f8", "d269b1ed5902cefc"),
    "coatnet.yaml": ("875ff4bca4208863", "28bee78eb80eef42"),
    "convnext.yaml": ("fe84a813cc8f6021", "8f78f148097a0312"),
    "densenet.yaml": ("525b268403b92aa4", "e8639a3d03de55cd"),
    "effnet.yaml": ("6d5858138ee29ba8", "23b2f932843aa265"),
    "mobilenet.yaml": ("b0fa847904833d9b", "25214b3972aed130"),
    "nfnet.yaml": ("d23d45e6bd3a0d9d", "58ab60092a0ff414"),
    "quickstart.yaml": ("ca37726cf2fee050", "ca37726cf2fee050"),
    "regnet.yaml": ("38209d25d055351f", "6e40f08de71d7dd8"),
    "reports/000.yaml": ("8fcfdf9ecf0747e2", "c1faff8a2c85cc10"),
    "reports/001.yaml": ("cd07a14d1f49e555", "a13b1b3510c92a20"),
    "reports/002.yaml": ("6093da14e3983404", "c5d75469e735a067"),
    "reports/003.yaml": ("e32a9b21d6955cc1", "3d413ea6f9de61a4"),
    "reports/004.yaml": ("5b0ee701afaea17c", "28af28ded62717d9"),
    "resnet.yaml": ("dcf4d8f12ff271d0", "f7a5ee7411d60c0c"),
    "resnext.yaml": ("befc6bb5bcba2bc4", "9b662acad48fe9c7"),
    "swin.yaml": ("40d38f7514529603", "3ad4be4cbd9fc26a"),
    "vit.yaml": ("74f2196e613664c0", "d44704c9dd72622e"),
}

every_space = pytest.mark.parametrize("name", shipped_spaces())
# Of those whose models are built, a small one, transformers, and the one that searches most on a push.
FIRST = ("quickstart.yaml", "vit.yaml")
few_spaces = pytest.mark.parametrize("name", nightly_after(len(FIRST), [*FIRST, *(name for name in shipped_spaces() if name not in FIRST)]))
on_both = pytest.mark.parametrize("on_cpu", [False, True], ids=["gpu", "cpu"])


class Dice:
    """Optuna's suggest methods, drawing evenly: a `Space` takes anything that has them, and thousands of draws take a second."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.asked: list[str] = []

    def suggest_categorical(self, path: str, choices: tuple):
        return self._note(path, choices[self.rng.integers(len(choices))])

    def suggest_float(self, path: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        assert step is None
        value = float(np.clip(np.exp(self.rng.uniform(np.log(low), np.log(high))) if log else self.rng.uniform(low, high), low, high))
        return self._note(path, value)

    def suggest_int(self, path: str, low: int, high: int, *, log: bool, step: int) -> int:
        assert not log
        return self._note(path, int(self.rng.choice(np.arange(low, high + 1, step))))

    def _note(self, path: str, value):
        self.asked.append(f"{path}={value:.6g}" if isinstance(value, float) else f"{path}={value}")
        return value


@remember
def shipped(name: str, on_cpu: bool) -> Space:
    return read_space(name, on_cpu=on_cpu, choosers=choosers())


@remember
def draws(name: str, on_cpu: bool) -> list[dict]:
    """2,000 configurations, by path."""
    rng = np.random.default_rng(0)
    return [flat(shipped(name, on_cpu)(Dice(rng))) for _ in range(2000)]


@every_space
@on_both
def test_nothing_is_wrong_with_a_shipped_space(name, on_cpu):
    assert check_space(shipped(name, on_cpu), SCHEME) == []
    assert views_of(shipped(name, on_cpu))


@every_space
@on_both
def test_the_draws_of_a_shipped_space_are_what_they_were(name, on_cpu):
    dice = Dice(np.random.default_rng(0))
    for _ in range(200):
        shipped(name, on_cpu)(dice)
    assert hashlib.sha256("\n".join(dice.asked).encode()).hexdigest()[:16] == DRAWN[name][on_cpu]


@every_space
@on_both
def test_what_is_drawn_from_a_shipped_space_can_be_trained(name, on_cpu):
    drawn = draw(shipped(name, on_cpu), FIXED, seed=1, count=100)
    assert len(drawn) == 100
    assert all(TrialConfig.from_values(values).epochs == 2 for values in drawn)
    assert covered_targets([values["task"] for values in drawn], SCHEME)


@every_space
@on_both
def test_a_conditional_value_stands_only_where_its_condition_holds(name, on_cpu):
    conditional = [parameter for parameter in shipped(name, on_cpu).parameters if parameter.when]
    for values in draws(name, on_cpu):
        for parameter in conditional:
            holds = all(path in values and any(same(values[path], one) for one in allowed) for path, allowed in parameter.when)
            assert (parameter.path in values) == holds


@every_space
@on_both
def test_every_choice_of_a_shipped_space_is_drawn(name, on_cpu):
    for parameter in shipped(name, on_cpu).parameters:
        seen = [values[parameter.path] for values in draws(name, on_cpu) if parameter.path in values]
        expected = parameter.domain.values if isinstance(parameter.domain, Choice) else seen[:1]
        assert expected and all(value in seen for value in expected), parameter.path
        assert all(parameter.domain.holds(value) for value in seen)


@every_space
def test_the_start_entries_are_drawn_first(name):
    space = shipped(name, False)
    drawn = random_draws(space, FIXED, seed=0, count=len(space.start))
    for entry, values in zip(space.start, drawn, strict=True):
        assert entry.items() <= flat(values).items()


@every_space
def test_the_header_of_a_shipped_space_is_a_lab_note(name):
    lines = (FOLDER / name).read_text().splitlines()
    header = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    begins = [line.removeprefix("# ").partition(":")[0] for line in header if not line.startswith("#  ")]
    assert begins[1:] == ["Source", "Run", "Measured"]
    assert f"# Run: python -m tuner.run --space {name}" in "\n".join(header)


def test_every_backbone_of_a_shipped_space_has_pretrained_weights():
    searched = [(name, backbone) for name in shipped_spaces() for backbone in values_of(shipped(name, False))["model/backbone"]]
    assert [(name, backbone) for name, backbone in searched if not timm.is_model_pretrained(backbone)] == []


@few_spaces
def test_a_backbone_with_a_grid_of_its_own_takes_every_size_beside_it(name):
    backbones = [one for one in values_of(shipped(name, False))["model/backbone"] if timm.get_pretrained_cfg(one).fixed_input_size]
    sizes = {(view.height, view.width) for view in views_of(shipped(name, False))}
    for backbone, size in product(backbones, sorted(sizes)):
        # On this device tensors have shapes alone, and even large networks are built in a moment.
        with torch.device("meta"):
            _, features = build_backbone(ModelConfig(backbone=backbone, weights="none"), size)
        assert features >= 64


@few_spaces
def test_every_kind_of_trial_of_a_shipped_space_is_built_for_a_gpu(name, data):
    space = read_space(name, changes=[*DEMO, "model/weights=none"], choosers=choosers())
    for values in cover(space, draw(space, FIXED, seed=0)):
        build_in_full_size(space, values, data)


@few_spaces
def test_every_kind_of_trial_of_a_shipped_space_trains_a_step_without_a_gpu(name, demo, images, split, cache):
    space, data = without_gpu(name, demo, images, split, cache)
    train_a_step(space, cover(space, draw(space, FIXED, seed=0)), data)


def test_twenty_trials_of_the_widest_space_train_a_step(demo, images, split, cache):
    space, data = without_gpu("all.yaml", demo, images, split, cache)
    train_a_step(space, draw(space, FIXED, seed=2, count=20), data)


@pytest.mark.nightly
@every_space
def test_a_hundred_trials_of_every_shipped_space_are_built_for_a_gpu_and_train_a_step_without(name, demo, images, split, cache, data):
    space = read_space(name, changes=[*DEMO, "model/weights=none"], choosers=choosers())
    for values in draw(space, FIXED, seed=2, count=100):
        build_in_full_size(space, values, data)
    space, data = without_gpu(name, demo, images, split, cache)
    train_a_step(space, draw(space, FIXED, seed=2, count=100), data)


@pytest.mark.parametrize("name", sorted(BASES))
def test_a_base_is_not_offered_as_a_space_and_alone_it_is_refused(name):
    assert name not in shipped_spaces() and (FOLDER / name).is_file()
    with pytest.raises(SpaceError, match="model/backbone: is required"):
        read_space(name, choosers=choosers(), check=lambda space: check_space(space, SCHEME))


def build_in_full_size(space: Space, values: dict, data: Data) -> None:
    """Build a trial whose tensors have shapes alone. The view files hold smaller images, which are not read before training."""
    (file,), (statistics,) = data.views.values(), data.statistics.values()
    views = views_of(space)
    data = Data(data.images, data.split, dict.fromkeys(views, file), dict.fromkeys(views, statistics))
    meta = torch.device("meta")
    with meta:
        build_parts(TrialConfig.from_values(values), data, meta).batches.make_augment()


def without_gpu(name: str, demo, images, split, cache) -> tuple[Space, Data]:
    """The space as it is where there is no GPU, and the demo's images as its trials see them."""
    space = read_space(name, on_cpu=True, changes=DEMO, choosers=choosers())
    files = build_views(read_images(demo, DataConfig()), views_of(space), cache)
    return space, Data.of(images, split, files, with_statistics=True)


def train_a_step(space: Space, configurations: list[dict], data: Data) -> None:
    done: list[int] = []
    rehearse(space, configurations, {data.split.fold: data}, done.append)
    assert done == [1] * len(configurations)
