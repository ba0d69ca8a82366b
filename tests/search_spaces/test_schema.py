import json
import pickle
from itertools import product

import numpy as np
import optuna
import pytest

from search_spaces.schema import Choice, Float, Int, Parameter, Space, SpaceError, as_optuna, flat, nested

DOMAINS = {
    "texts": Choice(("none", "center")),
    "lists": Choice(([64, 48], [96, 64], 32)),
    "tasks": Choice(("joint", [["mask"], ["gender", "age"]])),
    "truths": Choice((True, False)),
    "float": Float(0.0, 0.5),
    "float on a log scale": Float(1e-5, 1e-2, log=True),
    "float in steps": Float(0.1, 0.7, step=0.2),
    "int": Int(3, 7),
    "int on a log scale": Int(1, 64, log=True),
    "int in steps": Int(16, 64, step=16),
}


class RandomTrial:
    """What a space asks of a trial, answered by a generator; remembers the names in the order of drawing."""

    def __init__(self, rng):
        self.rng, self.names = rng, []

    def suggest_categorical(self, name, choices):
        self.names.append(name)
        return choices[self.rng.integers(len(choices))]

    def suggest_float(self, name, low, high, *, step=None, log=False):
        self.names.append(name)
        return self.rng.uniform(low, high)

    def suggest_int(self, name, low, high, *, step=1, log=False):
        self.names.append(name)
        return int(self.rng.choice(range(low, high + 1, step)))


def parameter(path, domain, **when):
    conditions = tuple((name.replace("_in_", "/"), values) for name, values in when.items())
    return Parameter(path, domain, conditions, "test.yaml:1")


def space(*parameters, fixed=None, start=()):
    return Space("test", "test.yaml", {}, fixed or {}, parameters, start, {})


LOSSES = space(
    parameter("mix/name", Choice(("none", "mixup"))),
    parameter("loss/name", Choice(("cross_entropy", "focal", "soft_f1"))),
    parameter("loss/gamma", Float(0.5, 4.0), loss_in_name=("focal",), mix_in_name=("none", "mixup")),
    parameter("loss/ramp", Choice(("slow", "fast")), loss_in_gamma=(9.0,)),
    parameter("mix/alpha", Float(0.1, 1.0), mix_in_name=("mixup",), loss_in_name=("cross_entropy", "focal")),
    parameter("view/size", Choice(([64, 48], 32))),
    fixed={"task": "joint", "train/batch_size": 32, "data/cuts": [30, 60]},
)


@pytest.mark.parametrize("name", DOMAINS)
def test_what_a_domain_suggests_it_holds(name):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    domain = DOMAINS[name]
    assert all(domain.holds(domain.suggest(study.ask(), "x")) for _ in range(30))


@pytest.mark.parametrize("name", DOMAINS)
def test_the_ends_of_a_domain_can_be_enqueued_and_come_back(name):
    domain = DOMAINS[name]
    study = optuna.create_study()
    for end in domain.ends():
        assert domain.holds(end)
        study.enqueue_trial({"x": as_optuna(end)})
    came_back = [domain.suggest(study.ask(), "x") for _ in domain.ends()]
    assert came_back == list(domain.ends())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("texts", "face"),
        ("lists", [48, 64]),
        ("lists", "[64, 48]"),
        ("truths", 1),
        ("float", 0.51),
        ("float", True),
        ("float", "0.1"),
        ("float in steps", 0.2),
        ("int", 8),
        ("int", 4.0),
        ("int", True),
        ("int in steps", 40),
    ],
)
def test_a_domain_does_not_hold_what_cannot_be_drawn(name, value):
    assert not DOMAINS[name].holds(value)


def test_a_domain_describes_itself_as_one_would_write_it_in_yaml():
    assert Choice(("none", [64, 48])).describe() == "one of none, [64, 48]"
    assert Float(1e-5, 0.5, log=True).describe() == "a number from 1.0e-5 to 0.5, log"
    assert Int(16, 64, step=16).describe() == "an integer from 16 to 64 in steps of 16"


@pytest.mark.parametrize("seed", range(30))
def test_a_conditional_value_is_there_exactly_where_all_its_conditions_hold(seed):
    values = LOSSES(RandomTrial(np.random.default_rng(seed)))
    assert ("gamma" in values["loss"]) == (values["loss"]["name"] == "focal")
    assert ("alpha" in values["mix"]) == (values["mix"]["name"] == "mixup" and values["loss"]["name"] != "soft_f1")


@pytest.mark.parametrize("seed", range(10))
def test_a_condition_on_a_value_that_was_not_drawn_is_false(seed):
    dead = space(
        parameter("a/name", Choice((1,))),
        parameter("b/name", Choice((1,)), a_in_name=(2,)),
        parameter("c/name", Choice((1,)), b_in_name=(1,)),
    )
    assert dead(RandomTrial(np.random.default_rng(seed))) == {"a": {"name": 1}}


@pytest.mark.parametrize(
    ("name", "default", "usual"),
    [
        ("texts", "center", "center"),
        ("texts", "face", "none"),
        ("lists", (96, 64), [96, 64]),
        ("truths", None, True),
        ("float", 0.1, 0.1),
        ("float", 0, 0.0),
        ("float", None, 0.25),
        ("float on a log scale", 1.0, 10**-3.5),
        ("float in steps", 0.2, 0.3),
        ("int", 4, 4),
        ("int", 4.0, 5),
        ("int on a log scale", None, 8),
        ("int in steps", 0, 48),
    ],
)
def test_the_usual_value_is_the_default_where_it_can_be_drawn_else_the_first_or_the_middle(name, default, usual):
    domain = DOMAINS[name]
    assert domain.usual(default) == pytest.approx(usual) if isinstance(usual, float) else domain.usual(default) == usual
    assert domain.holds(domain.usual(default))


def test_defaults_are_those_of_a_configuration_that_can_be_drawn():
    def default_of(path, values):
        return "focal" if path == "loss/name" else 2.0 if values.get("loss/name") == "focal" else None

    assert LOSSES.defaults(default_of) == {"mix/name": "none", "loss/name": "focal", "loss/gamma": 2.0, "view/size": [64, 48]}


def test_values_are_drawn_in_order_and_named_by_their_paths():
    trial = RandomTrial(np.random.default_rng(0))
    LOSSES(trial)
    order = [parameter.path for parameter in LOSSES.parameters]
    assert trial.names == [path for path in order if path in trial.names]


@pytest.mark.parametrize("seed", range(20))
def test_the_drawn_values_are_what_optuna_proposed(seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    values = LOSSES(trial)
    assert {path: as_optuna(value) for path, value in LOSSES.drawn(values).items()} == trial.params


def test_a_default_in_the_place_of_a_value_not_drawn_does_not_count_as_drawn():
    configuration = {"loss": {"name": "soft_f1", "gamma": 2.0}, "mix": {"name": "none", "alpha": 0.2}, "view": {"size": 32}, "seed": 0}
    assert LOSSES.drawn(configuration) == {"mix/name": "none", "loss/name": "soft_f1", "view/size": 32}


def test_a_configuration_shares_no_list_with_the_space():
    values = [LOSSES(RandomTrial(np.random.default_rng(seed))) for seed in range(10)]
    for one in values:
        one["data"]["cuts"].append(99)
        if isinstance(one["view"]["size"], list):
            one["view"]["size"].append(99)
    assert LOSSES.fixed["data/cuts"] == [30, 60]
    assert LOSSES.parameters[-1].domain.values == ([64, 48], 32)


@pytest.mark.parametrize("seed", range(5))
def test_a_pickled_space_draws_the_same(seed):
    again = pickle.loads(pickle.dumps(LOSSES))
    assert again(RandomTrial(np.random.default_rng(seed))) == LOSSES(RandomTrial(np.random.default_rng(seed)))


def test_a_grid_is_the_product_of_fixed_and_searched_values():
    views = space(
        parameter("view/crop", Choice(("none", "center"))),
        parameter("view/size", Int(32, 64, step=16)),
        parameter("loss/gamma", Float(0.0, 1.0)),
        fixed={"view/pad": 2, "task": "joint"},
    )
    expected = [{"view/pad": 2, "view/crop": crop, "view/size": size} for crop, size in product(["none", "center"], [32, 48, 64])]
    assert views.grid("view") == expected
    assert views.grid("task") == [{"task": "joint"}]


def test_a_grid_respects_conditions_inside_its_section():
    views = space(parameter("view/crop", Choice(("none", "center"))), parameter("view/share", Choice((0.7, 0.9)), view_in_crop=("center",)))
    assert views.grid("view") == [
        {"view/crop": "none"},
        {"view/crop": "center", "view/share": 0.7},
        {"view/crop": "center", "view/share": 0.9},
    ]


@pytest.mark.parametrize("seed", range(30))
def test_a_grid_holds_every_view_that_can_be_drawn(seed):
    views = space(
        parameter("model/name", Choice(("small", "large"))),
        parameter("view/crop", Choice(("none", "center"))),
        parameter("view/size", Choice((32, [64, 48])), model_in_name=("large",), view_in_crop=("none", "center")),
        parameter("view/share", Choice((0.7, 0.9)), view_in_crop=("center",), kind=("x",)),
        fixed={"kind": "x"},
    )
    drawn = views(RandomTrial(np.random.default_rng(seed)))
    assert {f"view/{name}": value for name, value in drawn["view"].items()} in views.grid("view")


def test_a_grid_over_a_float_range_is_refused():
    with pytest.raises(SpaceError, match=r"^test.yaml:1: loss/gamma: .*choice"):
        LOSSES.grid("loss")


def test_start_trials_are_the_searched_values_as_optuna_takes_them():
    start = ({"view/size": [64, 48], "task": "joint", "loss/name": "focal"},)
    begun = space(*LOSSES.parameters, fixed=LOSSES.fixed, start=start)
    assert begun.start_trials() == [{"view/size": "[64, 48]", "loss/name": "focal"}]
    study = optuna.create_study()
    study.enqueue_trial(begun.start_trials()[0])
    values = begun(study.ask())
    assert values["view"]["size"] == [64, 48] and values["loss"]["name"] == "focal"


def test_flat_undoes_nested():
    values = {"task": [["mask"], ["age"]], "loss/name": "focal", "view/size": [64, 48], "loss/gamma": 2.0}
    assert nested(values) == {"task": [["mask"], ["age"]], "loss": {"name": "focal", "gamma": 2.0}, "view": {"size": [64, 48]}}
    assert flat(nested(values)) == values
    assert json.loads(json.dumps(nested(values))) == nested(values)


def test_a_space_error_survives_pickling_with_all_its_mistakes():
    error = pickle.loads(pickle.dumps(SpaceError(["one", "two"])))
    assert error.mistakes == ["one", "two"] and str(error) == "one\ntwo"
