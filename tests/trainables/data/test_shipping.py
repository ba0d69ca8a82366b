import errno
import hashlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from trainables.data import shipping
from trainables.data.layouts.reading import read_photos
from trainables.data.settings import DataConfig
from trainables.data.shipping import PIECE, ShippingError, ensure_view, read_piece
from trainables.data.views import View, build_views, count_missing, open_view, read_sidecar, write_sidecar

SQUARE = View("none", 1.0, 32, 32)
PROCESSES = 3
STEP = 1000  # bytes of a piece here, so that a small file has many
KEPT = {"view.npy", "view.json", "fetch.lock"}
processes = get_context("spawn")


@pytest.fixture
def sent(tmp_path) -> Path:
    """A view file on the machine that has the photos."""
    file = tmp_path / "sent" / "view.npy"
    file.parent.mkdir()
    np.save(file, np.random.default_rng(0).integers(256, size=(20, 16, 16, 3), dtype=np.uint8))
    return file


@pytest.fixture
def node(tmp_path) -> Path:
    """The cache of a machine that lacks the file; no folder yet."""
    return tmp_path / "node" / "views"


def sum_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def pieces(file: Path, index: int) -> bytes:
    return file.read_bytes()[index * STEP :][:STEP]


def never(index: int) -> bytes:
    raise AssertionError("fetched")


def files_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the other processes did not come"
        time.sleep(0.005)


def test_the_pieces_of_a_file_are_the_file(tmp_path):
    file = tmp_path / "long.npy"
    with file.open("wb") as handle:
        handle.truncate(2 * PIECE + 5)
        for place in (0, PIECE - 1, PIECE, 2 * PIECE - 1, 2 * PIECE + 4):
            handle.seek(place)
            handle.write(b"x")
    read = [read_piece(file, index) for index in range(5)]
    assert [len(piece) for piece in read] == [PIECE, PIECE, 5, 0, 0]
    assert b"".join(read) == file.read_bytes()


@pytest.mark.parametrize("size", [1, STEP - 1, STEP, STEP + 1, 5 * STEP])
def test_what_arrives_is_what_was_sent(tmp_path, node, size):
    sent = tmp_path / "view.npy"
    sent.write_bytes(np.random.default_rng(size).bytes(size))
    file = ensure_view("view.npy", sum_of(sent), node, partial(pieces, sent))
    assert file == node / "view.npy" and file.read_bytes() == sent.read_bytes()
    assert files_in(node) == KEPT


def test_a_fetched_view_opens_and_is_not_fetched_again(sent, node):
    ensure_view("view.npy", sum_of(sent), node, partial(pieces, sent))
    file = ensure_view("view.npy", sum_of(sent), node, never)
    np.testing.assert_array_equal(open_view(file), open_view(sent))


def test_where_the_photos_were_decoded_nothing_is_fetched(demo, tmp_path):
    built = build_views(read_photos(demo, DataConfig()), [SQUARE], tmp_path)
    file = built.files[SQUARE]
    assert ensure_view(file.name, built.sums[SQUARE], tmp_path, never) == file


def test_a_fetched_view_does_not_pass_for_one_whose_photos_are_known(demo, tmp_path):
    photos = read_photos(demo, DataConfig())
    built = build_views(photos, [SQUARE], tmp_path / "sent")
    name, sha256 = built.files[SQUARE].name, built.sums[SQUARE]
    ensure_view(name, sha256, tmp_path / "node", partial(read_piece, built.files[SQUARE]))
    assert count_missing(photos, [SQUARE], tmp_path / "node") == len(photos)
    here = build_views(photos, [SQUARE], tmp_path / "node")
    assert (here.bad, here.digests, here.sums) == (built.bad, built.digests, built.sums) and here.bad
    ensure_view(name, sha256, tmp_path / "node", never)


def test_a_view_that_was_deleted_comes_back_and_what_was_known_of_its_photos_stays(demo, tmp_path):
    photos = read_photos(demo, DataConfig())
    built = build_views(photos, [SQUARE], tmp_path / "node")
    sent = built.files[SQUARE].rename(tmp_path / "sent.npy")
    ensure_view(built.files[SQUARE].name, built.sums[SQUARE], tmp_path / "node", partial(read_piece, sent))
    assert count_missing(photos, [SQUARE], tmp_path / "node") == 0
    assert build_views(photos, [SQUARE], tmp_path / "node") == built


@pytest.mark.parametrize("sidecar", [None, "", '{"bad": {}, "photos": {}, "sha256": "0"}'])
def test_a_file_that_nothing_vouches_for_is_fetched_anew(sent, node, sidecar):
    node.mkdir(parents=True)
    (node / "view.npy").write_bytes(b"another one")
    if sidecar is not None:
        (node / "view.json").write_text(sidecar)
    file = ensure_view("view.npy", sum_of(sent), node, partial(pieces, sent))
    assert file.read_bytes() == sent.read_bytes()
    ensure_view("view.npy", sum_of(sent), node, never)


@pytest.mark.parametrize("piece", [0, 3, 15])
@pytest.mark.parametrize("damage", [lambda piece: bytes([piece[0] ^ 1]) + piece[1:], lambda piece: piece[:-1], lambda piece: b""])
def test_a_wrong_piece_is_refused_with_both_sums_and_leaves_nothing(sent, node, piece, damage):
    arrived = []

    def fetch(index: int) -> bytes:
        arrived.append(damage(pieces(sent, index)) if index == piece else pieces(sent, index))
        return arrived[-1]

    with pytest.raises(ShippingError) as caught:
        ensure_view("view.npy", sum_of(sent), node, fetch)
    assert all(word in str(caught.value) for word in (str(node / "view.npy"), sum_of(sent), hashlib.sha256(b"".join(arrived)).hexdigest()))
    assert files_in(node) == {"fetch.lock"}
    ensure_view("view.npy", sum_of(sent), node, partial(pieces, sent))


@pytest.mark.parametrize("error", [RuntimeError, ConnectionError, KeyboardInterrupt])
def test_when_the_fetching_fails_its_own_error_is_raised_and_nothing_stays(sent, node, error):
    def fetch(index: int) -> bytes:
        if index == 3:
            raise error("the other machine is gone")
        return pieces(sent, index)

    with pytest.raises(error, match="the other machine is gone"):
        ensure_view("view.npy", sum_of(sent), node, fetch)
    assert files_in(node) == {"fetch.lock"}
    ensure_view("view.npy", sum_of(sent), node, partial(pieces, sent))


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_without_room_is_said_in_words_and_nothing_stays(sent, node):
    with pytest.raises(OSError) as caught, small_disk(2 * STEP + 10):
        ensure_view("view.npy", sum_of(sent), node, partial(pieces, sent))
    assert isinstance(caught.value, ShippingError) and caught.value.errno == errno.EFBIG
    assert f"{node}: a view cannot be written (File too large). Free some room, or set SWEEPVOTE_CACHE" in str(caught.value)
    assert files_in(node) == {"fetch.lock"}


# Several processes of one machine


def fetch_and_count(sent: Path, log: Path, index: int) -> bytes:
    """A piece, once all processes are there to want it; every call leaves its process' id in the log."""
    wait_for(lambda: len(list(log.parent.glob("ready-*"))) == PROCESSES)
    with log.open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    time.sleep(0.01)
    return pieces(sent, index)


def is_first(log: Path) -> bool:
    """Whether no other process than this one has fetched yet."""
    return set(log.read_text().split()) == {str(os.getpid())}


def die_first(sent: Path, log: Path, index: int) -> bytes:
    """As above, but the first process that fetches kills itself half-way."""
    piece = fetch_and_count(sent, log, index)
    if index == 3 and is_first(log):
        os.kill(os.getpid(), signal.SIGKILL)
    return piece


def fail_first(sent: Path, log: Path, index: int) -> bytes:
    """As above, but a piece of the first process that fetches is too short."""
    piece = fetch_and_count(sent, log, index)
    return piece[1:] if index == 3 and is_first(log) else piece


def want(number: int, fetch, sent: Path, log: Path, node: Path) -> None:
    (log.parent / f"ready-{number}").touch()
    file = ensure_view("view.npy", sum_of(sent), node, partial(fetch, sent, log))
    assert file.read_bytes() == sent.read_bytes()


def start_together(fetch, sent: Path, node: Path) -> tuple[list[int], list[str]]:
    """Exit codes of processes that want the file at the same time, and who fetched each piece."""
    log = sent.parent / "log"
    started = [processes.Process(target=want, args=(number, fetch, sent, log, node)) for number in range(PROCESSES)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return sorted(process.exitcode for process in started), log.read_text().split()


def asked_for(sent: Path) -> int:
    """Pieces of one fetching, with the empty one that ends it."""
    return len(sent.read_bytes()) // STEP + 2


def test_processes_that_start_together_fetch_once(sent, node):
    codes, fetched = start_together(fetch_and_count, sent, node)
    assert codes == [0] * PROCESSES
    assert len(fetched) == asked_for(sent) and len(set(fetched)) == 1
    assert files_in(node) == KEPT


def test_when_the_process_that_fetches_is_killed_the_next_takes_over_and_the_others_wait_on(sent, node):
    codes, fetched = start_together(die_first, sent, node)
    assert codes == [-signal.SIGKILL] + [0] * (PROCESSES - 1)
    assert len(fetched) == 4 + asked_for(sent) and len(set(fetched)) == 2
    assert files_in(node) == KEPT


def test_when_one_process_gets_a_wrong_piece_the_next_fetches_for_the_others(sent, node):
    codes, fetched = start_together(fail_first, sent, node)
    assert codes == [0] * (PROCESSES - 1) + [1]
    assert len(fetched) == 2 * asked_for(sent) and len(set(fetched)) == 2
    assert files_in(node) == KEPT


def stall(sent: Path, index: int) -> bytes:
    if index == 3:
        time.sleep(3600)
    return pieces(sent, index)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("name", ["view.npy", "another.npy"])
def test_what_a_killed_process_leaves_is_not_trusted_and_the_next_fetching_removes_it(sent, node, there, name):
    """The next one wants the same view or another; the killed one was to replace a file that nobody vouched for, or there was none."""
    node.mkdir(parents=True)
    if there:
        (node / "view.npy").write_bytes(b"another one")
    process = processes.Process(target=ensure_view, args=("view.npy", sum_of(sent), node, partial(stall, sent)))
    process.start()
    wait_for(lambda: any(file.stat().st_size == 3 * STEP for file in node.glob("*.fetching")))
    process.kill()
    process.join()
    assert read_sidecar(node / "view.npy") is None
    ensure_view(name, sum_of(sent), node, partial(pieces, sent))
    assert not list(node.glob("*.fetching"))
    assert (node / name).read_bytes() == sent.read_bytes()


def die_beside_the_sidecar(sent: Path, node: Path) -> None:
    def write_and_die(file, sidecar) -> None:
        write_sidecar(file, sidecar)
        os.kill(os.getpid(), signal.SIGKILL)

    shipping.write_sidecar = write_and_die
    ensure_view("view.npy", sum_of(sent), node, partial(pieces, sent))


def test_a_process_killed_between_its_two_files_does_not_vouch_for_the_old_one(sent, node):
    node.mkdir(parents=True)
    (node / "view.npy").write_bytes(b"another one")
    process = processes.Process(target=die_beside_the_sidecar, args=(sent, node))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and read_sidecar(node / "view.npy").sha256 == sum_of(sent)
    assert ensure_view("view.npy", sum_of(sent), node, partial(pieces, sent)).read_bytes() == sent.read_bytes()
    assert files_in(node) == KEPT
