import pickle
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml

from search_spaces.read import BASES, FOLDER, find_extensions, read_space, shipped_spaces
from search_spaces.schema import Choice, Chooser, Float, Int, SpaceError, nested
from tests.messages import mistaken


@pytest.fixture
def write(tmp_path):
    def write(text, name="my.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def mistakes_in(file, **options):
    with pytest.raises(SpaceError) as caught:
        read_space(file, **options)
    assert str(caught.value).splitlines() == caught.value.mistakes
    return caught.value.mistakes


def domains(space):
    return {parameter.path: parameter.domain for parameter in space.parameters}


BASE = """
run: {trials: 4, epochs: 2}
task: joint
loss:
  name: {choice: [cross_entropy, focal, soft_f1]}
  gamma: {float: [0.5, 4], when: {loss/name: focal}}
optimizer: {lr: {float: [1.0e-5, 1.0e-2], log: true}}
view: {size: {choice: [32, [64, 48]]}}
"""


def test_a_file_becomes_fixed_values_parameters_and_run_settings(write):
    space = read_space(
        write("view: {layers: {int: [2, 8], step: 2}}\nnormalize: {choice: [imagenet, dataset]}" + BASE.replace("view", "model"))
    )
    assert space.name == "my" and Path(space.file).name == "my.yaml"
    assert space.run == {"trials": 4, "epochs": 2}
    assert space.fixed == {"task": "joint"}
    assert domains(space) == {
        "view/layers": Int(2, 8, step=2),
        "normalize": Choice(("imagenet", "dataset")),
        "loss/name": Choice(("cross_entropy", "focal", "soft_f1")),
        "loss/gamma": Float(0.5, 4.0),
        "optimizer/lr": Float(1e-5, 1e-2, log=True),
        "model/size": Choice((32, [64, 48])),
    }


def test_every_path_and_section_has_a_place(write):
    space = read_space(write(BASE), changes=["loss/gamma=2", "train/clip=1.0"])
    assert space.places == {
        "run/trials": "my.yaml:2",
        "run/epochs": "my.yaml:2",
        "run": "my.yaml:2",
        "task": "my.yaml:3",
        "loss/name": "my.yaml:5",
        "loss": "my.yaml:5",
        "loss/gamma": "--set",
        "optimizer/lr": "my.yaml:7",
        "optimizer": "my.yaml:7",
        "view/size": "my.yaml:8",
        "view": "my.yaml:8",
        "train/clip": "--set",
        "train": "--set",
    }


def test_a_parameter_whose_condition_names_a_later_one_is_drawn_after_it(write):
    file = write("a: {x: {int: [0, 1], when: {c/x: 1}}, y: {int: [0, 1]}}\nb: {x: {int: [0, 1], when: {a/x: 1}}}\nc: {x: {int: [0, 1]}}")
    assert [parameter.path for parameter in read_space(file).parameters] == ["a/y", "c/x", "a/x", "b/x"]


def test_a_condition_may_name_several_values_and_fixed_ones(write):
    file = write("a: {x: {choice: [1, 2, 3]}, y: {float: [0, 1], when: {a/x: [1, 3], b: false}}}\nb: false")
    (_, conditional) = read_space(file).parameters
    assert conditional.when == (("a/x", (1, 3)), ("b", (False,)))


def test_a_child_replaces_its_parents_values_path_by_path(write):
    write(BASE, "parent.yaml")
    write("extends: parent.yaml\nloss: {name: focal}\nrun: {epochs: 9}", "middle.yaml")
    space = read_space(write("extends: middle.yaml\nview: {size: 48}\ntask: heads"))
    assert space.run == {"trials": 4, "epochs": 9}
    assert space.fixed == {"task": "heads", "loss/name": "focal", "view/size": 48}
    assert list(domains(space)) == ["loss/gamma", "optimizer/lr"]
    assert space.places["loss/name"] == "middle.yaml:2" and space.places["loss/gamma"] == "parent.yaml:6"


def test_a_space_can_extend_a_shipped_one(write):
    space = read_space(write("extends: quickstart\nview: {size: 32}"))
    assert space.fixed["view/size"] == 32 and space.run == read_space("quickstart").run


def test_the_overlay_is_laid_over_the_rest_on_a_cpu_only(write):
    file = write(BASE + "on_cpu: {run: {epochs: 1}, view: {size: 16}, loss: {gamma: 1.5}}")
    assert read_space(file).run["epochs"] == 2
    space = read_space(file, on_cpu=True)
    assert space.run == {"trials": 4, "epochs": 1}
    assert space.fixed == {"task": "joint", "view/size": 16, "loss/gamma": 1.5}


def test_changes_win_over_everything(write):
    file = write(BASE + "on_cpu: {view: {size: 16}}")
    changes = [
        "view/size=[24, 16]",
        "run/epochs=7",
        "optimizer/lr={float: [0.1, 1], log: true}",
        "task=[[mask], [age]]",
        "model={backbone: tiny}",
    ]
    space = read_space(file, on_cpu=True, changes=changes)
    assert space.run["epochs"] == 7
    assert space.fixed == {"task": [["mask"], ["age"]], "view/size": [24, 16], "model/backbone": "tiny"}
    assert domains(space)["optimizer/lr"] == Float(0.1, 1.0, log=True)


def test_a_parameter_that_a_later_layer_made_impossible_is_left_out(write):
    file = write(BASE + "mix: {prob: {float: [0, 1], when: {loss/gamma: 2}}}")
    assert list(domains(read_space(file))) == ["loss/name", "loss/gamma", "optimizer/lr", "view/size", "mix/prob"]
    assert list(domains(read_space(file, changes=["loss/name=soft_f1"]))) == ["optimizer/lr", "view/size"]


START = """
start:
- {loss: {name: focal, gamma: 2}, view: {size: [64, 48]}, task: joint}
- {optimizer: {lr: 1.0e-3}}
"""


def test_start_entries_keep_their_order_and_reach_the_study(write):
    space = read_space(write(BASE + START))
    assert space.start == ({"loss/name": "focal", "loss/gamma": 2, "view/size": [64, 48], "task": "joint"}, {"optimizer/lr": 1e-3})
    study = optuna.create_study()
    for trial in space.start_trials():
        study.enqueue_trial(trial)
    assert space(study.ask())["loss"] == {"name": "focal", "gamma": 2.0}
    assert space(study.ask())["optimizer"] == {"lr": 1e-3}


def test_a_later_layer_drops_the_start_values_that_no_longer_fit(write):
    overlay = "on_cpu: {view: {size: 16}, loss: {name: {choice: [cross_entropy, soft_f1]}}, optimizer: {lr: {float: [0.1, 1]}}}"
    file = write(BASE + START + "- {optimizer: {lr: 1.0e-2}, task: joint}\n- {view: {size: 32}, loss: {name: soft_f1}}\n" + overlay)
    assert len(read_space(file).start) == 4
    assert read_space(file, on_cpu=True).start == ({"loss/name": "soft_f1"},)
    assert read_space(file, changes=["loss/name=soft_f1"]).start_trials()[0] == {"view/size": "[64, 48]"}
    child = write("extends: my.yaml\ntask: heads\noptimizer: {lr: 0.1}\nview: {size: 32}", "child.yaml")
    assert read_space(child).start == ({"loss/name": "focal", "loss/gamma": 2}, {"view/size": 32, "loss/name": "soft_f1"})


def test_what_an_overlay_takes_from_a_start_entry_is_said_once_for_each_entry(write):
    entries = "start:\n- {loss: {name: focal, gamma: 2}, view: {size: 32}}\n- {view: {size: [64, 48]}}\n- {optimizer: {lr: 1.0e-3}}\n"
    file = write(BASE.lstrip() + entries + "on_cpu: {view: {size: 16}, loss: {name: cross_entropy}}")
    assert read_space(file).left_out == ()
    first, second = read_space(file, on_cpu=True).left_out
    assert first.startswith("my.yaml:9: start entry 1 ") and "loss/name focal, loss/gamma 2, view/size 32" in first
    assert second.startswith("my.yaml:10: start entry 2 ") and "view/size [64, 48]" in second and "not tried" in second
    (changed,) = read_space(file, changes=["optimizer/lr=0.1"]).left_out
    assert "start entry 3" in changed and "optimizer/lr 0.001" in changed


def test_a_childs_start_replaces_its_parents(write):
    write(BASE + START, "parent.yaml")
    assert read_space(write("extends: parent.yaml\nstart: []")).start == ()


# What is wrong -> where it is, and what the message must name: the value, and what to write instead.
MISTAKES = {
    "lr: {float: [1e-5, 9]}": ("my.yaml:1: lr: ", "low", "'1e-5'", "1.0e-5"),
    "lr: {float: [0, 1E5]}": ("my.yaml:1: lr: ", "high", "'1E5'", "1.0e+5"),
    "lr: {float: ['0', 1]}": ("my.yaml:1: lr: ", "low", "'0'", "quotes"),
    "lr: {float: [tiny, 1]}": ("my.yaml:1: lr: ", "low", "'tiny'"),
    "optimizer:\n\n  lr: 1e-5": ("my.yaml:3: optimizer/lr: ", "'1e-5'", "1.0e-5"),
    "a: {choice: [0.1, 5e-2]}": ("my.yaml:1: a: ", "'5e-2'", "5.0e-2"),
    "a: {float: [no, 1]}": ("my.yaml:1: a: ", "reads no as false", "none, false or 0"),
    "a: {float: [false, 1]}": ("my.yaml:1: a: ", "low", "false"),
    "a: {float: [0, .inf]}": ("my.yaml:1: a: ", "high", "Infinity"),
    "a: {int: [1.5, 3]}": ("my.yaml:1: a: ", "low", "1.5", "write 2", "float"),
    "a: {float: [1]}": ("my.yaml:1: a: ", "float", "[low, high]", "[1]"),
    "a: {int: 5}": ("my.yaml:1: a: ", "int", "[low, high]", "5"),
    "a: {float: [0.5, 1.0e-5]}": ("my.yaml:1: a: ", "0.5", "[1.0e-5, 0.5]"),
    "a: {float: [0, 1], log: true}": ("my.yaml:1: a: ", "low", "0", "log"),
    "a: {float: [0, 1], log: 3}": ("my.yaml:1: a: ", "log", "3", "true or false"),
    "a: {int: [1, 9], log: true, step: 2}": ("my.yaml:1: a: ", "log", "step"),
    "a: {int: [1, 9], step: 0}": ("my.yaml:1: a: ", "step", "0"),
    "a: {int: [1, 9], step: 0.5}": ("my.yaml:1: a: ", "step", "0.5", "float"),
    "a: {float: [0, 1], step: 0.3}": ("my.yaml:1: a: ", "0.3", "0.9"),
    "a: {float: [0, 1], stpe: 0.5}": ("my.yaml:1: a: ", "stpe", "did you mean step?", "log, step, when"),
    "a: {choice: [1, 2], log: true}": ("my.yaml:1: a: ", "choice", "log", "when"),
    "a: {b: {chioce: [1, 2]}}": ("my.yaml:1: a/b: ", "choice, float and int", "did you mean choice?"),
    "a: {float: [0, 1], int: [0, 1]}": ("my.yaml:1: a: ", "float and int"),
    "a: {choice: []}": ("my.yaml:1: a: ", "choice", "[]"),
    "a: {choice: [1, 2, 1]}": ("my.yaml:1: a: ", "choice", "1"),
    "a: {choice: [[1, 2], [1, 2]]}": ("my.yaml:1: a: ", "choice", "[1, 2]"),
    "a: {choice: [1, {b: 2}]}": ("my.yaml:1: a: ", '{"b": 2}'),
    "a: {b: }": ("my.yaml:1: a/b: ", "value"),
    "a: 2024-12-24": ("my.yaml:1: a: ", '"2024-12-24"'),
    "a: !!python/name:os.system x": ("my.yaml:1: a: ", "constructor"),
    "a: 1\n\na: 2": ("my.yaml:3: a: ", "line 1"),
    "a:\n  b: 1\n  b: 2": ("my.yaml:3: a/b: ", "line 2"),
    "a/b: 1": ("my.yaml:1: a/b: ", "a: {b: ...}"),
    "a: {no: 1}": ("my.yaml:1: a/no: ", "name"),
    "'': 1": ("my.yaml:1: : ", "name"),
    "a: {int: [1, 2], when: {b: []}}\nb: 1": ("my.yaml:1: a: ", "when", "b"),
    "a: {int: [1, 2], when: b}": ("my.yaml:1: a: ", "when", "{loss/name: focal}"),
    "crop: 1\nb: {int: [1, 2], when: {corp: 1}}": ("my.yaml:2: b: ", "corp", "did you mean crop?"),
    "run: {a: 1}\nb: {int: [1, 2], when: {run/a: 1}}": ("my.yaml:2: b: ", "run/a"),
    "a: 1\nb: {int: [1, 2], when: {a: 2}}": ("my.yaml:2: b: ", "a to be 2", "1 (my.yaml:1)"),
    "a: {choice: [x, y]}\nb: {int: [1, 2], when: {a: [x, z]}}": ("my.yaml:2: b: ", "a to be z", "one of x, y"),
    "a: {int: [1, 2], when: {b: 1}}\nb: {int: [1, 2], when: {a: 1}}": ("my.yaml:1: a: ", "a -> b -> a"),
    "run: {epochs: {int: [1, 2]}}": ("my.yaml:1: run/epochs: ", "one value"),
    "run: 3": ("my.yaml:1: run: ", "{trials: 20, epochs: 10}"),
    "on_cpu: 3": ("my.yaml:1: on_cpu: ", "{view: {size: 64}}"),
    "on_cpu: {start: []}": ("my.yaml:1: on_cpu/start: ", "top level"),
    "on_cpu: {a: {int: [2, 1]}}": ("my.yaml:1: a: ", "2", "[1, 2]"),
    "a: {choice: [x]}\non_cpu: {b: {int: [1, 2], when: {a: y}}}": ("my.yaml:2: b: ", "a to be y", "one of x"),
    "start: {a: 1}": ("my.yaml:1: start: ", "[{loss: {name: focal}}]"),
    "crop: {int: [1, 2]}\nstart:\n- corp: 1": ("my.yaml:3: corp: ", "corp", "did you mean crop?"),
    "a: {int: [1, 2]}\nstart:\n- a: 3": ("my.yaml:3: a: ", "3", "an integer from 1 to 2"),
    "a: 1\nstart: [{a: 3}]": ("my.yaml:2: a: ", "3", "1 (my.yaml:1)"),
    "a: {int: [1, 2]}\nstart: [{a: {int: [1, 2]}}]": ("my.yaml:2: a: ", "single values"),
    "a: {int: [1, 2]}\nstart: [{a: 1e1}]": ("my.yaml:2: a: ", "'1e1'", "1.0e+1"),
    "run: {a: 1}\nb: 1\nstart: [{run: {a: 1}}]": ("my.yaml:3: run/a: ", "run/a"),
    "a: {choice: [x, y]}\nb: {int: [1, 2], when: {a: x}}\nstart:\n- {a: y, b: 1}": ("my.yaml:4: b: ", "1", "where a is x"),
    "a:\n  b: [1": ("my.yaml:2: ", "YAML", "expected ',' or ']'"),
    "": ("my.yaml: ", "`task: joint`"),
    "- a": ("my.yaml: ", "`task: joint`"),
    "extends: my.yaml": ("my.yaml:1: extends: ", "my.yaml -> my.yaml"),
    "extends: [a]": ("my.yaml:1: extends: ", "common.yaml, "),
}


def names(mistake, place, *parts):
    """Whether a message begins with the place, names all parts after it, and ends as a sentence."""
    return mistake.startswith(place) and all(part in mistake[len(place) :] for part in parts) and mistake.endswith((".", "?"))


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_reported_with_its_place_and_its_fix(write, text):
    (mistake,) = mistakes_in(write(text))
    assert names(mistake, *MISTAKES[text]), mistake


CHANGES = {
    "loss/gamma": ("--set: ", "'loss/gamma'", "section/field=value", "loss/gamma=2"),
    "a/b/c=1": ("--set: ", "'a/b/c=1'", "section/field=value"),
    "=1": ("--set: ", "'=1'", "section/field=value"),
    "start=[]": ("--set: ", "'start=[]'", "section/field=value"),
    "loss/gamma=": ("--set: loss/gamma: ", "loss/gamma=value"),
    "view/size=[64": ("--set: view/size: ", "'[64'", "YAML"),
    "loss/gamma=1e-1": ("--set: loss/gamma: ", "'1e-1'", "1.0e-1"),
    "loss/gamma={float: [2, 1]}": ("--set: loss/gamma: ", "2", "[1, 2]"),
    "loss/gamma={int: [1, 2], int: [1, 3]}": ("--set: int: ", "line 1"),
    "loss=focal": ("my.yaml:5: loss/name: ", "loss", "(--set)"),
    "loss={1: 2}": ("--set: loss/1: ", "name"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_mistaken_change_is_reported_with_its_fix(write, change):
    mistakes = mistakes_in(write(BASE), changes=[change])
    assert any(names(mistake, *CHANGES[change]) for mistake in mistakes), mistakes


def test_all_mistakes_are_reported_together_even_those_of_parents_overlays_changes_and_of_one_value(write):
    write("optimizer: {lr: 1e-3}", "parent.yaml")
    file = write(
        "extends: parent.yaml\n"
        "loss: {name: {choice: []}, gamma: {float: [2, 1], log: perhaps, when: {loss/nam: focal}}}\n"
        "on_cpu: {view: {size: {int: [1]}}}\n"
        "start: [{task: joint}]"
    )
    check_saw = []
    mistakes = mistakes_in(file, changes=["x"], check=lambda space: check_saw.append(space) or [("loss/smothing", "is not a setting.")])
    assert names(mistakes[0], "--set: ", "'x'", "section/field=value")
    assert [tuple(mistake.split(": ")[:2]) for mistake in mistakes[1:]] == [
        ("my.yaml:2", "loss/name"),
        ("my.yaml:2", "loss/gamma"),
        ("my.yaml:2", "loss/gamma"),
        ("my.yaml:2", "loss/gamma"),
        ("my.yaml:2", "loss/smothing"),
        ("my.yaml:3", "view/size"),
        ("my.yaml:4", "task"),
        ("parent.yaml:1", "optimizer/lr"),
    ]
    assert len(check_saw) == 1


def test_what_the_caller_finds_wrong_is_placed_and_reported_with_the_rest(write):
    found = [
        ("loss/gamma", "is negative."),
        ("loss/alpha", "is not a setting."),
        ("model/backbone", "must be given."),
        ("view/size", "is odd."),
    ]
    first, *others = mistakes_in(write(BASE), changes=["view/size={choice: []}"], check=lambda space: found)
    assert names(first, "--set: view/size: ", "choice", "[]")
    assert others == [
        "my.yaml: model/backbone: must be given.",
        "my.yaml:5: loss/alpha: is not a setting.",
        "my.yaml:6: loss/gamma: is negative.",
    ]


def test_a_caller_that_finds_nothing_wrong_gets_the_space_it_has_seen(write):
    seen = []
    space = read_space(write(BASE + START), check=lambda space: seen.append(space) or [])
    assert seen == [space]


def test_an_extends_circle_over_several_files_is_reported(write):
    write("extends: my.yaml", "b.yaml")
    (mistake,) = mistakes_in(write("extends: b.yaml"))
    assert names(mistake, "b.yaml:1: extends: ", "my.yaml -> b.yaml -> my.yaml")


def test_text_in_another_encoding_is_reported(tmp_path):
    (tmp_path / "my.yaml").write_bytes(b"task: \xff")
    (mistake,) = mistakes_in(tmp_path / "my.yaml")
    assert names(mistake, "my.yaml: ", "'utf-8' codec")


def test_an_unknown_space_is_reported_with_the_shipped_ones(tmp_path):
    shipped = ", ".join(shipped_spaces())
    (misspelt,), (folder,) = mistakes_in("efnet"), mistakes_in(tmp_path)
    assert names(misspelt, "efnet ", "did you mean effnet.yaml?", shipped) and names(folder, f"{tmp_path} ", shipped)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_gives_a_space_or_mistakes_and_nothing_else(write, seed):
    rng = np.random.default_rng(seed)
    letters = list((FOLDER / "effnet.yaml").read_text())
    for at in rng.integers(len(letters), size=4):
        letters[at] = str(rng.choice(list("[]{}:,-#1ex \n&*!'|/")))
    file = write("".join(letters))
    try:
        assert read_space(file, on_cpu=bool(seed % 2)).parameters
    except SpaceError as error:
        assert all(mistake.startswith(("my.yaml", "common.yaml", "finetune.yaml")) for mistake in error.mistakes)


@pytest.mark.parametrize("name", [*shipped_spaces(), *(name.removesuffix(".yaml") for name in shipped_spaces())])
@pytest.mark.parametrize("on_cpu", [False, True])
def test_a_shipped_space_reads_pickles_and_draws_its_start_entries(name, on_cpu):
    space = read_space(name, on_cpu=on_cpu)
    again = pickle.loads(pickle.dumps(space))
    assert again == space and space.start and space.grid("view")
    assert {"trials", "epochs", "grace", "reduction", "keep"} <= space.run.keys()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for entry in again.start_trials():
        study.enqueue_trial(entry)
    for entry in space.start:
        drawn = space(study.ask())
        assert all(drawn[section][name] == value for path, value in entry.items() if "/" in path for section, name in [path.split("/")])


@pytest.mark.parametrize("base", sorted(BASES))
def test_a_base_is_no_space_of_its_own(base):
    assert base not in shipped_spaces() and (FOLDER / base).is_file()


def test_a_plain_file_without_any_search_reads_as_yaml_does(write):
    text = "task: [[mask], [gender, age]]\ntrain: {clip: 1.0e-3, batch_size: 32, name: '101', amp: true}"
    assert nested(read_space(write(text)).fixed) == yaml.safe_load(text)


# Values that YAML 1.1 takes for something else than they look like


@pytest.mark.parametrize(
    "line, path, write",
    [
        ("model: {weights: no}", "model/weights", "none"),
        ("augment: {policy: off}", "augment/policy", "none"),
        ("train: {compile: yes}", "train/compile", "true"),
        ("task: {choice: [joint, on]}", "task", "true"),
        ("view: {size: 064}", "view/size", "64"),
        ("run: {epochs: 1:30}", "run/epochs", "90"),
        ("train: {batch_size: 5_0}", "train/batch_size", "50"),
        ("optimizer: {lr: {float: [0_1.0, 0x10]}}", "optimizer/lr", "16"),
    ],
)
def test_a_value_that_is_read_as_another_is_refused_at_its_line_with_how_to_write_it(tmp_path, line, path, write):
    file = tmp_path / "my.yaml"
    file.write_text(f"normalize: imagenet\n{line}\n")
    with pytest.raises(SpaceError) as caught:
        read_space(file)
    assert all(mistake.startswith(f"my.yaml:2: {path}: ") for mistake in caught.value.mistakes)
    assert write in caught.value.mistakes[-1].partition("write ")[2]


def test_words_in_quotes_and_plain_numbers_are_what_they_say(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("model: {weights: 'no'}\nview: {size: 64}\noptimizer: {lr: 1.0e-3}\ntrain: {compile: True}\ndata: {fold: 0}\n")
    assert read_space(file).fixed == {"model/weights": "no", "view/size": 64, "optimizer/lr": 1e-3, "train/compile": True, "data/fold": 0}


def test_merge_keys_bring_settings_that_the_mapping_itself_may_change(tmp_path):
    file = tmp_path / "my.yaml"
    mix = "mix:\n  <<: {name: mixup, prob: 0.3}\n  prob: 0.7\n"
    file.write_text("augment: &one {flip: 0.5, rotate: 3.0}\n" + mix + "on_cpu:\n  augment: {<<: *one, rotate: 5.0}\n")
    space = read_space(file, on_cpu=True)
    assert space.fixed == {"augment/flip": 0.5, "augment/rotate": 5.0, "mix/name": "mixup", "mix/prob": 0.7}


def test_a_merge_of_what_is_no_mapping_is_refused_at_its_line(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("augment:\n  <<: 3\n  flip: 0.5\n")
    with pytest.raises(SpaceError) as caught:
        read_space(file)
    assert [mistake.startswith("my.yaml:2: <<: ") for mistake in caught.value.mistakes] == [True]


# A setting that only some entries of a registry have

CHOOSERS = {"loss/name": Chooser("ce", {"ce": ("loss/smoothing", "loss/alpha"), "focal": ("loss/gamma", "loss/alpha"), "bce": ()})}


def owned(tmp_path, text, **options):
    file = tmp_path / "my.yaml"
    file.write_text(text)
    return read_space(file, choosers=CHOOSERS, **options)


def test_it_waits_for_its_entries_without_a_when(tmp_path):
    space = owned(tmp_path, "loss: {gamma: {float: [0.5, 4.0]}, name: {choice: [ce, focal, bce]}, smoothing: 0.1, alpha: {choice: [a, b]}}")
    assert {parameter.path: parameter.when for parameter in space.parameters} == {
        "loss/name": (),
        "loss/gamma": (("loss/name", ("focal",)),),
        "loss/alpha": (("loss/name", ("ce", "focal")),),
    }
    assert space.settled({"loss/name": "focal"}) == {"loss/name": "focal"}
    assert space.settled({"loss/name": "ce"}) == {"loss/name": "ce", "loss/smoothing": 0.1}


@pytest.mark.parametrize(
    "text, path",
    [
        ("loss: {name: focal, smoothing: 0.1}", "loss/smoothing"),
        ("loss: {gamma: 2.0}", "loss/gamma"),
        ("loss: {name: {choice: [focal, bce]}, smoothing: {float: [0.0, 0.1]}}", "loss/smoothing"),
        ("loss: {name: {choice: [ce, focal]}, gamma: {float: [0.0, 1.0], when: {loss/name: ce}}}", "loss/gamma"),
    ],
)
def test_where_no_entry_that_can_be_chosen_has_it_or_its_when_names_another_it_is_refused(tmp_path, text, path):
    with pytest.raises(SpaceError) as caught:
        owned(tmp_path, text)
    assert [mistake.startswith(f"my.yaml:1: {path}: ") for mistake in caught.value.mistakes] == [True]


def test_a_later_layer_that_takes_its_entries_away_takes_it_away(tmp_path):
    text = "loss: {name: {choice: [ce, focal]}, gamma: {float: [0.5, 4.0]}, smoothing: 0.1}"
    space = owned(tmp_path, text, changes=["loss/name=bce"])
    assert space.fixed == {"loss/name": "bce"} and space.parameters == ()
    with pytest.raises(SpaceError, match="--set: loss/gamma: .*ce.*focal"):
        owned(tmp_path, "loss: {name: ce}", changes=["loss/gamma=2.0"])


# Python files that a space names


@pytest.fixture
def parts(tmp_path):
    """Files of that name, some in a folder."""
    (tmp_path / "lib").mkdir()
    for name in ("a.py", "b.py", "lib/a.py", "lib/c.py"):
        (tmp_path / name).touch()
    return tmp_path


def test_extensions_are_those_of_a_space_and_of_all_that_it_extends_each_seen_from_the_file_that_names_it(write, parts):
    write("extensions: [c.py, ../b.py]", "lib/parent.yaml")
    space = write("extends: lib/parent.yaml\nextensions: [a.py, b.py, lib/../a.py]" + BASE)
    assert [file.resolve().relative_to(parts) for file in find_extensions(space)] == [Path("lib/c.py"), Path("b.py"), Path("a.py")]
    assert read_space(space).fixed == {"task": "joint"} and find_extensions("quickstart") == []


def test_every_file_that_is_missing_or_no_python_file_or_shares_a_name_is_reported_at_its_line(write, parts):
    space = write("extensions:\n- gone.py\n- my.yaml\n- a.py\n- lib/a.py\n- b.py" + BASE)
    with pytest.raises(SpaceError) as caught:
        find_extensions(space)
    expected = [("my.yaml:2: ", "gone.py"), ("my.yaml:3: ", "my.yaml", ".py"), ("my.yaml:4: ", "lib/a.py"), ("my.yaml:5: ", "a.py")]
    assert mistaken(caught.value.mistakes, expected) == []


def test_a_file_that_the_resumed_run_has_need_not_lie_beside_the_space(write, parts):
    space = write("extensions: [extensions/mine.py, a.py]" + BASE)
    assert [file.name for file in find_extensions(space, there=["mine.py"])] == ["a.py"]


@pytest.mark.parametrize("wrong", ["my_parts.py", "{a: b}", "[[a.py]]", "['']"])
def test_extensions_that_are_no_list_of_files_are_reported(write, wrong):
    assert mistaken(mistakes_in(write(f"extensions: {wrong}{BASE}")), [("my.yaml:1: extensions: ", "[my_parts.py]")]) == []
