import json
import shutil

import pytest
import typer
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from trainables import pretraining
from trainables.data.layouts.reading import read_images, read_unlabelled
from trainables.data.settings import DataConfig
from trainables.data.splits import split_table
from trainables.data.training import Data
from trainables.data.view_store import view_cache
from trainables.data.views import View, ViewConfig, build_views
from trainables.models.backbone import build_backbone
from trainables.models.settings import ModelConfig
from trainables.record import RunCard, write_run
from tuner.prepare import divide
from tuner.pretrain import main

app = typer.Typer()
app.command()(main)


def pretrain(*words):
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, list(map(str, words)))


def test_the_command_writes_weights_that_a_search_begins_with(demo, tmp_path):
    out = tmp_path / "deep" / "vit.safetensors"
    done = pretrain("--backbone", "test_vit", "--data", demo, "--size", 32, "--set", "data/folds=2", "--epochs", 2, "--out", out)
    assert done.exit_code == 0, done.output
    assert "epoch 2 of 2: " in done.stdout and f"--set model/weights={out}" in done.stdout
    state = load_file(out)
    backbone, _ = build_backbone(ModelConfig(backbone="test_vit", weights=str(out)), (32, 32))
    assert all((value == state[key]).all() for key, value in backbone.state_dict().items())


def test_images_are_cut_as_the_search_will_cut_them(demo, tmp_path):
    out, cut = tmp_path / "vit.safetensors", ("--set", "view/crop=center", "--set", "view/fraction=0.6")
    done = pretrain("--backbone", "test_vit", "--data", demo, "--size", 32, *cut, "--set", "data/folds=2", "--epochs", 1, "--out", out)
    assert done.exit_code == 0, done.output
    with safe_open(out, "pt") as file:
        written = " ".join(file.metadata().values())
    assert "center" in written and "0.6" in written


@pytest.fixture
def learned(monkeypatch) -> list[tuple[set[str], tuple]]:
    """Ids of the images, and the channel statistics, of every pre-training."""
    seen, ids = [], []
    prepare, train = pretraining.batches_to_paint, pretraining.pretrain

    def batches(settings, views, rows, images, threads=0):
        ids.append(set(images.ids.tolist()))
        return prepare(settings, views, rows, images, threads)

    def trained(painter, settings, batches, device, statistics):
        seen.append((ids[-1], statistics))
        return train(painter, settings, batches, device, statistics)

    monkeypatch.setattr(pretraining, "batches_to_paint", batches)
    monkeypatch.setattr(pretraining, "pretrain", trained)
    return seen


def split_with(demo, seed=0, **settings):
    """The images of the demo and their split, as a search with these settings of `data` makes it; and the digests."""
    data_settings = DataConfig(**settings)
    found = read_images(demo, data_settings)
    files = build_views(found, [VIEW], view_cache())
    return *divide(found.without(files.bad), files.digests, data_settings, seed, None), files.digests


VIEW = View.of(ViewConfig(size=32))
TINY = ("--backbone", "test_vit", "--epochs", 1)


@pytest.mark.parametrize(
    "seed, settings",
    [
        (0, {}),
        (0, {"cuts": [25, 40]}),
        (1, {"cuts": [25, 40]}),
        (3, {"holdout": 0.3}),
        (0, {"folds": 2, "fold": 1}),
        (0, {"holdout": 0.2, "folds": 2}),
    ],
)
def test_all_groups_but_those_that_a_search_with_these_settings_holds_out_are_learned_from(demo, tmp_path, learned, seed, settings):
    settings = {"folds": 2} | settings
    images, split, _ = split_with(demo, seed, **settings)
    changes = [word for name, value in settings.items() for word in ("--set", f"data/{name}={value}")]
    done = pretrain(*TINY, "--data", demo, "--size", 32, "--seed", seed, *changes, "--out", tmp_path / "a.safetensors")
    assert done.exit_code == 0, done.output
    ((ids, _),) = learned
    assert ids & set(images.ids) == {images.ids[row] for row in (*split.train, *split.valid)}
    to_predict = read_unlabelled(demo, DataConfig())
    assert ids - set(images.ids) == set(to_predict.ids), "images to predict take part"


@pytest.fixture
def run(demo, tmp_path):
    """A run with cuts, a hold-out, a view and a normalisation of its own."""
    settings = {"cuts": [25, 40], "holdout": 0.3, "folds": 2}
    images, split, digests = split_with(demo, 7, **settings)
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "split.csv").write_bytes(split_table(images, split, digests))
    (folder / "space.yaml").write_text(
        "data: {cuts: [25, 40], holdout: 0.3, folds: 2}\nview: {size: 32}\nnormalize: dataset\n"
        "model: {backbone: test_resnet, weights: none}\noptimizer: {lr: 0.001}\n"
    )
    names = tuple(attribute.plain() for attribute in images.scheme.targets)
    write_run(folder, RunCard("mine", "mine", str(demo), (25, 40), 7, split.hash, names, 1, 1, "python -m tuner.run"))
    return folder, images, split


def test_a_runs_split_view_and_normalisation_are_taken_and_written_into_the_weights(run, tmp_path, learned):
    folder, images, split = run
    out = tmp_path / "a.safetensors"
    done = pretrain(*TINY, "--run", folder, "--out", out)
    assert done.exit_code == 0, done.output
    ((ids, statistics),) = learned
    assert ids & set(images.ids) == {images.ids[row] for row in (*split.train, *split.valid)}
    data = Data.of(images, split, build_views(images, [VIEW], view_cache()), with_statistics=True)
    assert statistics == data.statistics[VIEW]
    with safe_open(out, framework="pt") as file:
        card = json.loads(file.metadata()["pretraining"])
    assert (card["run"], card["split"], card["seed"]) == ("mine", split.hash, 7)
    assert (card["view"]["height"], card["data"]["cuts"]) == (32, [25, 40])
    assert card["normalize"] == [list(part) for part in statistics]


def test_a_setting_that_the_run_searches_is_asked_for(run, tmp_path, learned):
    folder = run[0]
    file = folder / "space.yaml"
    file.write_text(file.read_text().replace("view: {size: 32}", "view: {size: {choice: [32, 48]}}"))
    done = pretrain(*TINY, "--run", folder, "--out", tmp_path / "a.safetensors")
    assert done.exit_code == 2 and "view/size" in done.stderr and "--set" in done.stderr
    assert pretrain(*TINY, "--run", folder, "--set", "view/size=32", "--out", tmp_path / "a.safetensors").exit_code == 0


@pytest.mark.parametrize("change, named", [("data/cuts=[30]", "data/cuts"), ("data/holdout=0.1", "data/holdout")])
def test_who_is_held_out_cannot_be_changed_beside_a_run(run, change, named):
    done = pretrain(*TINY, "--run", run[0], "--set", change)
    assert done.exit_code == 2 and named in done.stderr


def test_an_image_to_predict_that_copies_a_held_out_one_is_not_learned_from(demo, tmp_path, learned):
    data = shutil.copytree(demo, tmp_path / "data")
    images, split, _ = split_with(data, folds=2)
    copied = read_unlabelled(data, DataConfig())
    first = copied.root / copied.ids[0]
    first.write_bytes((images.root / images.ids[split.holdout[0]]).read_bytes())
    done = pretrain(*TINY, "--data", data, "--size", 32, "--set", "data/folds=2", "--out", tmp_path / "a.safetensors")
    assert done.exit_code == 0, done.output
    ((ids, _),) = learned
    assert copied.ids[0] not in ids and copied.ids[1] in ids


@pytest.mark.parametrize(
    "words, message",
    [
        (["--backbone", "resnet_18"], "'resnet_18'; did you mean resnet18"),
        (["--backbone", "test_vit", "--data", "nowhere"], "nowhere"),
        (["--backbone", "test_vit", "--lr", "0"], "--lr is 0.0"),
        (["--backbone", "test_vit", "--out", "weights.pt"], ".safetensors"),
        (["--backbone", "test_vit", "--weights", "gone.safetensors", "--size", "32"], "gone.safetensors"),
        (["--backbone", "test_vit", "--set", "loss/name=focal"], "loss/name=focal"),
        (["--backbone", "test_vit", "--set", "data/holdut=0.1"], "data/holdut"),
        (["--backbone", "test_vit", "--run", "nowhere"], "nowhere"),
        (["--backbone", "test_vit", "--size", "40"], "40x40 pixels"),
    ],
)
def test_what_cannot_be_done_is_reported_in_words_with_exit_code_2(words, message):
    done = pretrain(*words)
    assert done.exit_code == 2 and message in done.stderr.replace("\n", " ") and "Traceback" not in done.output
