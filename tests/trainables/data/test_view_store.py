import os
import resource
import shutil
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from trainables.data import view_store, views
from trainables.data.images import DataError, Unlabelled
from trainables.data.view_store import (
    BLACK,
    DAY,
    ENTRY,
    INDEX,
    LIMIT,
    CacheError,
    Use,
    Writer,
    alone,
    cache_limit,
    drop,
    list_stores,
    make_room,
    note_use,
    old_files,
    read_store,
)
from trainables.data.views import View, build_views, open_view, store_folder

SHAPE = (4, 5, 3)
SIZE = 4 * 5 * 3
SQUARE, WIDE = View("none", 1.0, 16, 16), View("none", 1.0, 16, 32)
processes = get_context("spawn")


def content(number: int) -> str:
    return f"{number:064x}"


def image(number: int) -> np.ndarray:
    return np.full(SHAPE, number, np.uint8)


def write(folder: Path, *numbers: int) -> None:
    with Writer(folder, SHAPE, "a view") as writer:
        for number in numbers:
            writer.add(content(number), image(number), without_face=number % 2 == 0)


def held(folder: Path) -> list[int]:
    """The numbers whose images a store has, which are verified."""
    stored = read_store(folder)
    if stored is None:
        return []
    assert not stored.images[stored.row[BLACK]].any()
    numbers = sorted(int(name, 16) for name in stored.row if name != BLACK)
    for number in numbers:
        np.testing.assert_array_equal(stored.images[stored.row[content(number)]], image(number))
        assert stored.entries[stored.row[content(number)]]["without_face"] == (number % 2 == 0)
    return numbers


def set_used(folder: Path, when: float, *numbers: int) -> None:
    """Let a store say that these images were last used then."""
    head, _, rest = (folder / INDEX).read_bytes().partition(b"\n")
    entries, row = np.frombuffer(rest, ENTRY).copy(), read_store(folder).row
    entries["used"][[row[content(number)] for number in numbers]] = when
    (folder / INDEX).write_bytes(head + b"\n" + entries.tobytes())


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# What a store holds


def test_what_is_added_is_read_and_added_once(tmp_path):
    write(tmp_path, 1, 2, 1)
    write(tmp_path, 2, 3)
    assert held(tmp_path) == [1, 2, 3] and len(read_store(tmp_path).entries) == 4


def test_a_store_that_is_open_stays_as_it_was_while_others_add(tmp_path):
    write(tmp_path, 1)
    before = read_store(tmp_path)
    write(tmp_path, 2)
    assert len(before.images) == 2 and before.images[before.row[content(1)]].tolist() == image(1).tolist()


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_what_was_added_before_a_block_fails_is_kept(tmp_path, error):
    with pytest.raises(error), Writer(tmp_path, SHAPE, "a view") as writer:
        writer.add(content(1), image(1))
        writer.add(content(3), image(3))
        raise error
    assert held(tmp_path) == [1, 3]


@pytest.mark.parametrize("kept", range(4))
@pytest.mark.parametrize("more", [0, 1, ENTRY.itemsize - 1])
def test_an_index_that_was_cut_off_holds_complete_images_and_the_next_writer_continues(tmp_path, kept, more):
    write(tmp_path, 1, 2, 3)
    index = (tmp_path / INDEX).read_bytes()
    start = index.index(b"\n") + 1
    (tmp_path / INDEX).write_bytes(index[: start + (kept + 1) * ENTRY.itemsize + more])
    assert held(tmp_path) == [1, 2, 3][:kept]
    write(tmp_path, 4, 3, 2, 1)
    assert held(tmp_path) == [1, 2, 3, 4]


def test_pixels_that_were_cut_off_are_not_shown_and_written_again(tmp_path):
    write(tmp_path, 1, 2, 3)
    [file] = tmp_path.glob("images-*")
    os.truncate(file, 3 * SIZE + 1)
    assert held(tmp_path) == [1, 2]
    write(tmp_path, 3, 4)
    assert held(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "head", [b"", b"[]", b"{}", b'{"format": 5, "images": "images-1", "shape": [4, 5, 3]}', b'{"format": 4, "images": 3, "shape": 2}']
)
def test_an_index_that_says_nothing_is_no_store_and_is_made_anew(tmp_path, head):
    write(tmp_path / "store", 1)
    (tmp_path / "store" / INDEX).write_bytes(head + b"\n" + bytes(2 * ENTRY.itemsize))
    assert read_store(tmp_path / "store") is None and [one.shows for one in list_stores(tmp_path)] == ["damaged, or of an earlier version"]
    write(tmp_path / "store", 2)
    assert held(tmp_path / "store") == [2] and len(list((tmp_path / "store").glob("images-*"))) == 1


def test_an_index_cannot_name_a_file_elsewhere(tmp_path):
    write(tmp_path / "store", 1)
    (tmp_path / "secret").write_bytes(bytes(1000))
    index = (tmp_path / "store" / INDEX).read_bytes()
    name = read_store(tmp_path / "store").head["images"].encode()
    (tmp_path / "store" / INDEX).write_bytes(index.replace(name, b"../secret"))
    assert read_store(tmp_path / "store") is None


def write_and_die(folder: Path) -> None:
    writer = Writer(folder, SHAPE, "a view")
    writer.add(content(1), image(1))
    writer.publish()
    writer.add(content(2), image(2))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_writer_that_is_killed_leaves_what_it_had_published(tmp_path):
    process = processes.Process(target=write_and_die, args=(tmp_path,))
    process.start()
    process.join()
    (tmp_path / "images-of-another").write_bytes(b"left behind")
    assert process.exitcode == -signal.SIGKILL and held(tmp_path) == [1]
    write(tmp_path, 3, 2)
    assert held(tmp_path) == [1, 2, 3] and not (tmp_path / "images-of-another").exists()


# Several processes


def drawn(root: Path, numbers) -> Unlabelled:
    root.mkdir(exist_ok=True)
    for number in numbers:
        Image.new("RGB", (20, 20), (number, 100, 50)).save(root / f"{number}.png")
    return Unlabelled(root, tuple(f"{number}.png" for number in numbers))


def colours(built, view=SQUARE) -> list[int]:
    seen = open_view(built.files[view])
    return seen.images[seen.rows(built.files[view].contents)][:, 0, 0, 0].tolist()


def build(root: Path, numbers, cache: Path, log: Path, dies: bool = False) -> None:
    """Build a view in turns of two images; every image that is decoded leaves a line in the log."""
    real, views.TURN = views.decode, 2
    views.TURNS = 10**6

    def read(stream):
        with log.open("a") as lines:
            lines.write(f"{Path(stream.name).stem}\n")
        if dies and len(log.read_text().split()) >= 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(stream)

    views.decode = read
    (log.parent / f"ready-{os.getpid()}").touch()
    wait_for(lambda: len(list(log.parent.glob("ready-*"))) == 2)
    assert colours(build_views(Unlabelled(root, tuple(f"{number}.png" for number in numbers)), [SQUARE], cache)) == list(numbers)


def test_processes_that_build_at_once_share_the_work_and_see_the_same(tmp_path):
    drawn(tmp_path / "photos", range(1, 31))
    lists = [range(1, 21), range(11, 31)]
    started = [processes.Process(target=build, args=(tmp_path / "photos", one, tmp_path / "cache", tmp_path / "log")) for one in lists]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0]
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(1, 31)), "each image is decoded once"
    assert len(read_store(store_folder(tmp_path / "cache", SQUARE)).entries) == 31


def test_when_one_that_builds_is_killed_the_other_and_the_next_are_not_harmed(tmp_path):
    images = drawn(tmp_path / "photos", range(1, 13))
    dies = [True, False]
    arguments = [(tmp_path / "photos", range(1, 13), tmp_path / "cache", tmp_path / "log", one) for one in dies]
    started = [processes.Process(target=build, args=one) for one in arguments]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert sorted(process.exitcode for process in started) in ([-signal.SIGKILL, 0], [0, 0])
    assert colours(build_views(images, [SQUARE], tmp_path / "cache")) == list(range(1, 13))


# How much is kept


@pytest.mark.parametrize(
    ("text", "size"), [("", LIMIT), ("0", 0), ("1000", 1000), ("2GB", 2 * 10**9), ("1.5 tb", 15 * 10**11), ("20M", 20_000_000)]
)
def test_the_limit_is_what_the_environment_says(monkeypatch, text, size):
    monkeypatch.setenv("SWEEPVOTE_CACHE_LIMIT", text)
    assert cache_limit() == size


@pytest.mark.parametrize("text", ["much", "-1", "10 apples", "GB", "1e9"])
def test_a_limit_that_is_no_size_is_refused_with_its_name_and_value(monkeypatch, tmp_path, text):
    monkeypatch.setenv("SWEEPVOTE_CACHE_LIMIT", text)
    with pytest.raises(DataError, match=f"SWEEPVOTE_CACHE_LIMIT.*{text}"):
        build_views(drawn(tmp_path / "photos", [1]), [SQUARE], tmp_path / "cache")


def test_beyond_the_limit_the_least_recently_used_images_go_first(tmp_path, monkeypatch):
    write(tmp_path / "old", 1, 2, 3, 4)
    write(tmp_path / "new", 5, 6)
    set_used(tmp_path / "old", 100, 1, 2)
    set_used(tmp_path / "old", 300, 3, 4)
    set_used(tmp_path / "new", 200, 5)
    monkeypatch.setenv("SWEEPVOTE_CACHE_LIMIT", str(8 * SIZE))
    make_room(tmp_path, SIZE, {})
    assert (held(tmp_path / "old"), held(tmp_path / "new")) == ([3, 4], [5, 6])
    monkeypatch.setenv("SWEEPVOTE_CACHE_LIMIT", str(5 * SIZE))
    make_room(tmp_path, 0, {})
    assert (held(tmp_path / "old"), held(tmp_path / "new")) == ([3, 4], [6])
    make_room(tmp_path, 5 * SIZE, {tmp_path / "new": [content(6)]})
    assert (held(tmp_path / "old"), held(tmp_path / "new")) == ([], [6]) and not (tmp_path / "old").exists()


def test_within_the_limit_nothing_goes(tmp_path):
    write(tmp_path / "one", 1, 2)
    set_used(tmp_path / "one", 100, 1, 2)
    make_room(tmp_path, 10**6, {})
    assert held(tmp_path / "one") == [1, 2]


def test_a_build_beyond_the_limit_keeps_what_it_needs_and_drops_what_it_does_not(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    build_views(drawn(tmp_path / "photos", [1, 2, 3]), [SQUARE, WIDE], cache)
    monkeypatch.setenv("SWEEPVOTE_CACHE_LIMIT", "1")
    built = build_views(drawn(tmp_path / "photos", [2, 4]), [SQUARE], cache)
    assert colours(built) == [2, 4] and not store_folder(cache, WIDE).exists()
    assert len(read_store(store_folder(cache, SQUARE)).entries) == 3, "black, the one that was there and the new one"


def test_rows_that_go_do_not_change_what_others_have_open(tmp_path):
    write(tmp_path / "one", 1, 2, 3)
    set_used(tmp_path / "one", 100, 1, 3)
    before = read_store(tmp_path / "one")
    assert drop(tmp_path, 200) == 2 * SIZE
    assert held(tmp_path / "one") == [2]
    np.testing.assert_array_equal(before.images[before.row[content(3)]], image(3))
    write(tmp_path / "one", 3, 4)
    assert held(tmp_path / "one") == [2, 3, 4]


def use(folder: Path, log: Path) -> None:
    kept = Use(folder)
    log.touch()
    time.sleep(3600)
    assert kept


def test_what_a_process_uses_stays_until_it_ends(tmp_path):
    write(tmp_path / "one", 1)
    write(tmp_path / "two", 2)
    process = processes.Process(target=use, args=(tmp_path / "one", tmp_path / "ready"))
    process.start()
    wait_for((tmp_path / "ready").exists)
    assert {one.folder.name: one.in_use for one in list_stores(tmp_path)} == {"one": True, "two": False}
    assert drop(tmp_path, float("inf")) > 0
    assert held(tmp_path / "one") == [1] and not (tmp_path / "two").exists()
    process.kill()
    process.join()
    drop(tmp_path, float("inf"))
    assert not (tmp_path / "one").exists()


def test_what_is_built_and_what_is_open_is_in_use(tmp_path):
    built = build_views(drawn(tmp_path / "photos", [1, 2]), [SQUARE, WIDE], tmp_path / "cache")
    cache = tmp_path / "cache"
    assert drop(cache, float("inf")) == 0
    images = open_view(built.files[SQUARE]).images
    del built
    drop(cache, float("inf"))
    assert [one.folder for one in list_stores(cache)] == [store_folder(cache, SQUARE)] and images[1].any()
    del images
    drop(cache, float("inf"))
    assert list_stores(cache) == []


def test_use_is_noted_once_a_day(tmp_path):
    write(tmp_path / "one", 1, 2)
    note_use(tmp_path, tmp_path / "one", [content(1)])
    set_used(tmp_path / "one", time.time() - 10 * DAY, 1, 2)
    note_use(tmp_path, tmp_path / "one", [content(1)])
    drop(tmp_path, time.time() - DAY)
    assert held(tmp_path / "one") == [1]


# Disks


def test_a_disk_that_is_too_small_is_reported_before_anything_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(view_store.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    seen = []
    with pytest.raises(DataError, match=f"{tmp_path / 'cache'}.*python -m trainables.cache.*SWEEPVOTE_CACHE"):
        build_views(drawn(tmp_path / "photos", [1, 2, 3]), [SQUARE], tmp_path / "cache", seen.append)
    assert not seen


def test_a_disk_without_room_gives_that_of_images_that_no_command_uses(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    build_views(drawn(tmp_path / "others", range(100, 110)), [WIDE], cache)
    free = sum(file.stat().st_size for file in cache.glob("*/images-*"))
    left = lambda folder: SimpleNamespace(free=free - sum(file.stat().st_size for file in cache.glob("*/images-*")))  # noqa: E731
    monkeypatch.setattr(view_store.shutil, "disk_usage", left)
    assert colours(build_views(drawn(tmp_path / "photos", [1, 2, 3]), [SQUARE], cache)) == [1, 2, 3]
    assert not store_folder(cache, WIDE).exists()


def test_a_disk_that_fills_up_meanwhile_is_reported_in_words_and_complete_images_stay(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    images = drawn(tmp_path / "photos", range(1, 21))
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(DataError, match=f"{tmp_path / 'cache'}.*File too large.*python -m trainables.cache"):
            build_views(images, [SQUARE], tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(read_store(store_folder(tmp_path / "cache", SQUARE)).entries) == 1 + 5
    assert colours(build_views(images, [SQUARE], tmp_path / "cache")) == list(range(1, 21))


def test_a_cache_that_is_a_file_is_named(tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(CacheError, match=str(tmp_path / "cache")), alone(tmp_path / "cache"):
        raise AssertionError
    with pytest.raises(DataError, match=str(tmp_path / "cache")):
        build_views(drawn(tmp_path / "photos", [1]), [SQUARE], tmp_path / "cache")


def test_what_earlier_versions_left_is_known_and_no_store_is_taken_for_it(tmp_path):
    build_views(drawn(tmp_path / "photos", [1]), [SQUARE], tmp_path / "cache")
    for name in ("1a2b.npy", "1a2b.json", "1a2b.77.partial", "fetch.lock"):
        (tmp_path / "cache" / name).write_bytes(b"old")
    assert [file.name for file in old_files(tmp_path / "cache")] == ["1a2b.77.partial", "1a2b.json", "1a2b.npy", "fetch.lock"]
    shutil.rmtree(tmp_path / "cache")
