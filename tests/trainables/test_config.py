import json

import pytest
from pydantic import ValidationError

from trainables.config import UNIONS, LossConfig, TrialConfig, ViewConfig, Watched, setting_paths
from trainables.registry import ConfigError, choose, nearest

LEAST = {"epochs": 1, "model": {"backbone": "resnet18"}, "optimizer": {"lr": 0.1}}


def mistakes_in(**changes) -> dict[str, str]:
    values = {name: LEAST.get(name, {}) | value if isinstance(value, dict) else value for name, value in changes.items()}
    with pytest.raises(ConfigError) as caught:
        TrialConfig.from_values(LEAST | values)
    assert str(caught.value).splitlines() == [f"{mistake.path}: {mistake.message}" for mistake in caught.value.mistakes]
    return {mistake.path: mistake.message for mistake in caught.value.mistakes}


def paths_of(values: dict) -> list[str]:
    return [path for name, value in values.items() for path in ([f"{name}/{key}" for key in value] if isinstance(value, dict) else [name])]


def test_what_every_experiment_must_decide_has_no_default():
    with pytest.raises(ConfigError) as caught:
        TrialConfig.from_values({"model": {}})
    assert [str(mistake) for mistake in caught.value.mistakes] == [
        f"{path}: must be given; every experiment has to decide it" for path in ("epochs", "model/backbone", "optimizer")
    ]


def test_values_name_every_setting_and_are_taken_back():
    config = TrialConfig.from_values(LEAST)
    assert paths_of(config.values()) == list(setting_paths())
    assert TrialConfig.from_values(config.values()) == config


@pytest.mark.parametrize(
    "changes",
    [
        {"task": [["mask", "gender"], ["age"]]},
        {"view": {"size": [48, 32], "crop": "center", "fraction": 0.5}},
        {"data": {"cuts": [25, 40, 58]}},
        {"optimizer": {"lr": 1}, "seed": 3},
        {"data": {"fold": -1, "extra": ["more", "others.csv"]}},
        {"labels": {"cuts": [29, 58], "remove": [[27, 29], [57, 59]]}},
        {"normalize": [[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]]},
        {"loss": {"alpha": [1.0, 2.0, 0.5]}},
        {"view": {"crop": "box", "box": [320, 256]}},
        {"schedule": {"name": "multi_step", "milestones": [0.3, 0.6, 0.9]}},
    ],
)
def test_values_survive_json(changes):
    config = TrialConfig.from_values(LEAST | changes)
    assert TrialConfig.from_values(json.loads(json.dumps(config.values()))) == config


@pytest.mark.parametrize(
    ("changes", "path", "hint"),
    [
        ({"loss": {"smothing": 0.1}}, "loss/smothing", "did you mean loss/smoothing"),
        ({"los": {"gamma": 1.0}}, "los", "did you mean loss?"),
        ({"gamma": 1.0}, "gamma", "did you mean loss/gamma?"),
        ({"optimizer": {"rate": 0.1}}, "optimizer/rate", "is not a setting"),
        ({"wheels": 4}, "wheels", "see the README for the names there are"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(changes, path, hint):
    found = mistakes_in(**changes)
    assert list(found) == [path] and found[path].startswith("is not a setting") and hint in found[path]


def test_all_mistakes_are_found_at_once():
    found = mistakes_in(
        epochs=0,
        seed=-1,
        loss={"smothing": 0.1, "gamma": -1.0},
        train={"batch_size": 0, "precision": "fp8"},
        mix={"low": 0.6, "high": 0.5},
        data={"cuts": [60, 30]},
    )
    assert list(found) == ["epochs", "seed", "data/cuts", "mix", "loss/gamma", "loss/smothing", "train/batch_size", "train/precision"]
    assert found["epochs"] == "input should be greater than or equal to 1, got 0"
    assert found["data/cuts"] == "the values must ascend, got [60, 30]"
    assert found["mix"] == "mix/low is 0.6, above mix/high, which is 0.5; lower one or raise the other"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"optimizer": {"lr": "0.1"}}, "optimizer/lr"),
        ({"optimizer": {"lr": 0}}, "optimizer/lr"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer/lr"),
        ({"epochs": 1.5}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"view": {"size": 8}}, "view/size"),
        ({"view": {"size": [32, 0]}}, "view/size"),
        ({"view": {"size": [32]}}, "view/size"),
        ({"view": {"fraction": 0}}, "view/fraction"),
        ({"data": {"holdout": 0.5}}, "data/holdout"),
        ({"data": {"folds": 1}}, "data/folds"),
        ({"task": 3}, "task"),
        ({"normalize": "none"}, "normalize"),
        ({"model": 3}, "model"),
        ({"data": {"fold": -2}}, "data/fold"),
        ({"labels": {"remove": [27, 29]}}, "labels/remove"),
        ({"labels": {"jitter": -1.0}}, "labels/jitter"),
        ({"view": {"margin": 3.0}}, "view/margin"),
        ({"view": {"fit": "crop"}}, "view/fit"),
        ({"augment": {"hue": 0.6}}, "augment/hue"),
        ({"mix": {"alpha": 0.0}}, "mix/alpha"),
        ({"model": {"freeze": "head"}}, "model/freeze"),
        ({"model": {"train_stages": 0}}, "model/train_stages"),
        ({"model": {"drop_path": 1.0}}, "model/drop_path"),
        ({"model": {"edges": "canny"}}, "model/edges"),
        ({"loss": {"beta": 1.0}}, "loss/beta"),
        ({"loss": {"smoothing": 1.0}}, "loss/smoothing"),
        ({"loss": {"regression": -0.1}}, "loss/regression"),
        ({"optimizer": {"lr": 0.1, "momentum": 1.0}}, "optimizer/momentum"),
        ({"optimizer": {"lr": 0.1, "layer_decay": 0.0}}, "optimizer/layer_decay"),
        ({"optimizer": {"lr": 0.1, "sam": -0.05}}, "optimizer/sam"),
        ({"schedule": {"warmup": 1.0}}, "schedule/warmup"),
        ({"schedule": {"floor": 1.0}}, "schedule/floor"),
        ({"schedule": {"milestones": [0.5, 1.0]}}, "schedule/milestones"),
        ({"schedule": {"milestones": []}}, "schedule/milestones"),
        ({"schedule": {"cycles": 0}}, "schedule/cycles"),
        ({"schedule": {"decay": 0.0}}, "schedule/decay"),
        ({"train": {"ema": 1.0}}, "train/ema"),
        ({"train": {"batch_size": 1}}, "train/batch_size"),
        ({"train": {"accumulate": 0}}, "train/accumulate"),
    ],
)
def test_a_value_outside_its_meaning_is_refused(changes, path):
    assert list(mistakes_in(**changes)) == [path]


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"labels": {"cuts": [58, 29]}}, "labels/cuts", "the values must ascend, got [58, 29]"),
        ({"labels": {"cuts": [30, 30]}}, "labels/cuts", "the values must ascend, got [30, 30]"),
        (
            {"labels": {"remove": [[27, 29], [59, 57]]}},
            "labels/remove",
            "each range is [first, last], and first must not be above last, got [[27, 29], [59, 57]]",
        ),
        ({"schedule": {"milestones": [0.75, 0.5]}}, "schedule/milestones", "the values must ascend, got [0.75, 0.5]"),
        ({"normalize": [[0.5, 0.5, 0.5], [0.2, 0.0, 0.2]]}, "normalize", f"write {UNIONS['normalize']}, got"),
        ({"normalize": [[0.5, 0.5], [0.2, 0.2]]}, "normalize", f"write {UNIONS['normalize']}, got"),
        ({"loss": {"alpha": "equal"}}, "loss/alpha", f"write {UNIONS['loss/alpha']}, got"),
        ({"loss": {"alpha": [1.0, 0.0]}}, "loss/alpha", f"write {UNIONS['loss/alpha']}, got"),
        ({"view": {"size": "64"}}, "view/size", f"write {UNIONS['view/size']}, got '64'"),
        ({"task": [["age"], 3]}, "task", f"write {UNIONS['task']}, got"),
    ],
)
def test_a_refusal_says_what_to_write(changes, path, message):
    found = mistakes_in(**changes)
    assert list(found) == [path] and found[path].startswith(message)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": {"remove": [[27, 27]]}},
        {"mix": {"low": 0.5, "high": 0.5}},
        {"data": {"fold": -1}},
        {"optimizer": {"lr": 1e-3, "layer_decay": 1.0, "sam": 0.0, "momentum": 0.0}},
        {"schedule": {"decay": 1.0, "floor": 0.0}},
        {"train": {"ema": 0.0, "batch_size": 2}},
    ],
)
def test_a_value_at_the_edge_of_its_meaning_is_taken(changes):
    assert TrialConfig.from_values(LEAST | changes)


@pytest.mark.parametrize("path", list(setting_paths()))
def test_every_setting_says_what_it_means(path):
    section, _, name = path.rpartition("/")
    model = TrialConfig.model_fields[section].annotation if section else TrialConfig
    field = model.model_fields[name]
    assert len(field.description) > 5 and not field.description.endswith(".")


def test_every_section_says_what_it_is_about():
    sections = [field.annotation for field in TrialConfig.model_fields.values() if hasattr(field.annotation, "model_fields")]
    assert len(sections) == 11 and all(section.__doc__ for section in sections)


def test_a_config_cannot_be_changed():
    config = TrialConfig.from_values(LEAST)
    with pytest.raises(ValidationError, match="frozen"):
        config.loss.gamma = 3.0


def test_height_and_width_come_from_one_size_or_from_two():
    assert (ViewConfig(size=48).height, ViewConfig(size=48).width) == (48, 48)
    assert (ViewConfig(size=(48, 32)).height, ViewConfig(size=(48, 32)).width) == (48, 32)


def test_watched_notes_exactly_what_is_read():
    read = set()
    config = Watched(TrialConfig.from_values(LEAST), read)
    assert config.loss and config.view and read == set()
    assert config.loss.gamma == 2.0 and config.epochs == 1
    assert read == {"loss/gamma", "epochs"}


def test_watched_notes_what_a_property_reads():
    read = set()
    assert Watched(TrialConfig.from_values(LEAST), read).view.height == 64
    assert read == {"view/size"}


def test_watched_starts_where_it_is_told():
    read = set()
    assert Watched(LossConfig(), read).name == "cross_entropy"
    assert Watched(LossConfig(), read, "loss/").gamma == 2.0
    assert read == {"name", "loss/gamma"}


@pytest.mark.parametrize("path", list(setting_paths()))
def test_watched_notes_every_setting_by_its_path(path):
    read = set()
    found = Watched(TrialConfig.from_values(LEAST), read)
    for word in path.split("/"):
        found = getattr(found, word)
    assert read == {path}


def test_a_known_name_is_chosen():
    assert choose({"focal": 1, "soft_f1": 2}, "focal", "loss/name") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("focl", "loss/name: 'focl' does not exist; did you mean focal? There are focal, soft_f1."),
        ("zzz", "loss/name: 'zzz' does not exist; choose one of focal, soft_f1"),
    ],
)
def test_an_unknown_name_is_refused_with_the_names_there_are(name, message):
    with pytest.raises(ConfigError) as caught:
        choose({"soft_f1": 2, "focal": 1}, name, "loss/name")
    assert str(caught.value) == message


def test_nothing_is_suggested_where_nothing_is_near():
    assert nearest("zzz", ["loss", "mix"]) == ""
    assert nearest("mx", ["loss", "mix"]) == "; did you mean mix?"
