"""Nodes of a cluster that die, join, lack the images or do not see the records. Each is a real one, with a raylet on this machine."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen
from threading import Thread

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster as RayCluster

from tests.faults.commands import ROOT, name_of, processes_with, searched, told, trains, wait_for, went_on
from tests.faults.disk import Disk
from tests.messages import missing
from trainables.data.view_store import read_store
from trainables.record import LAST, read_records
from tuner import cluster
from tuner.cli import TrialCount
from tuner.cluster import Cluster, ClusterError

pytestmark = pytest.mark.faults

EPOCHS = 150  # the first node alone needs longer for them than another needs to join


@pytest.fixture
def head(monkeypatch) -> Iterator[RayCluster]:
    """The first node, with one core; the tests' own process joins it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    head = RayCluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield head
    cluster.stop()
    head.shutdown()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    logging.captureWarnings(False)


@dataclass(frozen=True)
class Node:
    """A node with a cache of its own, started by `ray start` as people do it."""

    process: Popen
    cache: Path

    @property
    def pids(self) -> list[int]:
        return processes_with(f"SWEEPVOTE_CACHE={self.cache}")

    def processes(self, name: str) -> list[int]:
        """Those of its processes that have this in their name."""
        return [pid for pid in self.pids if name in name_of(pid)]

    @property
    def trials(self) -> int:
        """How many trials it has in hand."""
        return sum(trains(pid) for pid in self.pids)

    @property
    def view(self) -> tuple[Path, int] | None:
        """The store in its cache, and which file of the disk its images are."""
        files = [index.parent / read_store(index.parent).head["images"] for index in self.cache.glob("views/*/index")]
        assert len(files) <= 1
        return (files[0].parent, files[0].stat().st_ino) if files else None

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def add(head, tmp_path) -> Iterator[Callable[..., Node]]:
    """Add a node of two cores."""
    added = []

    def add(wrapped: Iterable[str] = ()) -> Node:
        cache = tmp_path / f"cache-of-node-{len(added)}"
        words = ("start", "--address", head.address, "--num-cpus", "2", "--object-store-memory", "150000000", "--block")
        command = [*wrapped, sys.executable, "-m", "ray.scripts.scripts", *words]
        environment = {**os.environ, "SWEEPVOTE_CACHE": str(cache)}
        added.append(Node(Popen(command, env=environment, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True), cache))
        return added[-1]

    yield add
    for node in added:
        node.end()


@pytest.fixture
def joined(head) -> Cluster:
    return cluster.start(head.address, dashboard=False)


def wait_for_nodes(number: int) -> None:
    wait_for(lambda: sum(node["Alive"] for node in ray.nodes()) == number)


@pytest.mark.nightly
def test_trials_of_a_node_that_dies_go_on_elsewhere_and_a_node_that_joins_gets_its_view_once_and_trials(
    here, tiny_space, demo, head, joined, add, cache
):
    run = here / "runs" / "moved"
    first = add()
    wait_for_nodes(2)
    before: dict[int, list[str]] = {}
    views: list[tuple[Path, int]] = []
    failed = []

    def change_nodes() -> None:
        try:
            # Three trials run at a time, so one of two that report is a trial of that node.
            wait_for(lambda: first.trials == 2 and sum(len(lines) >= 3 for lines in told(run).values()) >= 2)
            views.append(first.view)
            before.update(told(run))
            (raylet,) = first.processes("/raylet/raylet")
            os.kill(raylet, signal.SIGKILL)
            second = add()
            wait_for(lambda: second.view)
            views.append(second.view)
            wait_for(lambda: second.trials == 2)
        except BaseException as error:
            failed.append(error)

    changing = Thread(target=change_nodes)
    changing.start()
    options = {"space": str(tiny_space), "data": demo, "name": "moved", "trials": TrialCount(4), "retries": 1, "address": head.address}
    code, said = searched(joined, **options, changes=(f"run/epochs={EPOCHS}", f"run/grace={EPOCHS}"))
    changing.join()
    assert not failed, failed
    assert code == 0, said
    records = read_records(run)
    assert [(record.result.state, len(record.reports)) for record in records] == [("finished", EPOCHS)] * 4
    assert any(record.result.attempt > 1 and len(before.get(record.number, ())) > 1 for record in records), "none went on elsewhere"
    assert went_on(before, told(run))

    for folder, inode in views:
        there, here = read_store(folder), read_store(cache / "views" / folder.name)
        assert there.row.keys() <= here.row.keys() and len(there.row) == len(there.entries) > 1, "each image once"
        np.testing.assert_array_equal(there.images, here.images[[here.row[content] for content in there.row]])
        assert (folder / there.head["images"]).stat().st_ino == inode, "two trials of a node need it, and one brings it"


@pytest.mark.nightly
def test_a_node_that_does_not_see_the_records_is_refused_by_name_and_one_that_joins_later_ends_the_search_softly(
    here, tiny_space, demo, head, joined, add
):
    (here / "runs").mkdir()
    elsewhere = Disk(here / "runs")
    options = {"space": str(tiny_space), "data": demo, "trials": TrialCount(3), "address": head.address}
    blind = add(wrapped=elsewhere.inside)
    wait_for_nodes(2)
    with pytest.raises(ClusterError, match=r"node \S+ cannot read .*runs/early: give --storage"):
        searched(joined, **options, name="early")
    assert not (here / "runs" / "early" / "trials").exists()
    blind.end()
    wait_for_nodes(1)

    run = here / "runs" / "late"

    def join_late() -> None:
        wait_for(lambda: (run / "trials" / "0" / LAST).is_file())
        add(wrapped=elsewhere.inside)

    joining = Thread(target=join_late)
    joining.start()
    # Without that node it would go on for hours.
    changes = ("run/epochs=100000", "run/grace=99999")
    code, said = searched(joined, **options, name="late", changes=changes, time_budget=90.0)
    joining.join()
    assert code == 1, said
    assert "cannot read" in said and "--storage" in said
    assert read_records(run)[0].result.state == "interrupted"
    elsewhere.close()


@pytest.mark.nightly
def test_a_node_that_cannot_execute_an_extension_is_refused_by_name_with_the_line(here, tiny_space, demo, head, joined, add):
    (here / "my_parts.py").write_text("import os\n\nif 'of-node' in os.environ['SWEEPVOTE_CACHE']:\n    import a_library_of_the_head\n")
    (here / "space.yaml").write_text(f"extends: {tiny_space}\nextensions: [my_parts.py]\n")
    add()
    wait_for_nodes(2)
    with pytest.raises(ClusterError) as caught:
        searched(joined, space="space.yaml", data=demo, name="parts", address=head.address)
    assert missing(str(caught.value), "node ", "my_parts.py:4: ", "a_library_of_the_head") == []
    assert not (here / "runs" / "parts" / "trials").exists()
