import re
from dataclasses import replace

import numpy as np
import pytest
import timm

from search_spaces.read import read_space
from search_spaces.schema import SpaceError, flat
from tests.messages import missing, mistaken
from trainables.config import REGISTRIES, TrialConfig, choosers
from trainables.data.layouts.contest import contest_scheme
from trainables.data.targets import Classes, Number, Scheme, Tags
from trainables.data.views import View
from trainables.metrics import METRICS
from trainables.registry import ConfigError
from tuner.preflight import _networks, check_space, cover, covered_targets, draw, tasks_of, views_of
from tuner.rehearsal import rehearse

SCHEME = contest_scheme((30, 60))
FIXED = {"epochs": 2, "seed": 0}
BASE = """
view: {size: 32}
model: {backbone: test_efficientnet, weights: none}
optimizer: {lr: {float: [1.0e-4, 1.0e-2], log: true}}
train: {batch_size: 32}
"""


@pytest.fixture
def read(tmp_path):
    """The space of a text, checked as the command checks it."""

    def read(text, **options):
        file = tmp_path / "my.yaml"
        file.write_text(text)
        return read_space(file, choosers=choosers(), check=lambda space: check_space(space, SCHEME), **options)

    return read


def mistakes_in(read, text, **options):
    with pytest.raises(SpaceError) as caught:
        read(text, **options)
    return caught.value.mistakes


def test_numbers_and_tags_have_no_pseudo_labels_of_fixmatch(tmp_path):
    scheme = Scheme((Classes("mask", ("worn", "absent")), Number("years"), Tags("seen", ("hat", "scarf"))))
    (tmp_path / "my.yaml").write_text(f"{BASE}data: {{unlabelled: [more]}}\nsemi: {{name: {{choice: [none, fixmatch]}}}}\n")
    for task, named in (("mask", ""), ("years", "years"), ("seen", "seen"), ("heads", "years, seen")):
        space = read_space(tmp_path / "my.yaml", choosers=choosers())
        found = [words for path, words in check_space(replace(space, fixed={**space.fixed, "task": task}), scheme) if path == "semi/name"]
        assert bool(found) is bool(named) and not any(missing(words, "fixmatch", named) for words in found)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("loss", ["{name: cosine_ce}", "{name: {choice: [cross_entropy, cosine_ce]}}"])
def test_a_loss_without_meaningful_probabilities_goes_with_metrics_of_labels_alone(read, metric, loss):
    text = f"{BASE}run: {{metric: {metric}}}\nloss: {loss}\n"
    if METRICS[metric].takes == "labels":
        assert read(text).run["metric"] == metric
    else:
        (mistake,) = mistakes_in(read, text)
        assert re.match(r"my.yaml:\d+: loss/name: .*cosine_ce", mistake) and metric in mistake and "f1_macro" in mistake


def test_a_valid_space_has_no_mistakes(read):
    assert read(BASE).parameters


@pytest.mark.parametrize("path, name", [(path, name) for path, table in REGISTRIES.items() for name in table])
def test_every_name_of_every_registry_passes(read, path, name):
    section, _, field = path.partition("/")
    needed = ["data/unlabelled=[more]"] if name == "fixmatch" else []
    space = read(BASE, changes=[f"{section}/{field}={name}", *needed])
    assert space.fixed[path] == name


@pytest.mark.parametrize(
    "line, path, parts",
    [
        ("loss: {smothing: 0.1}", "loss/smothing", ["cross_entropy", "did you mean loss/smoothing"]),
        ("loss: {name: focal, smothing: 0.1}", "loss/smothing", ["focal", "loss/smoothing (of cross_entropy)"]),
        ("los: {name: focal}", "los/name", ["did you mean loss/name"]),
        ("loss: {name: focall}", "loss/name", ["'focall'", "did you mean focal?"]),
        ("loss: {name: {choice: [focal, hinge]}}", "loss/name", ["'hinge'", "choose one of arcface, "]),
        ("semi: {name: fixmatch}", "semi/name", ["fixmatch", "data/unlabelled"]),
        ("mix: {name: blend}", "mix/name", ["'blend'", "choose one of cutmix, cutmix_intra, "]),
        ("schedule: {name: 3}", "schedule/name", ["string", "3"]),
        ("loss: {smoothing: {float: [0.0, 1.0]}}", "loss/smoothing", ["less than 1", "1.0"]),
        ("seed: 3", "seed", ["--seed"]),
        ("epochs: {choice: [3, 5]}", "epochs", ["run/epochs"]),
        ("data: {folds: {choice: [3, 5]}}", "data/folds", ["cannot be searched"]),
        ("data: {cuts: [60, 30]}", "data/cuts", ["ascending", "[60, 30]"]),
        ("data: {only: 1}", "data/only", ["tuner.refit --all-data --last-epochs"]),
        ("task: wisdom", "task", ["'wisdom'", "mask, gender, age"]),
        ("task: {choice: [joint, [[mask], [mask, age]]]}", "task", ["mask", "two heads"]),
        ("run: {trails: 3}", "run/trails", ["did you mean run/trials"]),
        ("augment: {flip: 1.5}", "augment/flip", ["less than or equal to 1", "1.5"]),
    ],
)
def test_a_wrong_line_is_refused_with_its_place_and_the_fix(read, line, path, parts):
    (mistake,) = mistakes_in(read, BASE.strip() + "\n" + line)
    assert mistake.startswith(f"my.yaml:5: {path}: ") and not missing(mistake, *parts), mistake


@pytest.mark.parametrize(
    "task, texts, parts",
    [
        ("joint", "a photo", [["'a photo'", "{class}"]]),
        ("heads", "{choice: ['a {class}', [[worm, a mask], 'a {class}']]}", [["'worm'", "did you mean worn?"]]),
        ("gender", "[[male, a man]]", [["gender=female"]]),
        ("gender", "[[male]]", [["[class, text, ...]"]]),
    ],
)
def test_texts_of_no_class_and_classes_without_texts_are_refused_at_their_line(read, task, texts, parts):
    text = f"task: {task}\n" + BASE.strip().replace(
        "weights: none", "weights: clip.pt, heads: zero_shot,\n  texts: " + texts.replace("a photo", "'a photo'")
    )
    assert not mistaken(mistakes_in(read, text), [("my.yaml:4: model/texts: ", *one) for one in parts])


def test_texts_that_nothing_reads_are_refused(read, monkeypatch):
    assert not mistaken(mistakes_in(read, BASE, changes=["model/texts='a {class}'"]), [("--set: model/texts: ", "zero_shot")])
    monkeypatch.setattr("trainables.texts.find_spec", lambda package: None)
    found = mistakes_in(read, BASE, changes=["model/heads=zero_shot"])
    assert not mistaken(found, [("--set: model/heads: ", "pip install open_clip_torch", "--extra clip")])


def test_an_unknown_backbone_is_refused_with_the_nearest_names(read):
    (mistake,) = mistakes_in(read, BASE.replace("test_efficientnet", "{choice: [resnet18, efficientnet_b00]}"))
    assert mistake.startswith("my.yaml:3: model/backbone: ") and "'efficientnet_b00'" in mistake
    assert "efficientnet_b0" in mistake.split("did you mean")[1]


def test_what_every_experiment_must_decide_is_asked_for(read):
    expected = [("my.yaml: model/backbone: ", "required"), ("my.yaml: optimizer/lr: ", "required")]
    assert not mistaken(mistakes_in(read, "view: {size: 32}"), expected)


def test_all_mistakes_are_reported_at_once_with_file_and_line(read):
    text = """run: {epochs: 0}
task: wisdom
seed: 1
data: {fold: {choice: [0, 1]}}
model: {backbone: resnet1888}
loss: {name: focall, gama: 2.0, gamma: -1.0}
optimizer: {lr: {float: [1.0e-2, 1.0e-4]}}
"""
    found = mistakes_in(read, text)
    places = [mistake.split(": ")[:2] for mistake in found]
    assert places == [
        ["my.yaml:1", "run/epochs"],
        ["my.yaml:2", "task"],
        ["my.yaml:3", "seed"],
        ["my.yaml:4", "data/fold"],
        ["my.yaml:5", "model/backbone"],
        ["my.yaml:6", "loss/gama"],
        ["my.yaml:6", "loss/name"],
        ["my.yaml:6", "loss/gamma"],
        ["my.yaml:7", "optimizer/lr"],
    ]


def test_a_change_from_the_command_line_is_checked_and_named_as_such(read):
    mistake = mistakes_in(read, BASE, changes=["loss/gama=2"])[0]
    assert mistake.startswith("--set: loss/gama: ") and not missing(mistake, "cross_entropy", "did you mean loss/gamma")


def test_every_view_that_a_space_can_ask_for_is_found(read):
    text = BASE.replace("{size: 32}", "{crop: {choice: [none, center]}, fraction: 0.5, size: {choice: [32, [48, 64]]}}")
    assert set(views_of(read(text))) == {
        View(crop, fraction, height, width) for crop, fraction in (("none", 1.0), ("center", 0.5)) for height, width in ((32, 32), (48, 64))
    }


def test_a_view_out_of_a_range_without_end_is_refused(read):
    space = read(BASE.replace("{size: 32}", "{crop: center, fraction: {float: [0.5, 1.0]}}"))
    with pytest.raises(SpaceError, match="my.yaml:2: view/fraction: .*choice"):
        views_of(space)


def test_draws_are_complete_configurations_and_repeat_with_the_seed(read):
    space = read(BASE + "loss: {name: {choice: [cross_entropy, focal]}}")
    first, again, other = (draw(space, FIXED, seed, count=20) for seed in (0, 0, 1))
    assert first == again != other
    assert {TrialConfig.from_values(values).loss.name for values in first} == {"cross_entropy", "focal"}


def test_values_that_only_together_make_no_sense_are_found_by_drawing(read):
    space = read(BASE + "mix: {name: cutmix_vertical, low: {float: [0.2, 0.6]}, high: {float: [0.4, 0.8]}}")
    with pytest.raises(SpaceError, match="mix: mix/low .*mix/high"):
        draw(space, FIXED, seed=0, count=100)


def test_a_number_that_is_to_decide_the_class_and_is_not_trained_is_refused_by_drawing(read):
    space = read(BASE + "task: heads\nloss: {ordinal: {choice: [none, number]}}")
    with pytest.raises(SpaceError, match="loss/ordinal: number .*loss/regression .* is 0; set that above 0"):
        draw(space, FIXED, seed=0)


CONDITIONAL = (
    BASE
    + """
loss: {name: {choice: [cross_entropy, focal, soft_f1]}, gamma: {float: [0.5, 3.0], when: {loss/name: focal}}}
mix: {name: {choice: [none, mixup]}, alpha: {float: [0.1, 1.0], when: {mix/name: mixup}}}
sampler: {name: {choice: [shuffle, weighted]}}
"""
)


@pytest.mark.parametrize("seed", range(10))
def test_the_cover_shows_every_choice_and_every_conditional_value_with_few_configurations(read, seed):
    drawn = draw(read(CONDITIONAL), FIXED, seed)
    chosen = cover(read(CONDITIONAL), drawn)
    shown = [flat(values) for values in chosen]
    assert chosen[0] == drawn[0]
    assert {values["loss/name"] for values in shown} == {"cross_entropy", "focal", "soft_f1"}
    assert {values["mix/name"] for values in shown} == {"none", "mixup"}
    assert {values["sampler/name"] for values in shown} == {"shuffle", "weighted"}
    assert any("loss/gamma" in values for values in shown) and any("mix/alpha" in values for values in shown)
    assert len(chosen) <= 5


def test_a_valid_space_is_rehearsed_without_a_word_and_without_a_trace(read, data):
    space = read(CONDITIONAL)
    chosen = cover(space, draw(space, FIXED, seed=0))
    before = [array.copy() for array in (data.images.labels, data.split.train)]
    done = []
    rehearse(space, chosen, {0: data}, done.append)
    assert sum(done) == len(chosen)
    assert all(np.array_equal(one, other) for one, other in zip(before, (data.images.labels, data.split.train), strict=True))


@pytest.mark.parametrize(
    "line, path, owner",
    [
        ("loss: {name: cross_entropy, gamma: {float: [0.5, 3.0]}}", "loss/gamma", "focal"),
        ("loss: {name: focal, smoothing: 0.1}", "loss/smoothing", "cross_entropy"),
        ("loss: {name: {choice: [focal, soft_f1]}, smoothing: 0.1}", "loss/smoothing", "cross_entropy"),
        ("optimizer: {name: adamw, lr: 1.0e-3, momentum: {float: [0.8, 0.9]}}", "optimizer/momentum", "sgd, madgrad"),
        ("schedule: {every: {int: [1, 5]}}", "schedule/every", "step"),
        ("mix: {name: none, low: 0.3}", "mix/low", "cutmix_vertical, cutmix_intra"),
        ("sampler: {name: shuffle, power: 0.5}", "sampler/power", "weighted"),
        ("augment: {ops: 3}", "augment/ops", "rand"),
        ("data: {weights: weights.csv}", "data/weights", "weighted"),
        ("data: {unlabelled: [more]}", "data/unlabelled", "fixmatch"),
        ("semi: {ratio: 3}", "semi/ratio", "fixmatch"),
        ("view: {size: 32, margin: 0.5}", "view/margin", "face"),
    ],
)
def test_a_setting_that_no_configuration_of_the_space_has_is_refused_at_its_line_with_its_owners(read, line, path, owner):
    text = "\n".join(part for part in BASE.strip().splitlines() if part.split(":")[0] != line.split(":")[0]) + "\n" + line
    (mistake,) = mistakes_in(read, text)
    assert mistake.startswith(f"my.yaml:{len(text.splitlines())}: {path}: ") and owner in mistake


def test_what_one_entry_alone_has_is_drawn_and_set_only_where_it_is_chosen(read):
    loss = "loss: {name: {choice: [cross_entropy, focal]}, gamma: {float: [0.5, 3.0]}, smoothing: 0.1}"
    space = read(BASE + loss + "\nsampler: {name: {choice: [shuffle, weighted]}, power: 0.5}\ndata: {weights: weights.csv}")
    drawn = draw(space, FIXED, seed=0, count=40)
    assert {values["loss"]["name"] for values in drawn} == {"cross_entropy", "focal"}
    for values in map(flat, drawn):
        assert ("loss/gamma" in values) == (values["loss/name"] == "focal") and ("loss/smoothing" in values) == (
            values["loss/name"] == "cross_entropy"
        )
        assert values.get("sampler/power") == {"weighted": 0.5, "shuffle": None}[values["sampler/name"]]


def test_what_cannot_be_built_with_these_images_is_refused_before_the_search(read, data):
    space = read(BASE.replace("batch_size: 32", "batch_size: {choice: [32, 5000]}"))
    with pytest.raises(SpaceError, match="my.yaml:5: train/batch_size: .*5000.*training images"):
        rehearse(space, cover(space, draw(space, FIXED, seed=0)), {0: data}, lambda done: None)


def test_a_configuration_that_diverges_is_left_to_its_trial(read, data):
    space = read(BASE.replace("{float: [1.0e-4, 1.0e-2], log: true}", "1.0e+30, name: sgd"))
    done = []
    rehearse(space, draw(space, FIXED, seed=0, count=1), {0: data}, done.append)
    assert done == [1]


TOGETHER = {
    "[joint, heads, [[mask], [age, gender]]]": ("mask", "gender", "age"),
    "[joint, age]": ("mask", "gender", "age"),
    "[gender, mask]": ("mask", "gender"),
    "[mask, age<30, [[gender, age>=60]]]": ("mask", "gender", "age"),
    "[mask, age<30]": ("mask", "age<30"),
}


@pytest.mark.parametrize("tasks", TOGETHER)
def test_trials_may_predict_different_targets_that_they_tell_together(read, tasks):
    assert covered_targets(tasks_of(read(BASE + f"task: {{choice: {tasks}}}")), SCHEME) == TOGETHER[tasks]


def test_a_task_that_asks_nothing_is_refused_at_its_line_with_what_can_be_asked(read):
    (mistake,) = mistakes_in(read, BASE + "task: {choice: [mask, age<31]}")
    assert mistake.startswith(f"my.yaml:{len(BASE.splitlines()) + 1}: task: ") and "age<31" in mistake and "30, 60" in mistake


def test_trials_whose_scores_no_metric_gives_and_questions_that_leave_a_target_open_are_refused():
    bands = Scheme((Classes.banded("age", (20, 40, 60)), Number("weight")))
    for tasks, words in ((["age", "weight"], "weight (number)"), (["age<20", "age<40"], "age<20 and age<40")):
        with pytest.raises(ConfigError) as error:
            covered_targets(tasks, bands)
        assert words in str(error.value)


def test_the_networks_that_are_known_without_timm_are_timms():
    assert len(_networks()) > 1000
    assert all(timm.is_model(name) for name in _networks())
