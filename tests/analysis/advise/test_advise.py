"""What would help most: each topic on data that shows it, and the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from analysis.advise.__main__ import app
from analysis.evaluation.advice import Advice, Learning, advice_lines, limits, read_advice
from analysis.evaluation.ceiling import Ceiling, TargetNoise, ceiling_of
from analysis.evaluation.learning import SHARES, Fitted, curve_of, gain_of_twice
from analysis.evaluation.needs import needs
from analysis.evaluation.search.ends import range_ends
from analysis.evaluation.search.reading import SearchedTrial
from analysis.evaluation.search.space import Dimension
from analysis.members.trials import Sample
from search_spaces.schema import flat
from tests.messages import missing
from trainables.config import TrialConfig
from trainables.data.targets import Classes, Scheme, Tags
from trainables.metrics import METRICS, METRICS_OF
from trainables.metrics.evidence import evidence

F1, ACCURACY = METRICS["f1_macro"], METRICS["accuracy"]
SCHEME = Scheme((Classes("shape", ("round", "square", "flat")),))
GROUPS = np.array([100, 200, 400, 800])

# Would more images help?


@pytest.mark.parametrize(("floor", "slope", "power"), [(0.0, 0.4, 0.2), (0.1, 0.3, 0.5), (0.2, 0.3, 1.0), (0.3, 0.0, 0.5)])
def test_what_twice_the_groups_give_is_read_off_the_power_that_error_falls_by(floor, slope, power):
    errors = floor + slope * (GROUPS / 800) ** -power
    (gain,) = gain_of_twice(GROUPS, errors[None])
    assert gain == pytest.approx(slope * (1 - 2**-power), abs=0.002)


def test_two_shares_make_a_curve_that_falls_to_no_error_and_errors_that_rise_promise_nothing():
    (falling, rising) = gain_of_twice(np.array([100, 200]), np.array([[0.4, 0.4 / 2**0.5], [0.3, 0.35]]))
    assert falling == pytest.approx(0.4 / 2**0.5 - 0.2, abs=0.01) and rising < falling / 2
    assert gain_of_twice(GROUPS, np.array([[0.3, 0.32, 0.34, 0.36]])) < 0.01


def answers(right, seed, people=300, images=4):
    """Evidence of an answer that is right for such a share of people, whole people at a time."""
    rng = np.random.default_rng(seed)
    truth = np.tile(rng.integers(3, size=people)[:, None], images).ravel()
    wrong = np.repeat(np.random.default_rng(7).random(people) > right, images)  # who is hard is hard at any share
    return evidence(ACCURACY, truth, np.eye(3)[(truth + wrong) % 3], np.repeat(np.arange(people), images))


def curve(rights, draws=3):
    found = [
        Fitted(share, round(800 * share), 0, answers(right + 0.004 * draw, 1))
        for share, right in zip(SHARES, rights, strict=True)
        for draw in range(draws if share < 1 else 1)
    ]
    return curve_of(found, ACCURACY, np.random.default_rng(0))


def test_a_score_that_rises_with_the_groups_is_expected_to_go_on_and_a_flat_one_is_not():
    steep, flat_one = curve([0.4, 0.5, 0.58, 0.65]), curve([0.6, 0.6, 0.6, 0.6])
    assert steep.helps and steep.gain_interval[0] <= steep.gain <= steep.gain_interval[1]
    assert 0 < steep.gain < steep.last + 0.01
    assert not flat_one.helps
    assert [step.share for step in steep.steps] == list(SHARES)
    assert all(step.interval[0] <= step.score <= step.interval[1] for step in steep.steps)


# The highest score that can be measured


def sample(people=400, images=3, scheme=SCHEME, tags=None, labels=None):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(people), images)
    labels = np.repeat(rng.integers(3, size=people), images)[:, None] if labels is None else labels
    ids = tuple(map(str, range(len(groups))))
    return Sample(ids, groups, labels, scheme, np.full(len(groups), "fold 0", dtype=object), tags)


@pytest.mark.parametrize("by_group", [False, True])
@pytest.mark.parametrize("wrong", [0.0, 0.1, 0.3])
def test_no_accuracy_is_above_the_share_of_right_labels(by_group, wrong):
    noise = TargetNoise("shape", by_group, wrong, (wrong / 2, wrong * 1.5))
    found = ceiling_of([noise], sample(), SCHEME, ACCURACY, np.random.default_rng(0))
    assert found.score == pytest.approx(1 - wrong, abs=0.01)
    assert found.interval == pytest.approx((1 - wrong * 1.5, 1 - wrong / 2), abs=0.01)


def test_wrong_labels_of_several_targets_add_up_and_of_tags_each_counts():
    two = Scheme((*SCHEME.targets, Classes("size", ("small", "large"))))
    labels = np.random.default_rng(1).integers(2, size=(1200, 2))
    noise = [TargetNoise(name, False, 0.1, (0.1, 0.1)) for name in two.names]
    assert ceiling_of(noise, sample(labels=labels), two, ACCURACY, np.random.default_rng(0)).score == pytest.approx(0.81, abs=0.01)
    tags, there = Scheme((Tags("seen", ("sea", "sky")),)), np.random.default_rng(1).random((1200, 2)) < 0.4
    noise = [TargetNoise(name, False, 0.1, (0.1, 0.1)) for name in tags.class_names()]
    whole = sample(scheme=tags, labels=np.zeros((1200, 0), dtype=int), tags=there)
    assert ceiling_of(noise, whole, tags, METRICS_OF["tags"]["accuracy"], np.random.default_rng(0)).score == pytest.approx(0.81, abs=0.01)


def test_labels_limit_a_score_that_is_nearer_to_what_they_allow_than_that_is_to_perfect():
    ceiling = Ceiling(0.9, (0.88, 0.92), ())
    assert limits(ceiling, 0.85, F1) and not limits(ceiling, 0.6, F1)


# Settings whose best value is at the end of its range

SPACE = (
    Dimension("optimizer/lr", "float", (1e-5, 1e-2), log=True),
    Dimension("loss/smoothing", "float", (0.0, 0.3)),
    Dimension("train/batch_size", "choice", (16, 32, 64)),
    Dimension("loss/name", "choice", ("focal", "cross_entropy")),
)
PLAIN = {"epochs": 2, "optimizer": {"lr": 1e-3}, "model": {"backbone": "test_efficientnet"}}


def trials(**of_best):
    """Twelve trials, best first, whose drawn values are spread, but for those that are given for the best five, by path."""
    settings = flat(TrialConfig.from_values(PLAIN).values())
    found = []
    for place in range(12):
        values = {"optimizer/lr": 1e-5 * 10 ** (place % 4 * 0.7 + 0.5), "loss/smoothing": 0.05 + 0.02 * (place % 7)}
        values |= {"train/batch_size": (32, 16, 64)[place % 3], "loss/name": ("focal", "cross_entropy")[place % 2]}
        values |= {path: given[place] for path, given in of_best.items() if place < len(given)}
        settled = settings | {path: value for path, value in values.items() if path != "loss/name"}
        found.append(SearchedTrial(place, "finished", "", 0.9 - place / 100, (), 1.0, "", settled, values))
    return found


def ends(**of_best):
    return {one.path: one for one in range_ends(trials(**{path.replace("__", "/"): given for path, given in of_best.items()}), SPACE)}


def test_a_range_whose_best_values_are_at_its_end_is_named_with_a_value_beyond_it_on_its_scale():
    assert ends() == {}
    found = ends(optimizer__lr=[9.5e-3, 8e-3, 5e-3, 1e-4, 1e-5])["optimizer/lr"]
    assert (found.end, found.limit, found.best, found.near, found.of) == ("high", 1e-2, 9.5e-3, 3, 5)
    assert found.beyond == pytest.approx(1e-2 * 1000**0.1)
    assert ends(optimizer__lr=[9.5e-3, 1e-4, 1e-5, 1e-4, 1e-4]) == {}, "one trial alone may be chance"
    assert ends(optimizer__lr=[5e-3, 9e-3, 9e-3, 9e-3, 9e-3]) == {}, "the best one is inside"


def test_the_last_of_ordered_choices_counts_and_an_end_that_a_setting_cannot_pass_does_not():
    assert ends(train__batch_size=[64, 64, 64, 16, 32])["train/batch_size"].beyond == 128
    assert ends(loss__smoothing=[0.0, 0.0, 0.001, 0.0, 0.0]) == {}, "no smoothing is below 0"
    assert ends(loss__smoothing=[0.3, 0.3, 0.29, 0.3, 0.3])["loss/smoothing"].beyond == pytest.approx(0.33)
    assert ends(loss__name=["focal"] * 5) == {}, "names have no order"


# Classes that need images


def test_classes_of_few_groups_that_score_low_need_images_unless_more_groups_did_not_help():
    labels = np.repeat([0] * 200 + [1] * 150 + [2] * 50, 3)[:, None]
    known, scores = sample(labels=labels), {"round": 0.9, "square": 0.5, "flat": 0.4}
    assert [(one.name, one.groups) for one in needs(scores, known, SCHEME, {})] == [("flat", 50), ("square", 150)]
    assert [one.name for one in needs(scores, known, SCHEME, {"flat": -0.1, "square": 0.05})] == ["square"]
    assert needs({"round": 0.2, "square": 0.9, "flat": 0.9}, known, SCHEME, {}) == []


# The command


def run(folder, *words):
    result = CliRunner().invoke(app, ["--run", str(folder), *words])
    assert result.exit_code == 0, result.output + result.stderr
    return result.stdout


@pytest.fixture
def weighty(make_run, tmp_path):
    """A run whose backbone begins with weights of a file."""
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet", num_classes=0).state_dict(), tmp_path / "own.safetensors")
    model = {"backbone": "test_efficientnet", "weights": str(tmp_path / "own.safetensors")}
    return make_run(tmp_path / "runs", "weighty", [{"model": model}, {"model": model, "task": "age"}]).folder


def test_the_command_says_what_would_help_writes_it_and_finds_the_same_again(weighty):
    said = run(weighty, "--draws", "2")
    found = read_advice(weighty / "advice.json")
    assert isinstance(found.learning, Learning) and found.trial == "weighty/0"
    assert [step.share for step in found.learning.curve.steps] == [0.5, 1.0]
    first, *rest = [line for line in said.splitlines() if line.startswith(("- ", "The best trial"))]
    assert not missing(first, "weighty/0", f"{found.score:.3f}") and [f"- {line}" for line in advice_lines(found, F1)] == rest
    assert isinstance(found.ceiling, Ceiling) and found.ceiling.interval[0] <= found.ceiling.score <= found.ceiling.interval[1] <= 1
    before = (weighty / "advice.json").read_bytes()
    run(weighty, "--draws", "2")
    assert (weighty / "advice.json").read_bytes() == before


def test_without_weights_or_images_the_rest_is_said_and_why_not_all(here, weighty, monkeypatch):
    run(here / "runs" / "faces")
    found = read_advice(here / "runs/faces/advice.json")
    assert "weights" in found.learning and isinstance(found.ceiling, Ceiling)
    card = json.loads((weighty / "run.json").read_text())
    (weighty / "run.json").write_text(json.dumps(card | {"data": "nowhere"}))
    run(weighty)
    assert "nowhere" in read_advice(weighty / "advice.json").learning


def test_lines_come_first_where_something_can_be_done_and_last_where_something_is_not_known():
    found = Advice("f1_macro", "classes", "a/0", 0.5, "too few groups", Ceiling(0.9, (0.8, 1.0), ()), "nothing varied", ())
    order = [("too few groups" in line, "nothing varied" in line) for line in advice_lines(found, F1)]
    assert order[-2:] == [(True, False), (False, True)]
    limited = advice_lines(replace(found, score=0.89), F1)
    assert "0.890" in limited[0]
