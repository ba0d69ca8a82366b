"""A small demo data set and the settings of a tiny trial, shared by all tests; nothing outside pytest's own folders is touched."""

import os
from collections.abc import Callable
from pathlib import Path

# Before any test imports torch or the hub's client: no network, and the CPU unless somebody asks for a GPU by number.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest

from trainables.config import DataConfig, TrialConfig, ViewConfig
from trainables.data.photos import Photos, read_photos
from trainables.data.splits import Split, split_people
from trainables.data.synthetic import write_people
from trainables.data.views import View, build_views, channel_statistics, open_view
from trainables.parts import Data

# Sixty people hold four of the rarest kind: enough for two folds and a hold-out.
SIDES = {"holdout": 0.2, "folds": 2}
TINY = {
    "task": "joint",
    "epochs": 2,
    "data": SIDES,
    "view": {"size": 32},
    "model": {"backbone": "test_efficientnet", "weights": "none"},
    "optimizer": {"name": "adamw", "lr": 3e-3},
    "train": {"batch_size": 32},
}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory) -> Path:
    """The folder of decoded views, for subprocesses too."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEPVOTE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """Sixty drawn people with every quirk of the contest's files, and four nameless ones to predict. Read it, do not change it."""
    return write_people(tmp_path_factory.mktemp("data") / "demo", people=60, eval_people=4, seed=0, size=(72, 96))


@pytest.fixture(scope="session")
def photos(demo, cache) -> Photos:
    """The demo's photos that can be decoded."""
    found = read_photos(demo, (30, 60))
    return found.without(build_views(found, [View.of(ViewConfig(size=32))], cache).bad)


@pytest.fixture(scope="session")
def split(photos) -> Split:
    return split_people(photos, DataConfig(**SIDES), seed=0)


@pytest.fixture(scope="session")
def data(demo, photos, split, cache) -> Data:
    """The demo as trials of 32 pixels need it."""
    view = View.of(ViewConfig(size=32))
    files = build_views(read_photos(demo, (30, 60)), [view], cache).files
    return Data(photos, split, files, {view: channel_statistics(open_view(files[view]), photos.rows[split.train])})


@pytest.fixture(scope="session")
def make_config() -> Callable[..., TrialConfig]:
    """The settings of a tiny trial, with sections changed: `make_config(epochs=3, loss={"name": "focal"})`."""

    def make(**changes) -> TrialConfig:
        merged = {name: TINY.get(name, {}) | value if isinstance(value, dict) else value for name, value in changes.items()}
        return TrialConfig.from_values(TINY | merged)

    return make
