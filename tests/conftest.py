"""A small demo data set and the settings of a tiny trial, shared by all tests; nothing outside pytest's own folders is touched."""

import atexit
import functools
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

# Before any test imports torch or the hub's client: no network, and the CPU unless a GPU is asked for by number.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Two processes with two threads of linear algebra each would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Commands that are printed begin with `python`, however the tests were started.
os.environ.pop("UV", None)
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

import pytest
from xdist.scheduler import LoadScopeScheduling

from trainables import extensions
from trainables.config import TrialConfig
from trainables.data.images import Images
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig
from trainables.data.splits import Split, split_groups
from trainables.data.training import Data
from trainables.data.views import View, ViewConfig, build_views
from trainables.record import write_json
from trainables.registry import Registry
from tuner import cluster
from tuner.cli import Join, Start
from tuner.cluster import Cluster
from tuner.demo.writing import write_people

ROOT = Path(__file__).parent.parent
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


SESSION = pytest.StashKey[pytest.Session]()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[SESSION] = session


@functools.cache
def found_in(file: str, words: str) -> bool:
    """Whether a file of tests holds this regular expression as a word."""
    return re.search(rf"\b({words})\b", (ROOT / file).read_text()) is not None


def starts_processes(file: str) -> bool:
    """Whether a file of tests starts Ray or whole commands."""
    return found_in(file, r"ray_cluster|cluster\.start|cluster\.Starting|start_command|tests\.faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts Ray or whole commands comes first, as it takes longest; before all, what needs that no other Ray runs in this process."""

    def place(item: pytest.Item) -> tuple[bool, bool]:
        file = item.nodeid.partition("::")[0]
        return not starts_processes(file), found_in(file, "ray_cluster")

    items.sort(key=place)


class OneCluster(LoadScopeScheduling):
    """Which tests share a process of pytest-xdist's.

    All that start Ray or whole commands do, so that no two clusters want the same cores. So do those of any other file, whose fixtures
    are then made once.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "processes" if starts_processes(file) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneCluster:
    return OneCluster(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """One thread, whatever a trial within an earlier test has asked for: the bits of a test do not depend on those before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End with what the tests said.

    Ray, Arrow and others leave threads behind (Ray's gatherer of statistics wakes up every few seconds) that run on while exit() takes
    down what they use; one run in many died of that after its summary. How our own commands end is tested in processes of their own.
    """
    if session := config.stash.get(SESSION, None):
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(session.exitstatus)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory) -> Path:
    """The folder of decoded views, for subprocesses too."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEPVOTE_CACHE", str(folder))
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        yield folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """Sixty drawn people with every quirk of the contest's files, and four nameless ones to predict. Read it, do not change it."""
    return write_people(tmp_path_factory.mktemp("data") / "demo", people=60, eval_people=4, seed=0, size=(72, 96))


@pytest.fixture(scope="session")
def images(demo, cache) -> Images:
    """The demo's images that can be decoded."""
    found = read_images(demo, DataConfig())
    return found.without(build_views(found, [View.of(ViewConfig(size=32))], cache).bad)


@pytest.fixture(scope="session")
def split(images) -> Split:
    return split_groups(images, DataConfig(**SIDES), seed=0)


@pytest.fixture(scope="session")
def data(demo, images, split, cache) -> Data:
    """The demo as trials of 32 pixels need it."""
    view = View.of(ViewConfig(size=32))
    return Data.of(images, split, build_views(read_images(demo, DataConfig()), [view], cache), with_statistics=True)


@pytest.fixture(scope="session")
def make_config() -> Callable[..., TrialConfig]:
    """The settings of a tiny trial, with sections changed: `make_config(epochs=3, loss={"name": "focal"})`."""

    def make(**changes) -> TrialConfig:
        merged = {name: TINY.get(name, {}) | value if isinstance(value, dict) else value for name, value in changes.items()}
        return TrialConfig.from_values(TINY | merged)

    return make


@pytest.fixture
def forget_extensions() -> Iterator[Callable[[], None]]:
    """Undo what extensions have added to this process since the test began, as if it were a new one; at the end in any case."""
    known = {name for registry in Registry.every for name in registry}

    def forget() -> None:
        for registry in Registry.every:
            for name in [name for name in registry if registry.origins.get(name)]:
                del registry[name], registry.origins[name]
        for module in [name for name in sys.modules if name.startswith(extensions.PREFIX)]:
            del sys.modules[module]
            if timm := sys.modules.get("timm.models._registry"):
                for name in timm._module_to_models.pop(module, ()):
                    del timm._model_entrypoints[name]
        extensions._loaded.clear()

    yield forget
    forget()
    assert {name for registry in Registry.every for name in registry} >= known


# Whole commands

TINY_SPACE = """
run:       {trials: 4, epochs: 4, grace: 2, reduction: 2, keep: 2, finalists: 0}
data:      {holdout: 0.2, folds: 2}
view:      {size: 32}
model:     {backbone: test_efficientnet, weights: none}
loss:
  name:    {choice: [cross_entropy, focal]}
  gamma:   {float: [0.5, 3.0], when: {loss/name: focal}}
optimizer: {lr: {float: [1.0e-6, 1.0e-2], log: true}}
train:     {batch_size: 16}
start:
  - {loss: {name: cross_entropy}, optimizer: {lr: 1.0e-2}}
  - {loss: {name: focal, gamma: 1.0}, optimizer: {lr: 1.0e-2}}
  - {loss: {name: cross_entropy}, optimizer: {lr: 1.0e-6}}
  - {loss: {name: focal, gamma: 1.0}, optimizer: {lr: 1.0e-6}}
"""


@pytest.fixture(scope="session")
def tiny_space(tmp_path_factory) -> Path:
    """A space whose first two trials learn and whose next two cannot."""
    file = tmp_path_factory.mktemp("spaces") / "tiny.yaml"
    file.write_text(TINY_SPACE)
    return file


PROBED_SPACE = """
run:       {{trials: 2, epochs: 2, grace: 1, finalists: 0}}
data:      {{holdout: 0.2, folds: 2}}
view:      {{crop: {{choice: [none, center]}}, size: 32}}
model:
  backbone: {{choice: [test_efficientnet, test_resnet]}}
  weights:  "{weights}"
  heads:    {{choice: [random, probe]}}
optimizer: {{lr: {{float: [1.0e-3, 1.0e-2], log: true}}}}
train:     {{batch_size: 16}}
"""


@pytest.fixture(scope="session")
def probed_space(tmp_path_factory) -> Path:
    """A space of two small networks, whose files of weights lie beside it: four probes."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("space")
    for seed, name in enumerate(("test_efficientnet", "test_resnet")):
        torch.manual_seed(seed)
        save_file(timm.create_model(name, num_classes=0).state_dict(), folder / f"{name}.safetensors")
    file = folder / "probed.yaml"
    file.write_text(PROBED_SPACE.format(weights=folder / "{backbone}.safetensors"))
    return file


@pytest.fixture(scope="session")
def start_command(cache) -> Callable[..., Popen]:
    """Start `python -m <words>` in a folder, as a terminal would: with a process group of its own."""

    def start(folder: Path, *words: str | Path, **environment: str) -> Popen:
        settings = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        command = [sys.executable, "-m", *map(str, words)]
        return Popen(command, cwd=folder, env=settings, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True)

    return start


def nightly_after(count: int, values: Iterable[Any]) -> list[Any]:
    """Values of a parametrized test: the first `count` are tried on every push, the others with `-m nightly` too.

    A tuple is the values of several parameters.
    """
    params = [pytest.param(*(value if isinstance(value, tuple) else (value,))) for value in values]
    return [param if place < count else param._replace(marks=(pytest.mark.nightly,)) for place, param in enumerate(params)]


def edit(file: Path, **changes: object) -> None:
    """Change fields of a record's JSON file."""
    write_json(file, json.loads(file.read_text()) | changes)


def already(joined: Cluster) -> Start:
    """Starts nothing: Ray is up."""
    return lambda gpus: lambda: joined


def never(gpus: int | None) -> Join:
    """Fails where Ray is started."""
    raise AssertionError("Ray is started before all has been checked")


@pytest.fixture(scope="session")
def ray_cluster(cache) -> Iterator[Cluster]:
    """Ray on one core of this machine, for searches within the tests' own process: one trial at a time, in one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setattr(os, "cpu_count", lambda: 1)
        interrupt = signal.getsignal(signal.SIGINT)
        joined = cluster.start(None, dashboard=False)
        signal.signal(signal.SIGINT, interrupt)
        logging.captureWarnings(False)
    yield joined
    cluster.stop()
