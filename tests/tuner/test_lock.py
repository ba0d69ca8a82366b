import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from subprocess import PIPE, Popen, run
from threading import Barrier, Thread, local

import pytest

from tests.messages import missing
from tests.s3 import BUCKET, S3Server, s3_server
from trainables.console import open_console
from trainables.record import RunError
from trainables.storage import open_folder
from tuner import lock
from tuner.lock import LOCK, hold, show_lock

ROOT = Path(__file__).parent.parent.parent
# Holds a run until its input ends.
HOLDER = """
import sys
from trainables.record import RunError
from trainables.storage import open_folder
from tuner import lock
lock.BEAT, lock.PATIENCE = 0.1, 1.0
try:
    with lock.hold(open_folder(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except RunError as error:
    print(error, flush=True)
"""
WHO = f"process {os.getpid()} on {socket.gethostname()}"


@pytest.fixture
def start_holder() -> Iterator[Callable[[str], Popen]]:
    """Start a process that holds a run; the first line that it prints says whether it does."""
    started: list[Popen] = []

    def start(run: str) -> Popen:
        settings = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(Popen([sys.executable, "-c", HOLDER, run], stdin=PIPE, stdout=PIPE, text=True, env=settings))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def address(server, tmp_path) -> str:
    """Of a folder in an object store that is this test's own."""
    return server.address_of(f"s3://{BUCKET}/{tmp_path.name}")


@pytest.fixture(params=["folder", "object store"])
def place(request, tmp_path, monkeypatch) -> str:
    """The path or address of a run."""
    if request.param == "folder":
        return str(tmp_path)
    # A second without a sign of life is as good as twelve where ten are due in it.
    monkeypatch.setattr(lock, "BEAT", 0.1)
    monkeypatch.setattr(lock, "PATIENCE", 1.0)
    return request.getfixturevalue("address")


def refusal(place: str) -> str:
    with pytest.raises(RunError) as caught, hold(open_folder(place)):
        pass
    return str(caught.value)


def can_be_held(place: str) -> bool:
    with hold(open_folder(place)):
        return True


def test_a_second_process_is_refused_with_the_firsts_number_and_host_while_that_lives(place, start_holder):
    first = start_holder(place)
    assert first.stdout.readline() == "held\n"
    who = f"process {first.pid} on {socket.gethostname()}"
    for _ in range(2):  # a refused attempt takes nothing away
        assert refusal(place).startswith(f"{open_folder(place)} ") and not missing(refusal(place), who, "kill -TERM")
    first.communicate("")
    assert can_be_held(place)


def test_a_process_that_was_killed_holds_nothing(place, start_holder):
    first = start_holder(place)
    assert first.stdout.readline() == "held\n"
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert (open_folder(place) / LOCK).is_file(), "it had no chance to clear up"
    assert can_be_held(place)


def test_another_process_is_refused_while_this_one_holds_the_run_and_let_in_afterwards(place, start_holder):
    with hold(open_folder(place)):
        assert WHO in start_holder(place).stdout.readline()
    assert start_holder(place).stdout.readline() == "held\n"


def test_a_run_is_free_again_when_the_search_in_it_failed(place):
    with pytest.raises(ZeroDivisionError), hold(open_folder(place)):
        raise ZeroDivisionError
    assert can_be_held(place)


def test_one_process_cannot_hold_a_run_twice(place):
    with hold(open_folder(place)):
        assert WHO in refusal(place)


def test_runs_side_by_side_do_not_hinder_each_other(place):
    one, other = (open_folder(place) / name for name in ("one", "other"))
    for folder in (one, other):
        folder.mkdir(parents=True)
    with hold(one), hold(other):
        for folder in (one, other):
            with pytest.raises(RunError, match=WHO), hold(folder):
                pass


def test_of_several_that_come_at_once_one_gets_a_local_run(tmp_path, start_holder):
    holders = [start_holder(str(tmp_path)) for _ in range(4)]
    lines = [holder.stdout.readline() for holder in holders]
    assert lines.count("held\n") == 1
    winner = holders[lines.index("held\n")]
    assert sum(f"process {winner.pid} on" in line for line in lines) == 3


def test_of_several_that_find_an_object_store_free_at_the_same_moment_one_gets_the_run(address, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.4)
    here, read, first = Barrier(3), lock._read, local()

    def read_together(file):
        found = read(file)
        if not hasattr(first, "done"):
            first.done = True
            here.wait()  # all have found nothing before one writes
        return found

    monkeypatch.setattr(lock, "_read", read_together)
    told, all_told = [], Barrier(3)

    def come():
        try:
            with hold(open_folder(address)):
                told.append("held")
                all_told.wait()
        except RunError as error:
            told.append(str(error))
            all_told.wait()

    threads = [Thread(target=come) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.count("held") == 1
    assert sum(WHO in words for words in told) == 2


# Where nothing can be written


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """An empty file system of its own at a folder; skips where this process may not mount one."""
    folder.mkdir()
    done = run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True) if sys.platform == "linux" else None
    if done is None or done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        run(["umount", str(folder)], check=True)


def test_a_folder_that_is_read_only_is_reported_in_words(tmp_path):
    with mounted(tmp_path / "run", "ro,size=64k") as folder:
        assert refusal(str(folder)).startswith(f"{folder}: Read-only file system; ")


def test_a_disk_without_room_keeps_no_command_from_a_run_and_a_second_process_out_all_the_same(tmp_path, start_holder):
    with mounted(tmp_path / "run", "size=16k") as folder:
        with suppress(OSError), (folder / "photos").open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
        with hold(folder):
            assert "in use" in start_holder(str(folder)).stdout.readline()


@pytest.mark.parametrize("name, why", [("file/run", "Not a directory"), ("missing", "No such file or directory")])
def test_a_path_where_no_folder_can_be_is_reported_in_words(tmp_path, name, why):
    (tmp_path / "file").touch()
    assert refusal(str(tmp_path / name)).startswith(f"{tmp_path / name}: {why}; ")


# Signs of life


def test_a_holder_in_an_object_store_gives_ever_new_signs_of_life_and_takes_them_away_at_the_end(address, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    folder = open_folder(address)
    seen = set()
    with hold(folder):
        while len(seen) < 4:
            seen.add((folder / LOCK).read_text())
        assert all(re.search(WHO, sign) for sign in seen)
    assert not (folder / LOCK).exists()


def test_what_replaces_the_lock_is_shown_for_an_object_store_in_one_line_and_of_a_folder_not_at_all(address, tmp_path):
    def said(place):
        words = StringIO()
        show_lock(place, open_console(file=words))
        return words.getvalue().splitlines()

    assert said(tmp_path) == []
    (line,) = said(open_folder(address))
    assert "heartbeat" in line and "not a conditional write" in line


@pytest.mark.nightly
def test_a_damaged_sign_of_life_of_a_dead_process_keeps_no_command_out(address, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.05)
    folder = open_folder(address)
    (folder / LOCK).write_bytes(b"{")
    with hold(folder):
        assert re.search(WHO, (folder / LOCK).read_text())
