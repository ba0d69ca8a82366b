import json
import re

import pytest
from pydantic import ValidationError

from tests.messages import missing, mistaken
from trainables.config import CHOOSERS, REGISTRIES, TrialConfig, section, setting_paths, settings_of
from trainables.data.settings import ALL, BEFORE
from trainables.data.views import ViewConfig
from trainables.losses import LOSSES, LossConfig, LossEntry
from trainables.registry import ConfigError, choose, nearest, setting

LEAST = {"epochs": 1, "model": {"backbone": "resnet18"}, "optimizer": {"lr": 0.1}}


def mistakes_in(**changes) -> dict[str, str]:
    values = {name: LEAST.get(name, {}) | value if isinstance(value, dict) else value for name, value in changes.items()}
    with pytest.raises(ConfigError) as caught:
        TrialConfig.from_values(LEAST | values)
    assert str(caught.value).splitlines() == [f"{mistake.path}: {mistake.message}" for mistake in caught.value.mistakes]
    return {mistake.path: mistake.message for mistake in caught.value.mistakes}


def values_of(path: str) -> str:
    """How the page says that a setting of several types is written."""
    section, _, name = path.rpartition("/")
    return (settings_of(section) if section else TrialConfig.model_fields)[name].json_schema_extra["values"]


def paths_of(values: dict) -> list[str]:
    return [path for name, value in values.items() for path in ([f"{name}/{key}" for key in value] if isinstance(value, dict) else [name])]


def test_what_every_experiment_must_decide_has_no_default():
    with pytest.raises(ConfigError) as caught:
        TrialConfig.from_values({"model": {}})
    expected = [(f"{path}: ", "required") for path in ("epochs", "model/backbone", "optimizer")]
    assert not mistaken(map(str, caught.value.mistakes), expected)


def test_values_name_every_setting_of_the_chosen_entries_and_are_taken_back():
    config = TrialConfig.from_values(LEAST)
    assert paths_of(config.values()) == [
        f"{name}/{field}" if isinstance(value, dict) else name
        for name, value in config.values().items()
        for field in (settings_of(name, value.get(CHOOSERS.get(name))) if isinstance(value, dict) else [""])
    ]
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
        ({"loss": {"name": "focal", "smothing": 0.1}}, "loss/smothing", "did you mean loss/smoothing (of cross_entropy)?"),
        ({"los": {"gamma": 1.0}}, "los", "did you mean loss?"),
        ({"gamma": 1.0}, "gamma", "did you mean loss/gamma?"),
        ({"optimizer": {"rate": 0.1}}, "optimizer/rate", "lr"),
        ({"wheels": 4}, "wheels", "docs/space.md"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(changes, path, hint):
    found = mistakes_in(**changes)
    assert list(found) == [path] and hint in found[path]


def test_all_mistakes_are_found_at_once():
    found = mistakes_in(
        epochs=0,
        seed=-1,
        loss={"name": "focal", "smothing": 0.1, "gamma": -1.0},
        train={"batch_size": 0, "precision": "fp8"},
        mix={"name": "cutmix_vertical", "low": 0.6, "high": 0.5},
        data={"cuts": [60, 30]},
    )
    assert list(found) == ["epochs", "seed", "data/cuts", "mix", "loss/gamma", "loss/smothing", "train/batch_size", "train/precision"]
    assert not missing(found["epochs"], "greater than or equal to 1", "0")
    assert not missing(found["data/cuts"], "ascending", "[60, 30]")
    assert not missing(found["mix"], "mix/low is 0.6", "mix/high (0.5)")


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
        ({"view": {"crop": "center", "fraction": 0}}, "view/fraction"),
        ({"data": {"holdout": 0.5}}, "data/holdout"),
        ({"data": {"folds": 1}}, "data/folds"),
        ({"task": 3}, "task"),
        ({"normalize": "none"}, "normalize"),
        ({"model": 3}, "model"),
        ({"data": {"fold": -2}}, "data/fold"),
        ({"labels": {"remove": [27, 29]}}, "labels/remove"),
        ({"labels": {"jitter": -1.0}}, "labels/jitter"),
        ({"view": {"crop": "face", "margin": 3.0}}, "view/margin"),
        ({"view": {"fit": "crop"}}, "view/fit"),
        ({"augment": {"hue": 0.6}}, "augment/hue"),
        ({"mix": {"name": "mixup", "alpha": 0.0}}, "mix/alpha"),
        ({"model": {"freeze": "head"}}, "model/freeze"),
        ({"model": {"freeze": "stages", "train_stages": 0}}, "model/train_stages"),
        ({"model": {"drop_path": 1.0}}, "model/drop_path"),
        ({"model": {"edges": "canny"}}, "model/edges"),
        ({"loss": {"beta": 1.0}}, "loss/beta"),
        ({"loss": {"smoothing": 1.0}}, "loss/smoothing"),
        ({"loss": {"regression": -0.1}}, "loss/regression"),
        ({"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 1.0}}, "optimizer/momentum"),
        ({"optimizer": {"lr": 0.1, "layer_decay": 0.0}}, "optimizer/layer_decay"),
        ({"optimizer": {"lr": 0.1, "sam": -0.05}}, "optimizer/sam"),
        ({"schedule": {"warmup": 1.0}}, "schedule/warmup"),
        ({"schedule": {"floor": 1.0}}, "schedule/floor"),
        ({"schedule": {"name": "multi_step", "milestones": [0.5, 1.0]}}, "schedule/milestones"),
        ({"schedule": {"name": "multi_step", "milestones": []}}, "schedule/milestones"),
        ({"schedule": {"name": "restarts", "cycles": 0}}, "schedule/cycles"),
        ({"schedule": {"name": "cyclic", "decay": 0.0}}, "schedule/decay"),
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
        ({"labels": {"cuts": [58, 29]}}, "labels/cuts", "[58, 29]"),
        ({"labels": {"cuts": [30, 30]}}, "labels/cuts", "[30, 30]"),
        ({"labels": {"remove": [[27, 29], [59, 57]]}}, "labels/remove", "[[27, 29], [59, 57]]"),
        ({"schedule": {"name": "multi_step", "milestones": [0.75, 0.5]}}, "schedule/milestones", "[0.75, 0.5]"),
        ({"normalize": [[0.5, 0.5, 0.5], [0.2, 0.0, 0.2]]}, "normalize", f"write {values_of('normalize')}; got"),
        ({"normalize": [[0.5, 0.5], [0.2, 0.2]]}, "normalize", f"write {values_of('normalize')}; got"),
        ({"loss": {"alpha": "equal"}}, "loss/alpha", f"write {values_of('loss/alpha')}; got"),
        ({"loss": {"alpha": [1.0, 0.0]}}, "loss/alpha", f"write {values_of('loss/alpha')}; got"),
        ({"view": {"size": "64"}}, "view/size", f"write {values_of('view/size')}; got '64'"),
        ({"task": [["age"], 3]}, "task", f"write {values_of('task')}; got"),
    ],
)
def test_a_refusal_says_what_to_write(changes, path, message):
    found = mistakes_in(**changes)
    assert list(found) == [path] and message in found[path]


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": {"remove": [[27, 27]]}},
        {"mix": {"name": "cutmix_intra", "low": 0.5, "high": 0.5}},
        {"data": {"fold": -1}},
        {"optimizer": {"lr": 1e-3, "layer_decay": 1.0, "sam": 0.0}},
        {"schedule": {"name": "restarts", "decay": 1.0, "floor": 0.0}},
        {"train": {"ema": 0.0, "batch_size": 2}},
    ],
)
def test_a_value_at_the_edge_of_its_meaning_is_taken(changes):
    assert TrialConfig.from_values(LEAST | changes)


@pytest.mark.parametrize("path", list(setting_paths()))
def test_every_setting_says_what_it_means(path):
    section, _, name = path.rpartition("/")
    field = (settings_of(section) if section else TrialConfig.model_fields)[name]
    assert len(field.description) > 5 and not field.description.endswith(".")


# A section is of the class of its entry


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, table in REGISTRIES.items() for name in table])
def test_a_section_has_the_settings_of_its_entry_and_those_alone(path, name):
    section_name, field = path.split("/")
    values = LEAST | {section_name: LEAST.get(section_name, {}) | {field: name}}
    found = TrialConfig.from_values(values)
    assert type(getattr(found, section_name)) is REGISTRIES[path][name].settings
    assert set(found.values()[section_name]) == set(settings_of(section_name, name))


@pytest.mark.parametrize(
    ("changes", "path", "owner"),
    [
        ({"loss": {"name": "focal", "smoothing": 0.1}}, "loss/smoothing", "cross_entropy"),
        ({"loss": {"gamma": 2.0}}, "loss/gamma", "focal"),
        ({"mix": {"low": 0.3}}, "mix/low", "cutmix_vertical, cutmix_intra"),
        ({"mix": {"name": "none", "prob": 0.5}}, "mix/prob", "mixup"),
        ({"sampler": {"power": 0.5}}, "sampler/power", "weighted"),
        ({"optimizer": {"momentum": 0.9}}, "optimizer/momentum", "sgd, madgrad"),
        ({"schedule": {"every": 3}}, "schedule/every", "step"),
        ({"view": {"fraction": 0.5}}, "view/fraction", "center, face"),
        ({"augment": {"ops": 3}}, "augment/ops", "rand"),
        ({"model": {"train_stages": 2}}, "model/train_stages", "stages"),
    ],
)
def test_a_setting_of_another_entry_is_refused_with_its_owners_and_what_there_is(changes, path, owner):
    found = mistakes_in(**changes)
    assert list(found) == [path]
    section_name = path.partition("/")[0]
    chooser = CHOOSERS[section_name]
    entry = changes[section_name].get(chooser, TrialConfig.from_values(LEAST).values()[section_name][chooser])
    assert not missing(found[path], f"of {entry}", f"of {owner}")
    assert settings_of(section_name, entry).keys() - {chooser} <= set(re.findall(r"\w+", found[path].rpartition(" has ")[2]))


@pytest.mark.parametrize("path", REGISTRIES)
def test_a_name_that_no_registry_has_is_refused_with_all_others(path):
    section_name, field = path.split("/")
    found = mistakes_in(**{section_name: {field: "fokal"}, "train": {"ema": 1.0}})
    assert list(found) == [path, "train/ema"] and all(name in found[path] for name in REGISTRIES[path])


def test_an_entry_that_is_added_later_is_a_choice_like_the_others(monkeypatch):
    class HuberSettings(LossConfig):
        delta: float = setting("where the square ends", 0.5)

    monkeypatch.setitem(LOSSES, "huber", LossEntry(HuberSettings, lambda settings, counts: None))
    config = TrialConfig.from_values(LEAST | {"loss": {"name": "huber", "delta": 0.3, "ordinal": "coral"}})
    assert (config.loss.delta, config.loss.ordinal) == (0.3, "coral") and config.values()["loss"]["delta"] == 0.3
    assert "loss/delta" in setting_paths()
    assert list(mistakes_in(loss={"name": "huber", "gamma": 2.0})) == ["loss/gamma"]


def test_a_section_by_itself_is_as_strict_as_in_a_configuration():
    assert section("loss", name="focal", gamma=1.0) == TrialConfig.from_values(LEAST | {"loss": {"name": "focal", "gamma": 1.0}}).loss
    for values, path in (({"name": "fokal"}, "loss/name"), ({"gamma": 1.0}, "loss/gamma"), ({"smoothing": 2.0}, "loss/smoothing")):
        with pytest.raises(ConfigError) as caught:
            section("loss", **values)
        assert [mistake.path for mistake in caught.value.mistakes] == [path]


# What a record says


def test_a_record_is_read_as_it_was_written():
    config = TrialConfig.from_values(LEAST | {"loss": {"name": "focal", "gamma": 1.0}})
    assert TrialConfig.read(json.loads(json.dumps(config.values()))) == (config, {})


def test_settings_that_there_are_not_are_kept_aside_and_missing_ones_have_their_default():
    values = LEAST | {
        "loss": {"name": "focal", "gamma": 1.0, "smoothing": 0.1, "wheels": 4},
        "mix": {"prob": 0.5},
        "car": {"wheels": 4},
        "bike": 2,
    }
    config, aside = TrialConfig.read(values)
    assert config == TrialConfig.from_values(LEAST | {"loss": {"name": "focal", "gamma": 1.0}, "data": BEFORE})
    assert aside == {"loss/smoothing": 0.1, "loss/wheels": 4, "mix/prob": 0.5, "car/wheels": 4, "bike": 2}


def test_a_record_without_the_settings_of_how_data_is_read_was_made_when_every_column_was_a_target():
    config, _ = TrialConfig.read(LEAST)
    assert config.data.target == (ALL,)
    assert TrialConfig.read(TrialConfig.from_values(LEAST).values())[0].data.target == ()


def test_a_record_that_holds_every_setting_of_every_entry_is_read():
    everything: dict = dict(LEAST)
    for name in CHOOSERS:
        fields = {one: field.default for one, field in settings_of(name).items() if not field.is_required()}
        everything[name] = json.loads(json.dumps(fields)) | LEAST.get(name, {})
    config, aside = TrialConfig.read(everything)
    assert config == TrialConfig.from_values(LEAST | {"data": BEFORE}) and "loss/gamma" in aside and "loss/smoothing" not in aside


@pytest.mark.parametrize(
    ("changes", "path"),
    [({"loss": {"name": "fokal", "gamma": 2.0}}, "loss/name"), ({"epochs": 0}, "epochs"), ({"model": {}}, "model/backbone")],
)
def test_a_record_of_what_cannot_be_trained_is_refused(changes, path):
    with pytest.raises(ConfigError) as caught:
        TrialConfig.read(LEAST | changes)
    assert [mistake.path for mistake in caught.value.mistakes] == [path]


def test_every_section_says_what_it_is_about():
    sections = [field.annotation for field in TrialConfig.model_fields.values() if hasattr(field.annotation, "model_fields")]
    assert len(sections) == 13 and all(section.__doc__ for section in sections)


def test_a_config_cannot_be_changed():
    config = TrialConfig.from_values(LEAST)
    with pytest.raises(ValidationError, match="frozen"):
        config.loss.smoothing = 0.3


def test_height_and_width_come_from_one_size_or_from_two():
    assert (ViewConfig(size=48).height, ViewConfig(size=48).width) == (48, 48)
    assert (ViewConfig(size=(48, 32)).height, ViewConfig(size=(48, 32)).width) == (48, 32)


def test_a_known_name_is_chosen():
    assert choose({"focal": 1, "soft_f1": 2}, "focal", "loss/name") == 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("focl", "did you mean focal?"),
        ("zzz", "focal, soft_f1"),
    ],
)
def test_an_unknown_name_is_refused_with_the_names_there_are(name, hint):
    with pytest.raises(ConfigError) as caught:
        choose({"soft_f1": 2, "focal": 1}, name, "loss/name")
    assert not mistaken([str(caught.value)], [(f"loss/name: {name!r} ", hint, "focal, soft_f1")])


def test_nothing_is_suggested_where_nothing_is_near():
    assert nearest("zzz", ["loss", "mix"]) == ""
    assert nearest("mx", ["loss", "mix"]) == "; did you mean mix?"
