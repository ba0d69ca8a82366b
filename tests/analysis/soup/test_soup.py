import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from analysis import command
from analysis.command import decode
from analysis.evaluation.uncertainty import Gain
from analysis.members.soup.alike import find_groups
from analysis.members.soup.average import RECIPES, Soup, mean_tensors, measure_statistics, soup_maker
from analysis.members.trials import EVERY_FOLD, load_runs
from analysis.soup.__main__ import app
from analysis.soup.outcome import Outcome, make_soups
from tests.conftest import nightly_after
from tests.messages import missing
from tests.s3 import BUCKET, s3_server
from trainables.build import build_parts
from trainables.card import Card
from trainables.checkpoint import load_model, pack_model
from trainables.config import TrialConfig
from trainables.data.batches import plain_batches
from trainables.data.splits import NO_FOLD
from trainables.data.targets import read_task
from trainables.data.training import Data
from trainables.data.views import View, ViewConfig, build_views, open_view
from trainables.loop import fit, predict
from trainables.metrics import METRICS
from trainables.models.assemble import IMAGENET, build_model
from trainables.record import (
    FINALISTS,
    IN,
    MODEL,
    SPLIT,
    Predictions,
    read_predictions,
    read_record,
    read_run,
    trial_folder,
    write_predictions,
    write_reports,
    write_result,
)
from trainables.storage import open_folder, write_atomically

CPU = torch.device("cpu")
VIEW = View.of(ViewConfig(size=32))


@pytest.fixture(scope="session")
def begun(tmp_path_factory, images):
    """Files of first weights, one for each tiny network; {backbone} in the name stands for it."""
    folder = tmp_path_factory.mktemp("weights")
    for name in ("test_efficientnet", "test_resnet", "test_vit"):
        config = TrialConfig.from_values(
            {"epochs": 1, "optimizer": {"lr": 0.1}, "model": {"backbone": name, "weights": "none"}, "view": {"size": 32}}
        )
        model = build_model(config, read_task("joint", images.scheme), IMAGENET)
        for file in (f"{name}.safetensors", f"other-{name}.safetensors"):
            save_file({key: value.contiguous() for key, value in model.backbone.state_dict().items()}, folder / file)
    return folder


@pytest.fixture(scope="session")
def like(begun):
    """Settings of a trial from these weights, with sections changed."""

    def make(*, backbone="test_efficientnet", weights="{backbone}.safetensors", model=(), **changes):
        began = weights if weights == "none" else str(begun / weights)
        return {"model": {"backbone": backbone, "weights": began, **dict(model)}, **changes}

    return make


@pytest.fixture(scope="session")
def trained(make_run, like, cache, tmp_path_factory):
    """A run of four similar trials and one of another view, each trained for an epoch or two. Read it, do not change it."""
    trials = [
        like(optimizer={"lr": 3e-3}, epochs=2, train={"batch_size": 32}),
        like(optimizer={"lr": 1e-2}, epochs=2, train={"batch_size": 32}),
        like(optimizer={"lr": 3e-3}, epochs=1, train={"batch_size": 16}, augment={"flip": 0.5}),
        like(optimizer={"lr": 1.0}, epochs=1, train={"batch_size": 32}),
        like(view={"size": [40, 32]}),
    ]
    made = make_run(tmp_path_factory.mktemp("runs"), "faces", trials)
    views = build_views(made.images, [VIEW], cache)
    data = Data.of(made.images, made.split, views, with_statistics=False)
    for number in range(4):
        train(trial_folder(made.folder, number), data)
    return made


def train(folder, data):
    record = read_record(folder)
    config = record.config
    parts = build_parts(config, data, CPU)
    epochs = list(fit(parts, config.train, epochs=config.epochs, seed=config.seed))
    last = config.epochs
    ids = tuple(data.images.ids[index] for index in data.split.valid)
    write_atomically(folder / MODEL, pack_model(parts.evaluated, Card(config, data.images.scheme, last)))
    write_predictions(folder, Predictions(ids, epochs[-1].probabilities, last))
    write_reports(folder, [asdict(epoch.report) for epoch in epochs])
    write_result(folder, replace(record.result, best_epoch=last))


@pytest.fixture(scope="session")
def runs(trained):
    return load_runs([trained.folder])


def seen_by(made, positions, cache):
    """The view's images and the rows of the run's images at these positions."""
    seen = open_view(build_views(made.images, [VIEW], cache).files[VIEW])
    return seen.images, seen.rows(made.images.take(positions).ids)


@pytest.fixture
def make_soup(trained, runs, cache):
    """Makes soups of the run's similar trials."""
    group = find_groups(runs.trials, runs.metric)[0][0]
    (view, taught), (_, validated) = (seen_by(trained, part, cache) for part in (trained.split.train, trained.split.valid))
    with soup_maker(group, view, taught, validated, runs.valid, runs.metric, CPU) as make_soup:
        yield make_soup


# Which trials are alike


def names(trials):
    return [trial.name for trial in trials]


def test_similar_trials_are_one_group_and_the_best_on_validation_is_first(runs):
    (group,), left_out = find_groups(runs.trials, runs.metric)
    assert sorted(names(group)) == [f"faces/{number}" for number in range(4)]
    assert [trial.score for trial in group] == sorted((trial.score for trial in group), reverse=True)
    (alone,) = left_out
    assert len(alone.names) == 1 and alone.names[0].startswith(
        "faces/4 (test_efficientnet, joint, 40x32, from test_efficientnet.safetensors)"
    )


@pytest.mark.parametrize(
    "first, second",
    [
        ({}, {"view": {"size": [40, 32]}}),
        ({}, {"view": {"size": 32, "crop": "center"}}),
        ({}, {"task": "heads"}),
        ({"task": [["mask"], ["gender", "age"]]}, {"task": [["mask", "gender"], ["age"]]}),
        ({"task": [["mask"], ["age"]]}, {"task": [["age"], ["mask"]]}),
        ({}, {"backbone": "test_resnet"}),
        ({}, {"weights": "other-{backbone}.safetensors"}),
        ({}, {"model": {"edges": "mix"}}),
        ({}, {"model": {"second": "test_resnet"}}),
        ({}, {"model": {"neck": "batchnorm"}}),
        ({}, {"model": {"hidden": 16}}),
        ({"model": {"hidden": 16}, "seed": 0}, {"model": {"hidden": 16}, "seed": 1}),
        ({}, {"loss": {"name": "arcface"}}),
        ({"loss": {"name": "arcface", "scale": 20.0}}, {"loss": {"name": "arcface", "scale": 30.0}}),
    ],
)
def test_unlike_trials_never_meet(make_run, like, tmp_path, first, second):
    made = make_run(tmp_path, "pair", [like(**first), like(**second)])
    groups, left_out = find_groups(load_runs([made.folder]).trials, METRICS["f1_macro"])
    assert groups == []
    assert [len(item.names) for item in left_out] == [2]


def test_networks_that_normalise_images_differently_never_meet(make_run, like, tmp_path):
    made = make_run(tmp_path, "pair", [like(), like()])
    file = trial_folder(made.folder, 1) / MODEL
    model, card = load_model(file)
    model.std.mul_(1.1)
    file.write_bytes(pack_model(model, card))
    assert find_groups(load_runs([made.folder]).trials, METRICS["f1_macro"])[0] == []


@pytest.mark.parametrize(
    "second",
    [
        {"seed": 7},
        {"optimizer": {"lr": 0.5, "name": "sgd"}},
        {"loss": {"name": "focal"}, "augment": {"flip": 0.5}, "mix": {"name": "mixup"}},
        {"model": {"dropout": 0.3, "drop_path": 0.1, "freeze": "backbone"}},
        {"train": {"ema": 0.9, "batch_size": 16}, "epochs": 5},
    ],
)
def test_trials_that_only_trained_differently_are_alike(make_run, like, tmp_path, second):
    made = make_run(tmp_path, "pair", [like(), like(**second)])
    groups, left_out = find_groups(load_runs([made.folder]).trials, METRICS["f1_macro"])
    assert [sorted(names(group)) for group in groups] == [["pair/0", "pair/1"]]
    assert left_out == []


def test_networks_that_began_at_random_are_left_out_in_words(make_run, like, tmp_path):
    made = make_run(tmp_path, "bare", [like(weights="none"), like(weights="none"), like(), like()])
    (group,), (item,) = find_groups(load_runs([made.folder]).trials, METRICS["f1_macro"])
    assert sorted(names(group)) == ["bare/2", "bare/3"]
    assert "random weights" in item.reason
    assert [name.split()[0] for name in item.names] == ["bare/0", "bare/1"]


def test_what_has_no_validation_score_is_left_out_in_words(runs):
    one, other, *_ = runs.trials
    data = one.record.config.data.model_copy(update={"fold": NO_FOLD})
    config = one.record.config.model_copy(update={"data": data})
    whole = replace(one, record=replace(one.record, config=config))
    folds = replace(other, models=other.models * 2)
    groups, left_out = find_groups([whole, folds], METRICS["f1_macro"])
    assert groups == []
    assert ["each fold" in item.reason for item in left_out] == [True, False]
    assert ["refits on all data" in item.reason for item in left_out] == [False, True]


# One soup


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_of_tensors_is_numpys_and_integers_are_the_firsts(tmp_path, seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 6))
    states = [
        {"weight": rng.normal(size=(3, 4)).astype(np.float32), "count": np.array(number), "same": np.ones(2, dtype=np.float32)}
        for number in range(count)
    ]
    files = [tmp_path / f"{number}.safetensors" for number in range(count)]
    for state, file in zip(states, files, strict=True):
        save_file({name: torch.from_numpy(value) for name, value in state.items()}, file)
    means, differing = mean_tensors(files)
    expected = np.mean([state["weight"].astype(np.float64) for state in states], axis=0).astype(np.float32)
    np.testing.assert_allclose(means["weight"].numpy(), expected, rtol=1e-7)
    assert means["weight"].dtype == torch.float32
    assert means["count"].item() == 0
    assert means["same"].tolist() == [1, 1]
    assert differing == {"weight", "count"}


def test_the_soup_of_a_trial_and_its_copies_is_that_trial_bitwise(make_soup, runs):
    for trial in runs.trials[:2]:
        soup = make_soup([trial, trial, trial])
        own = load_file(trial.models[0])
        assert soup.tensors.keys() == own.keys()
        assert all(torch.equal(soup.tensors[name], own[name]) for name in own)
        np.testing.assert_array_equal(soup.answer, trial.valid)
        assert soup.score == trial.score


def test_weights_are_averaged_and_batch_statistics_are_measured_again(make_soup, runs):
    first, second = runs.trials[:2]
    soup = make_soup([first, second])
    means, _ = mean_tensors([first.models[0], second.models[0]])
    counted = {name for name in means if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert counted
    for name, value in soup.tensors.items():
        if name not in counted:
            assert torch.equal(value, means[name]), name
    measured = [name for name in counted if not name.endswith("num_batches_tracked")]
    assert not any(torch.equal(soup.tensors[name], means[name]) for name in measured)


def test_measured_statistics_are_the_means_over_batches_of_what_reaches_the_layers_without_dropout(trained, runs, cache):
    trial = runs.trials[0]
    view, rows = seen_by(trained, trained.split.train[:96], cache)
    model, _ = load_model(trial.models[0])
    model.heads.dropout.p = 0.9
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.BatchNorm2d)}
    seen = {name: [] for name in layers}
    hooks = [
        layer.register_forward_pre_hook(lambda module, given, name=name: seen[name].append(given[0].detach().double()))
        for name, layer in layers.items()
    ]
    momenta = [layer.momentum for layer in layers.values()]
    measure_statistics(model, list(layers.values()), plain_batches(view, rows, 32), CPU, torch.float32)
    for hook in hooks:
        hook.remove()
    assert not any(module.training for module in model.modules())
    assert [layer.momentum for layer in layers.values()] == momenta
    for name, layer in layers.items():
        assert len(seen[name]) == 3
        mean = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in seen[name]]).mean(dim=0)
        var = torch.stack([batch.var(dim=(0, 2, 3)) for batch in seen[name]]).mean(dim=0)
        torch.testing.assert_close(layer.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.running_var.double(), var, rtol=1e-4, atol=1e-5)


def test_layers_whose_statistics_were_frozen_keep_them(make_soup, runs, trained, cache, tmp_path):
    first, second = runs.trials[:2]
    frozen = "backbone.bn1"
    changed = load_file(second.models[0])
    changed |= {name: value for name, value in load_file(first.models[0]).items() if name.startswith(f"{frozen}.running")}
    model, card = load_model(second.models[0])
    model.load_state_dict(changed)
    file = tmp_path / MODEL
    file.write_bytes(pack_model(model, card))
    (view, taught), (_, validated) = (seen_by(trained, part, cache) for part in (trained.split.train, trained.split.valid))
    half = replace(second, models=(file,))
    with soup_maker((first, half), view, taught, validated, runs.valid, runs.metric, CPU) as make_frozen_soup:
        soup = make_frozen_soup([first, half])
    for name in ("running_mean", "running_var"):
        assert torch.equal(soup.tensors[f"{frozen}.{name}"], changed[f"{frozen}.{name}"])
    assert not torch.equal(make_soup([first, second]).tensors[f"{frozen}.running_mean"], changed[f"{frozen}.running_mean"])


# Recipes


def soup_of(ingredients, score):
    return Soup(tuple(ingredients), {}, [], np.zeros((0, 2)), score)


@pytest.mark.parametrize("seed", nightly_after(4, range(30)))
def test_greedy_adds_each_trial_with_which_the_score_does_not_fall(seed):
    rng = np.random.default_rng(seed)
    scores = {}

    def make_soup(ingredients):
        # Few different scores, so that ties come up.
        return soup_of(ingredients, scores.setdefault(tuple(ingredients), int(rng.integers(5))))

    ranked = tuple(range(int(rng.integers(2, 8))))
    single = make_soup(ranked[:1])
    soup = RECIPES["greedy"](ranked, single, make_soup, 2, METRICS["f1_macro"])
    kept, score = [0], scores[0,]
    for trial in ranked[1:]:
        if scores[*kept, trial] >= score:
            kept, score = [*kept, trial], scores[*kept, trial]
    assert (soup.ingredients, soup.score) == (tuple(kept), score)
    assert soup.score >= single.score


@pytest.mark.parametrize("top, taken", [(2, 2), (3, 3), (9, 4)])
def test_uniform_takes_the_best_few(top, taken):
    ranked = ("best", "good", "poor", "worst")
    soup = RECIPES["uniform"](ranked, soup_of(ranked[:1], 0.5), lambda ingredients: soup_of(ingredients, 0.5), top, METRICS["f1_macro"])
    assert soup.ingredients == ranked[:taken]


@pytest.mark.parametrize(
    "found, kept",
    [
        ({"greedy": (2, 0.6), "uniform": (4, 0.5)}, "greedy"),
        ({"greedy": (2, 0.6), "uniform": (4, 0.7)}, "uniform"),
        ({"greedy": (2, 0.5), "uniform": (4, 0.4)}, "greedy"),
        ({"greedy": (1, 0.5), "uniform": (4, 0.4)}, ""),
        ({"greedy": (1, 0.5), "uniform": (4, 0.5)}, "uniform"),
        ({"greedy": (1, 0.5), "uniform": (4, 0.6)}, "uniform"),
    ],
)
def test_a_soup_of_several_trials_is_kept_where_it_is_not_below_the_best_one(found, kept):
    soups = {name: soup_of(range(count), score) for name, (count, score) in found.items()}
    assert Outcome(METRICS["f1_macro"], (), soup_of([0], 0.5), soups, {}, 0.0).kept == kept


def test_the_gain_is_paired_over_groups_and_nothing_over_oneself(make_soup, runs):
    group = find_groups(runs.trials, runs.metric)[0][0]
    outcome = make_soups(group, make_soup, runs.valid, runs.metric, top=3, seed=0)
    assert outcome.single.score == group[0].score
    for name, soup in outcome.soups.items():
        low, high = outcome.gains[name].interval
        assert outcome.gains[name].gain == pytest.approx(soup.score - group[0].score)
        assert low <= high
    copies = make_soups((group[0], group[0]), make_soup, runs.valid, runs.metric, top=2, seed=0)
    assert copies.gains == {name: Gain(0.0, (0.0, 0.0)) for name in RECIPES}


# The command


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def twins(make_run, like, here):
    """A run whose similar trials are copies, so that their soup is as good as the best of them."""
    return make_run(here / "runs", "faces", [like(seed=0), like(seed=0), like(task="heads", seed=0), like(task="heads", seed=0)])


def call(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def test_the_command_makes_a_run_of_soups_that_is_read_with_the_search(twins, here, cache):
    result = call()
    assert result.exit_code == 0, result.output
    runs = load_runs([twins.folder, here / "runs" / "faces-soup"])
    assert runs.left_out == ()
    assert names(runs.trials) == [*(f"faces/{number}" for number in range(4)), "faces-soup/0", "faces-soup/1"]
    view, validated = seen_by(twins, twins.split.valid, cache)
    for trial, best in zip(runs.trials[4:], (runs.trials[0], runs.trials[2]), strict=True):
        model, card = load_model(trial.models[0])
        heads = predict(model, plain_batches(view, validated, 64), CPU, torch.float32)
        for found, written in zip(heads, read_predictions(trial.record.folder).heads, strict=True):
            np.testing.assert_array_equal(found, written)
        assert card.config == trial.record.config == best.record.config
        assert trial.score == trial.record.best["score"] == best.score
        assert trial.record.result.state == "finished"
        assert trial.record.result.notes[0] == (f"the mean of the weights of {best.name}, faces/{best.record.number + 1}")
    assert (here / "runs/faces-soup" / SPLIT).read_bytes() == (twins.folder / SPLIT).read_bytes()
    card, searched = read_run(here / "runs/faces-soup"), read_run(twins.folder)
    assert (card.name, card.trials, card.refit_of, card.origins) == ("faces-soup", 2, "", ())
    assert (card.split, card.scheme, card.data) == (searched.split, searched.scheme, searched.data)


def test_the_command_prints_scores_gains_what_to_believe_and_what_comes_next(twins, here):
    output = call("--run", "faces").output
    runs = load_runs([twins.folder])
    for trial in runs.trials:
        assert f"{trial.name}" in output and f"{trial.score:.3f}" in output
    assert output.count("+0.000 (+0.000 to +0.000)") == 4
    assert output.count("The greedy soup is kept") == 2
    assert "optimistic" in output
    assert "python -m analysis.ensemble --run faces --run faces-soup" in output


def test_the_trials_of_a_search_are_averaged_though_its_finalists_answer_for_every_fold(twins, make_run, like, here):
    make_run(twins.folder, FINALISTS, [like(seed=0), like(seed=1)], refit_of=IN)
    assert load_runs([twins.folder]).part == EVERY_FOLD
    result = call("--run", "faces")
    assert result.exit_code == 0, result.output
    assert read_record(trial_folder(here / "runs/faces-soup", 0)).result.notes[0] == "the mean of the weights of faces/0, faces/1"
    assert result.output.rstrip().count("analysis.ensemble --run faces-soup") == 1 and "--run faces --run" not in result.output
    assert names(load_runs([here / "runs/faces-soup"]).trials) == ["faces-soup/0", "faces-soup/1"]


def test_a_second_call_leaves_the_first_ones_soups_alone(twins, here):
    call("--run", "faces")
    before = (here / "runs/faces-soup/run.json").read_bytes()
    assert call("--run", "faces").exit_code == 0
    assert (here / "runs/faces-soup/run.json").read_bytes() == before
    assert (here / "runs/faces-soup-2/run.json").is_file()


def test_without_two_similar_trials_the_command_says_why_of_each(make_run, like, here):
    trials = [like(weights="none"), like(weights="none"), like(), like(backbone="test_resnet")]
    make_run(here / "runs", "faces", trials)
    result = call("--run", "faces")
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    said = result.stderr
    assert not missing(
        said, "faces: ", "2 trials ", "model/weights is none", "faces/3 (test_resnet, joint, 32x32, from test_resnet.safetensors)"
    )
    assert "pretrained weights" in said
    assert not (here / "runs/faces-soup").exists()


def test_images_that_changed_since_the_search_are_refused(make_run, like, here, people, tmp_path):
    data = shutil.copytree(people, tmp_path / "people")
    made = make_run(here / "runs", "faces", [like(), like()], data=data)
    gone = made.images.ids[0]
    (data / "train" / "images" / gone).write_bytes(b"no image")
    result = call("--run", "faces")
    assert result.exit_code == 2
    assert gone in result.stderr
    assert "Traceback" not in result.stderr


def test_images_without_a_face_are_counted_and_named(twins, here, monkeypatch):
    without_face = twins.images.ids[:2]
    monkeypatch.setattr(command, "decode", lambda *given: replace(decode(*given), without_face=without_face))
    result = call()
    assert result.exit_code == 0, result.output
    assert f"2 of {len(twins.images.ids)} images" in result.output
    assert ", ".join(without_face) in result.output


def test_the_soup_of_a_run_in_an_object_store_is_written_beside_it(twins, here, monkeypatch):
    with s3_server() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        stored = open_folder(f"s3://{BUCKET}/runs/faces")
        for file in twins.folder.rglob("*"):
            if file.is_file():
                write_atomically(open_folder(f"{stored}/{file.relative_to(twins.folder)}"), file.read_bytes())
        result = call("--run", stored)
        assert result.exit_code == 0, result.output
        assert f"python -m analysis.ensemble --run {stored} --run {stored}-soup" in result.output
        runs = load_runs([stored, open_folder(f"{stored}-soup")])
        assert names(runs.trials)[4:] == ["faces-soup/0", "faces-soup/1"]
        np.testing.assert_array_equal(runs.trials[4].valid, runs.trials[0].valid)
    assert not (here / "runs/faces-soup").exists()
