"""A tiny data set, and runs on it whose trials hold first weights instead of trained ones."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainables.card import Card
from trainables.checkpoint import pack_model
from trainables.config import TrialConfig
from trainables.data.batches import plain_batches
from trainables.data.images import Images
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig
from trainables.data.splits import Split, split_groups, split_table
from trainables.data.targets import read_task
from trainables.data.views import View, ViewConfig, build_views, open_view
from trainables.loop import choose_precision, predict
from trainables.metrics import metric_of
from trainables.models.assemble import IMAGENET, build_model
from trainables.record import (
    MODEL,
    SPLIT,
    Origin,
    Predictions,
    Result,
    RunCard,
    read_predictions,
    start_record,
    trial_folder,
    write_predictions,
    write_reports,
    write_result,
    write_run,
)
from trainables.storage import write_atomically
from tuner.demo.writing import write_people

SIDES = {"holdout": 0.3, "folds": 2}


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """A data set of 60 groups, 3 of them for the eval folder."""
    return write_people(tmp_path_factory.mktemp("data") / "people", people=57, eval_people=3, seed=0, size=(36, 48), quirks=False)


@dataclass(frozen=True)
class Made:
    """A run on disk, and what it was made of."""

    folder: Path
    images: Images
    split: Split


@pytest.fixture(scope="session")
def make_run(people, cache):
    """Make a run below `runs`, one finished trial for each of the given values; as the refit of a run, one for each of its folds."""

    def make(
        runs: Path,
        name: str,
        trials: list[dict],
        *,
        data: Path = people,
        seed: int = 0,
        cuts: tuple[int, ...] = (30, 60),
        refit_of: str = "",
        metric: str = "f1_macro",
        **asked: Any,
    ) -> Made:
        """
        Args:
            asked: further settings of the section data.
        """
        settings = DataConfig(cuts=cuts, **SIDES, **asked)
        folds = range(settings.folds) if refit_of else [settings.fold]
        wanted = [(trial, values, fold) for trial, values in enumerate(trials) for fold in folds]
        origins = tuple(Origin(trial, epoch=1, score=0.5) for trial, _, _ in wanted) if refit_of else ()
        images = read_images(data, settings)
        split = split_groups(images, settings, seed)
        attributes = tuple(attribute.plain() for attribute in images.scheme.targets)
        card = RunCard(name, "test.yaml", str(data), cuts, seed, split.hash, attributes, 1, len(wanted), "test", metric=metric)
        write_run(runs / name, replace(card, refit_of=refit_of, origins=origins))
        digests = build_views(images, [View.of(ViewConfig(size=32))], cache).digests
        write_atomically(runs / name / SPLIT, split_table(images, split, digests))
        for number, (trial, values, fold) in enumerate(wanted):
            config = TrialConfig.from_values(
                {
                    "epochs": 1,
                    "seed": trial,
                    "optimizer": {"lr": 0.001},
                    "model": {"backbone": "test_efficientnet", "weights": "none"},
                    "view": {"size": 32},
                    "metric": metric,
                    **values,
                    "data": settings.model_dump() | {"fold": fold},
                }
            )
            write_trial(trial_folder(runs / name, number), config, images, replace(split, fold=fold), cache)
        return Made(runs / name, images, split)

    return make


def write_trial(folder: Path, config: TrialConfig, images: Images, split: Split, cache: Path) -> None:
    task, view, device = read_task(config.task, images.scheme), View.of(config.view), torch.device("cpu")
    model = build_model(config, task, IMAGENET, (40.0, 15.0))
    seen = open_view(build_views(images, [view], cache).files[view])
    batches = plain_batches(
        seen.images, seen.rows(images.take(split.valid).ids), max(64, config.train.batch_size), edges=config.model.sees_edges
    )
    heads = predict(model, batches, device, choose_precision("auto", device))
    metric = metric_of(config.metric, task.scheme)
    truth = images.truth(task.scheme.of_kind(metric.target))[split.valid]
    score = metric.score(truth, task.answer(heads, metric.target))
    start_record(folder, config)
    write_atomically(folder / MODEL, pack_model(model, Card(config, images.scheme, epoch=1)))
    write_predictions(folder, Predictions(tuple(np.array(images.ids)[split.valid]), heads, epoch=1))
    write_reports(folder, [{"epoch": 1, "score": score}])
    write_result(folder, Result("finished", "trained all 1 epochs", 1, split.hash, "CPU", "test"))


@pytest.fixture(scope="session")
def faces(make_run, tmp_path_factory):
    """A run of four trials that differ in task, view, backbone and channels. Read it, do not change it."""
    trials = [
        {"task": "joint"},
        {"task": "heads", "view": {"size": [40, 32]}},
        {"task": [["mask", "gender"], ["age"]], "model": {"backbone": "test_resnet", "weights": "none"}},
        {
            "view": {"size": 32, "crop": "center"},
            "model": {"backbone": "test_efficientnet", "weights": "none", "edges": "mix"},
            "loss": {"name": "focal"},
        },
    ]
    return make_run(tmp_path_factory.mktemp("runs"), "faces", trials)


@dataclass(frozen=True)
class Planted:
    """A run whose models are sure of everybody, and the labels that they hold for wrong."""

    made: Made
    groups: dict[str, str]  # name -> the gender that the models see on all images
    swapped: tuple[str, str]  # ids of two images of one group, of which the models see what the other was given


@pytest.fixture(scope="session")
def planted(make_run, tmp_path_factory):
    """An out-of-fold run with three groups of the wrong gender and one swapped pair. Read it, do not change it."""
    made = make_run(tmp_path_factory.mktemp("planted"), "planted", [{"task": "heads"}], refit_of="searched")
    images, rng = made.images, np.random.default_rng(0)
    seen = images.labels.copy()
    evaluated = np.unique(images.groups[made.split.part >= 0])
    *wrong, swapper = rng.choice(evaluated, size=4, replace=False).tolist()
    genders = images.scheme.targets[1].values
    for group in wrong:
        seen[images.groups == group, 1] = 1 - seen[images.groups == group, 1]
    pair = [np.flatnonzero((images.groups == swapper) & (images.labels[:, 0] == value))[0] for value in (1, 2)]
    seen[pair, 0] = [2, 1]
    for number in range(2):
        folder, ids = trial_folder(made.folder, number), np.array(images.ids)
        rows = [images.ids.index(name) for name in read_predictions(folder).ids]
        heads = [sure_of(seen[rows, column], size, rng) for column, size in enumerate(images.scheme.sizes)]
        write_predictions(folder, Predictions(tuple(ids[rows]), heads, epoch=1))
    groups = {images.names[np.flatnonzero(images.groups == group)[0]]: genders[seen[images.groups == group, 1][0]] for group in wrong}
    return Planted(made, groups, (images.ids[pair[0]], images.ids[pair[1]]))


def sure_of(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Probabilities (n, count) that lean to these values (n,), by 90 to 99 %."""
    rest = rng.uniform(0.01, 0.1, size=len(values))
    probabilities = np.repeat(rest[:, None] / (count - 1), count, axis=1)
    probabilities[np.arange(len(values)), values] = 1 - rest
    return probabilities


@pytest.fixture
def here(faces, tmp_path, monkeypatch):
    """A folder with a copy of the run in runs/."""
    shutil.copytree(faces.folder, tmp_path / "runs" / "faces")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path
