import pytest

from search_spaces.read import read_space
from search_spaces.schema import flat, nested
from trainables.baseline import baseline_of, is_baseline
from trainables.config import TrialConfig, choosers, default_of

SPACE = """
model: {backbone: {choice: [resnet10t, resnet18]}, weights: none}
loss:
  name: {choice: [cross_entropy, focal]}
  gamma: {float: [0.5, 4.0]}
  smoothing: {float: [0.1, 0.3]}
augment: {flip: 0.5}
view: {size: {choice: [32, 64]}}
optimizer: {lr: {float: [1.0e-4, 1.0e-2], log: true}}
"""
START = "start: [{loss: {name: focal}, augment: {flip: 0.5}}]\n"


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "my.yaml").write_text(text)
        return read_space(tmp_path / "my.yaml", choosers=choosers())

    return read


def config_with(space, **drawn):
    values = space.settled(baseline_of(space) | {path.replace("__", "/"): value for path, value in drawn.items()})
    return TrialConfig.from_values(nested(values) | {"epochs": 1})


def test_a_space_without_start_has_its_defaults_as_the_baseline(read):
    expected = {
        "model/backbone": "resnet10t",
        "loss/name": "cross_entropy",
        "loss/smoothing": 0.2,
        "view/size": 64,
        "optimizer/lr": pytest.approx(1e-3),
    }
    assert baseline_of(read(SPACE)) == expected


def test_the_first_start_entry_is_the_baseline_whatever_it_leaves_open(read):
    space = read(SPACE + START)
    assert baseline_of(space) == {"loss/name": "focal"}
    rest = {"model__backbone": "resnet18", "view__size": 32, "optimizer__lr": 1e-4, "loss__gamma": 1.0}
    assert is_baseline(config_with(space, **rest), baseline_of(space))


def test_a_configuration_that_differs_in_one_value_is_not_the_baseline(read):
    space = read(SPACE)
    values = baseline_of(space)
    assert is_baseline(config_with(space), values)
    assert not is_baseline(config_with(space, optimizer__lr=2e-3), values)
    assert not is_baseline(config_with(space), {}), "where there is none, no trial is"


def test_a_settings_default_is_that_of_the_chosen_entry():
    assert default_of("loss/gamma", {"loss/name": "focal"}) == flat({"loss": {"gamma": 2.0}})["loss/gamma"]
    assert default_of("loss/gamma", {"loss/name": "cross_entropy"}) is None
    assert default_of("optimizer/lr", {}) is None and default_of("task", {}) == "joint" and default_of("nothing/there", {}) is None
