import errno
import os
import pickle
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.data import shipping
from trainables.data.images import Unlabelled
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig
from trainables.data.shipping import PIECE, ShippingError, ensure_view, read_piece
from trainables.data.view_store import ENTRY, CacheError, read_store
from trainables.data.views import View, ViewFile, build_views, count_missing, open_view, store_folder

SQUARE = View("none", 1.0, 16, 16)
SIZE = 16 * 16 * 3  # bytes of an image
IMAGES, PROCESSES = 20, 3
processes = get_context("spawn")


@pytest.fixture(scope="module")
def sent(tmp_path_factory) -> ViewFile:
    """A view of twenty images, one of which cannot be decoded, on the machine that has them."""
    root, rng = tmp_path_factory.mktemp("sent"), np.random.default_rng(0)
    names = tuple(f"{number}.png" for number in range(IMAGES))
    for name in names:
        Image.fromarray(rng.integers(256, size=(20, 20, 3), dtype=np.uint8)).save(root / name)
    (root / names[5]).write_bytes(b"no image")
    return build_views(Unlabelled(root, names), [SQUARE], root / "views").files[SQUARE]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(shipping, "PIECE", 2 * SIZE)


@pytest.fixture
def node(tmp_path) -> Path:
    """The cache of a machine that lacks the view; no folder yet."""
    return tmp_path / "node" / "views"


def lend(sent: ViewFile, contents) -> tuple[bytes, bytes]:
    return read_piece(open_view(sent), contents)


def never(contents):
    raise AssertionError("fetched")


def pixels(file: ViewFile) -> np.ndarray:
    seen = open_view(file)
    return seen.images[seen.rows(file.contents)]


def rows_at(node: Path) -> int:
    stored = read_store(store_folder(node, SQUARE))
    return 0 if stored is None else len(stored.entries) - 1


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the other processes did not come"
        time.sleep(0.005)


def test_what_arrives_is_what_was_sent_in_pieces_that_are_small(sent, node):
    asked = []

    def fetch(contents):
        asked.append(len(contents))
        return lend(sent, contents)

    file = ensure_view(sent, node, fetch)
    assert file.cache == node and sum(asked) == IMAGES - 1 and max(asked) == 2
    np.testing.assert_array_equal(pixels(file), pixels(sent))
    assert not pixels(file)[5].any(), "what cannot be decoded is black there too"


def test_a_piece_of_a_view_of_any_size_is_an_image_at_least(sent, node, monkeypatch):
    assert PIECE > 10**6
    monkeypatch.setattr(shipping, "PIECE", 1)
    np.testing.assert_array_equal(pixels(ensure_view(sent, node, partial(lend, sent))), pixels(sent))


def test_a_fetched_view_is_not_fetched_again(sent, node):
    ensure_view(sent, node, partial(lend, sent))
    np.testing.assert_array_equal(pixels(ensure_view(sent, node, never)), pixels(sent))


def test_where_the_images_were_decoded_nothing_is_fetched(sent):
    assert ensure_view(sent, sent.cache, never) == sent


def test_only_what_is_missing_is_fetched(sent, node):
    names = list(sent.contents)
    build_views(Unlabelled(sent.root, tuple(names[:10])), [SQUARE], node)
    asked = []
    file = ensure_view(sent, node, lambda contents: asked.extend(contents) or lend(sent, contents))
    assert asked == [sent.contents[name] for name in names[10:]]
    np.testing.assert_array_equal(pixels(file), pixels(sent))


def test_which_images_have_no_face_is_shipped_too(demo, tmp_path):
    view = View("face", 0.5, 16, 16, margin=0.2)
    built = build_views(read_images(demo, DataConfig()), [view], tmp_path / "sent", find=lambda image: None)
    file = ensure_view(built.files[view], tmp_path / "node", partial(lend, built.files[view]))
    assert open_view(file).entries["without_face"].sum() == len(built.without_face) > 0


def test_a_view_that_was_fetched_serves_those_who_have_the_images(demo, tmp_path):
    images = read_images(demo, DataConfig())
    built = build_views(images, [SQUARE], tmp_path / "sent")
    ensure_view(built.files[SQUARE], tmp_path / "node", partial(lend, built.files[SQUARE]))
    before = read_store(store_folder(tmp_path / "node", SQUARE)).entries
    assert count_missing(images, [SQUARE], tmp_path / "node") == len(images), "which content a file has is not known there"
    here = build_views(images, [SQUARE], tmp_path / "node")
    assert (here.bad, here.digests) == (built.bad, built.digests) and here.bad
    np.testing.assert_array_equal(read_store(store_folder(tmp_path / "node", SQUARE)).entries, before)


def flipped(entries: bytes, images: bytes) -> tuple[bytes, bytes]:
    return entries, bytes([images[0] ^ 1]) + images[1:]


def others(entries: bytes, images: bytes) -> tuple[bytes, bytes]:
    return bytes(32) + entries[32:], images


def short(entries: bytes, images: bytes) -> tuple[bytes, bytes]:
    return entries, images[:-1]


def fewer(entries: bytes, images: bytes) -> tuple[bytes, bytes]:
    return entries[: -ENTRY.itemsize], images[:-SIZE]


@pytest.mark.parametrize("piece", [0, 3, 8])
@pytest.mark.parametrize("damage", [flipped, others, short, fewer])
def test_a_wrong_piece_is_refused_what_came_before_stays_and_the_next_resumes(sent, node, piece, damage):
    count = 0

    def fetch(contents):
        nonlocal count
        count += 1
        found = lend(sent, contents)
        return damage(*found) if count == piece + 1 else found

    with pytest.raises(ShippingError, match=str(node)):
        ensure_view(sent, node, fetch)
    assert rows_at(node) == 2 * piece
    np.testing.assert_array_equal(pixels(ensure_view(sent, node, partial(lend, sent))), pixels(sent))


@pytest.mark.parametrize("error", [RuntimeError, ConnectionError, KeyboardInterrupt])
def test_when_the_fetching_fails_its_own_error_is_raised(sent, node, error):
    def fetch(contents):
        nonlocal count
        count += 1
        if count == 3:
            raise error("the other machine is gone")
        return lend(sent, contents)

    count = 0

    with pytest.raises(error, match="the other machine is gone"):
        ensure_view(sent, node, fetch)
    assert rows_at(node) == 4
    ensure_view(sent, node, partial(lend, sent))


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_without_room_is_reported_in_words_and_complete_images_stay(sent, node):
    with (
        pytest.raises(CacheError, match=f"{node}.*File too large.*python -m trainables.cache.*SWEEPVOTE_CACHE") as caught,
        small_disk(5000),
    ):
        ensure_view(sent, node, partial(lend, sent))
    assert caught.value.errno == errno.EFBIG
    np.testing.assert_array_equal(pixels(ensure_view(sent, node, partial(lend, sent))), pixels(sent))


# Several processes of one machine


def fetch_and_count(sent: ViewFile, log: Path, contents) -> tuple[bytes, bytes]:
    """A piece, once all processes are there to want it; every call leaves its process' id in the log."""
    wait_for(lambda: len(list(log.parent.glob("ready-*"))) == PROCESSES)
    with log.open("a") as lines:
        lines.write(f"{os.getpid()} {len(contents)}\n")
    time.sleep(0.01)
    return lend(sent, contents)


def die_first(sent: ViewFile, log: Path, contents) -> tuple[bytes, bytes]:
    """As above, but the process that fetches fourth kills itself."""
    piece = fetch_and_count(sent, log, contents)
    if len(log.read_text().splitlines()) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return piece


def want(number: int, fetch, sent: ViewFile, log: Path, node: Path) -> None:
    shipping.PIECE = 2 * SIZE
    (log.parent / f"ready-{number}").touch()
    np.testing.assert_array_equal(pixels(ensure_view(sent, node, partial(fetch, sent, log))), pixels(sent))


def start_together(fetch, sent: ViewFile, node: Path) -> tuple[list[int], int]:
    """Exit codes of processes that want the view at the same time, and how many images they asked for."""
    log = node.parents[1] / "log"
    started = [processes.Process(target=want, args=(number, fetch, sent, log, node)) for number in range(PROCESSES)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return sorted(process.exitcode for process in started), sum(int(line.split()[1]) for line in log.read_text().splitlines())


def test_processes_that_start_together_fetch_each_image_once(sent, node):
    codes, fetched = start_together(fetch_and_count, sent, node)
    assert codes == [0] * PROCESSES and fetched == rows_at(node) == IMAGES - 1


def test_when_a_process_that_fetches_is_killed_the_others_continue_where_it_was(sent, node):
    codes, fetched = start_together(die_first, sent, node)
    assert codes == [-signal.SIGKILL] + [0] * (PROCESSES - 1)
    assert fetched == IMAGES - 1 + 2 and rows_at(node) == IMAGES - 1


def test_a_view_that_was_sent_by_pickle_says_nothing_of_its_use(sent, tmp_path):
    shutil.copytree(sent.cache, tmp_path / "views")
    other = pickle.loads(pickle.dumps(sent))
    assert other == sent and not vars(other.use)
