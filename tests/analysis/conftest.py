"""A tiny data set, and runs on it whose trials hold first weights instead of trained ones."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.checkpoint import Card, pack_model
from trainables.config import DataConfig, TrialConfig, ViewConfig
from trainables.data.batches import plain_batches
from trainables.data.labels import read_task
from trainables.data.photos import Photos, read_photos
from trainables.data.splits import Split, split_people, split_table
from trainables.data.synthetic import write_people
from trainables.data.views import View, build_views, open_view
from trainables.loop import choose_precision, predict
from trainables.metrics import confusion, macro_f1
from trainables.models.assemble import IMAGENET, build_model
from trainables.record import (
    MODEL,
    SPLIT,
    Predictions,
    Result,
    RunCard,
    start_record,
    trial_folder,
    write_predictions,
    write_reports,
    write_result,
    write_run,
)
from trainables.storage import write_whole

SIDES = {"holdout": 0.3, "folds": 2}


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """A data set of 60 people, 3 of them for the eval folder."""
    return write_people(tmp_path_factory.mktemp("data") / "people", people=57, eval_people=3, seed=0, size=(36, 48), quirks=False)


@dataclass(frozen=True)
class Made:
    """A run on disk, and what it was made of."""

    folder: Path
    photos: Photos
    split: Split


@pytest.fixture(scope="session")
def make_run(people, cache):
    """Make a run below `runs`, one finished trial for each of the given values."""

    def make(runs: Path, name: str, trials: list[dict], *, data: Path = people, seed: int = 0, cuts: tuple[int, ...] = (30, 60)) -> Made:
        settings = DataConfig(cuts=cuts, **SIDES)
        photos = read_photos(data, settings)
        split = split_people(photos, settings, seed)
        attributes = tuple(attribute.plain() for attribute in photos.scheme.attributes)
        write_run(runs / name, RunCard(name, "test.yaml", str(data), cuts, seed, split.hash, attributes, 1, len(trials), "test"))
        digests = build_views(photos, [View.of(ViewConfig(size=32))], cache).digests
        write_whole(runs / name / SPLIT, split_table(photos, split, digests))
        for number, values in enumerate(trials):
            config = TrialConfig.from_values(
                {
                    "epochs": 1,
                    "seed": number,
                    "optimizer": {"lr": 0.001},
                    "model": {"backbone": "test_efficientnet", "weights": "none"},
                    "view": {"size": 32},
                    **values,
                    "data": settings.model_dump(),
                }
            )
            write_trial(trial_folder(runs / name, number), config, photos, split, cache)
        return Made(runs / name, photos, split)

    return make


def write_trial(folder: Path, config: TrialConfig, photos: Photos, split: Split, cache: Path) -> None:
    task, view, device = read_task(config.task, photos.scheme), View.of(config.view), torch.device("cpu")
    model = build_model(config, task, IMAGENET)
    array = open_view(build_views(photos, [view], cache).files[view])
    batches = plain_batches(array, photos.rows[split.valid], max(64, config.train.batch_size), edges=config.model.sees_edges)
    heads = predict(model, batches, device, choose_precision("auto", device))
    truth = task.scheme.joint(photos.labels[split.valid][:, photos.scheme.columns(task.scheme.names)])
    score = float(macro_f1(confusion(truth, task.joint_probabilities(heads).argmax(axis=1), task.scheme.classes)))
    start_record(folder, config)
    write_whole(folder / MODEL, pack_model(model, Card(config, photos.scheme, epoch=1)))
    write_predictions(folder, Predictions(tuple(np.array(photos.ids)[split.valid]), heads, epoch=1))
    write_reports(folder, [{"epoch": 1, "macro_f1": score}])
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
