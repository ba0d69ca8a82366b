import os
import pickle
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import pytest
from pyarrow.fs import FileSystem

from tests.s3 import BUCKET, S3Server, s3_server
from trainables import storage
from trainables.storage import (
    Address,
    Folder,
    StorageError,
    local_file,
    move_tree,
    open_folder,
    reach,
    remove_partials,
    remove_tree,
    size_below,
    write_atomically,
)

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def remote(server) -> Address:
    """A new folder in S3."""
    folder = open_folder(server.address_of(f"s3://{BUCKET}/{uuid4().hex}"))
    folder.mkdir()
    return folder


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path) -> Folder:
    """A new folder of either kind."""
    return tmp_path if request.param == "local" else request.getfixturevalue("remote")


def names(folder: Folder) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def tree(folder: Folder) -> dict[str, bytes]:
    """The files below a folder, by their paths in it."""
    files = {}
    for entry in folder.iterdir():
        below = tree(entry) if entry.is_dir() else {"": entry.read_bytes()}
        files |= {f"{entry.name}/{name}".rstrip("/"): content for name, content in below.items()}
    return files


def plant(folder: Folder, files: dict[str, bytes]) -> Folder:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, content)
    return folder


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow beyond a thousand bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def start_python(code: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


# Folders of both kinds


def test_a_file_is_read_as_it_was_written(folder):
    for content in (b"old", "new and länger".encode(), b"", bytes(100_000)):
        write_atomically(folder / "file", content)
        assert (folder / "file").read_bytes() == content and names(folder) == {"file"}
    write_atomically(folder / "file", "länger".encode())
    assert (folder / "file").read_text() == "länger"


def test_a_file_larger_than_one_upload_is_read_as_it_was_written(folder):
    content = np.random.default_rng(0).bytes(12_000_000)
    write_atomically(folder / "model", content)
    assert (folder / "model").read_bytes() == content


def test_files_folders_and_what_is_missing_are_distinguished(folder):
    file, inner, missing = plant(folder, {"inner/file": b"1"}) / "inner/file", folder / "inner", folder / "missing"
    assert [(entry.is_file(), entry.is_dir(), entry.exists()) for entry in (file, inner, missing)] == [
        (True, False, True),
        (False, True, True),
        (False, False, False),
    ]


def test_a_folder_lists_its_files_and_folders_and_nothing_deeper(folder):
    plant(folder, {"file": b"1", "inner/file": b"2", "inner/deep/file": b"3"})
    assert sorted(folder.iterdir(), key=str) == [folder / "file", folder / "inner"]
    assert tree(folder) == {"file": b"1", "inner/file": b"2", "inner/deep/file": b"3"}


def test_a_path_has_a_name_and_a_parent(folder):
    file = folder / "trials" / "7"
    assert file == folder / "trials/7" and (file.name, file.parent, file.parent.parent) == ("7", folder / "trials", folder)
    assert file.resolve() == folder.resolve() / "trials/7" and str(file) == f"{folder}/trials/7"


def test_a_folder_that_was_made_is_there_and_empty(folder):
    (folder / "a" / "b").mkdir(parents=True)
    assert (folder / "a").is_dir() and (folder / "a/b").is_dir() and names(folder / "a/b") == set()


def test_a_folder_is_not_made_twice_unless_that_is_fine(folder):
    (folder / "a").mkdir()
    (folder / "a").mkdir(exist_ok=True)
    with pytest.raises(FileExistsError):
        (folder / "a").mkdir()


def test_reading_what_is_missing_is_the_systems_own_error(folder):
    with pytest.raises(FileNotFoundError):
        (folder / "missing").read_bytes()


def test_a_file_is_removed_and_one_that_is_missing_only_if_that_is_fine(folder):
    write_atomically(folder / "file", b"1")
    (folder / "file").unlink()
    assert names(folder) == set() and folder.is_dir()
    (folder / "file").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (folder / "file").unlink()


def test_a_tree_is_removed_with_all_in_it_and_nothing_beside_it(folder):
    plant(folder, {"trial/file": b"1", "trial/last/file": b"2", "trial2/file": b"3"})
    remove_tree(folder / "trial")
    remove_tree(folder / "trial")
    assert tree(folder) == {"trial2/file": b"3"} and not (folder / "trial").exists()


def test_size_is_that_of_all_files_below(folder):
    assert size_below(folder) == size_below(folder / "missing") == 0
    plant(folder, {"a": bytes(10), "b/c": bytes(200), "b/d/e": bytes(3000), "f": b""})
    assert size_below(folder) == 3210 and size_below(folder / "b") == 3200


def test_a_tree_is_moved_completely(folder):
    plant(folder, {"old/file": b"1", "old/old/old": b"2", "older/file": b"3"})
    move_tree(folder / "old", folder / "aside" / "new")
    assert tree(folder) == {"aside/new/file": b"1", "aside/new/old/old": b"2", "older/file": b"3"}
    assert not (folder / "old").exists()


def test_a_tree_is_not_moved_over_another_nor_out_of_nothing(folder):
    plant(folder, {"old/file": b"1", "new/file": b"2"})
    with pytest.raises(FileExistsError, match="new exists already"):
        move_tree(folder / "old", folder / "new")
    with pytest.raises(FileNotFoundError):
        move_tree(folder / "missing", folder / "other")
    assert tree(folder) == {"old/file": b"1", "new/file": b"2"}


def test_a_library_that_needs_a_path_gets_the_file_under_its_name(folder):
    write_atomically(folder / "model.safetensors", b"tensors")
    with local_file(folder / "model.safetensors") as path:
        assert (path.name, path.read_bytes()) == ("model.safetensors", b"tensors")
        copied = path != folder / "model.safetensors"
    assert path.exists() != copied and tree(folder) == {"model.safetensors": b"tensors"}


ANSWER = """
import pickle, sys
folder = pickle.loads(bytes.fromhex(sys.argv[1]))
(folder / "answer").write_bytes((folder / "file").read_bytes())
"""


def test_a_folder_goes_to_another_process_and_still_leads_to_its_files(folder):
    write_atomically(folder / "file", b"1")
    received = pickle.loads(pickle.dumps(folder))
    assert received == folder and hash(received) == hash(folder) and str(received) == str(folder)
    assert start_python(ANSWER, pickle.dumps(folder).hex()).wait() == 0
    assert (folder / "answer").read_bytes() == b"1"


def test_a_folder_that_can_be_used_is_reached_and_left_as_it_was(folder):
    write_atomically(folder / "file", b"1")
    reach(folder)
    assert tree(folder) == {"file": b"1"}


def test_reaching_makes_a_folder_that_is_missing(folder):
    reach(folder / "a" / "b")
    assert (folder / "a/b").is_dir() and names(folder / "a/b") == set()


WRITER = """
import hashlib, sys
from trainables.storage import open_folder, write_atomically
folder, who = open_folder(sys.argv[1]), sys.argv[2]
for count in range(40):
    body = f"{who}{count}".encode() * (1 + 7919 * count % 20_000)
    write_atomically(folder / "file", hashlib.sha256(body).digest() + body)
"""


def test_readers_find_one_writers_complete_file_and_never_a_mixture(server, folder):
    """Two processes replace one file with longer and shorter ones, each of which begins with the hash of the rest."""
    text = str(folder) if isinstance(folder, Path) else server.address_of(str(folder))
    writers = [start_python(WRITER, text, who) for who in ("a", "b")]
    seen = set()
    while any([writer.poll() is None for writer in writers]):
        if (folder / "file").is_file():
            content = (folder / "file").read_bytes()
            assert sha256(content[32:]).digest() == content[:32]
            seen.add(content[32:33])
    assert [writer.returncode for writer in writers] == [0, 0] and set() < seen <= {b"a", b"b"}
    assert names(folder) == {"file"}


# Local folders


def test_a_text_without_a_scheme_is_a_path(tmp_path):
    assert open_folder("runs") == Path("runs") and open_folder(str(tmp_path)) == tmp_path


def test_a_file_address_is_a_path():
    assert open_folder("file:///mnt/shared%20disk/runs") == Path("/mnt/shared disk/runs")


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_write_that_fails_midway_leaves_what_was_there_and_the_systems_own_error(tmp_path, old):
    if old:
        write_atomically(tmp_path / "file", old)
    with pytest.raises(OSError) as caught, small_disk():
        write_atomically(tmp_path / "file", bytes(10_000))
    assert not isinstance(caught.value, StorageError)
    assert tree(tmp_path) == ({"file": old} if old else {})


def test_a_file_that_vanishes_while_sizes_are_added_up_is_not_counted(tmp_path):
    (tmp_path / "file").write_bytes(bytes(10))
    (tmp_path / "gone").symlink_to(tmp_path / "missing")
    assert size_below(tmp_path) == 10


def test_a_folder_where_a_file_stands_is_not_reached(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"/file/runs: Not a directory"):
        reach(tmp_path / "file" / "runs")


# Addresses


def test_an_address_is_shown_without_its_settings_and_secrets(server):
    folder = open_folder(f"s3://someone:very%2Fsecret@{BUCKET}//faces/?endpoint_override={server.endpoint}&region=eu-west-1")
    for shown in (str(folder), str(folder / "run.json"), repr(folder), f"{folder}"):
        assert f"s3://{BUCKET}/faces" in shown
        assert not any(word in shown for word in ("someone", "secret", "region", "127.0.0.1"))
    assert str(folder / "trials" / "7") == f"s3://{BUCKET}/faces/trials/7"


def test_keys_in_an_address_are_used(server):
    folder = open_folder(f"s3://some%2Bone:very%2Fsecret@{BUCKET}/faces?endpoint_override={server.endpoint}")
    settings = folder.filesystem.__reduce__()[1][0]
    assert (settings["access_key"], settings["secret_key"]) == ("some+one", "very/secret")


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_address_as_it_is_shown_leads_to_the_same_folder_when_the_environment_names_the_endpoint(server, remote, monkeypatch, variable):
    write_atomically(remote / "file", b"1")
    monkeypatch.setenv(variable, server.endpoint)
    assert open_folder(str(remote)) == remote and tree(open_folder(str(remote))) == {"file": b"1"}


def test_the_endpoint_in_the_address_wins_over_the_environments(server, remote, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert open_folder(server.address_of(str(remote))) == remote


def test_the_region_is_that_of_the_address_or_else_of_the_environment(server, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    regions = [open_folder(f"{server.address}{more}").filesystem.region for more in ("", "&region=eu-west-3")]
    assert regions == ["eu-central-1", "eu-west-3"]


def test_folders_in_different_stores_are_different(server, remote):
    other = open_folder(f"{remote}?endpoint_override=http://127.0.0.1:1")
    assert str(other) == str(remote) and other != remote


def test_a_bucket_is_its_own_parent(server):
    bucket = open_folder(server.address_of(f"s3://{BUCKET}"))
    assert bucket.name == BUCKET and bucket.parent == bucket and (bucket / "runs").parent == bucket


def test_a_google_address_is_understood():
    folder = open_folder("gs://anonymous@bucket/faces")
    assert (str(folder / "run.json"), folder.filesystem.type_name) == ("gs://bucket/faces/run.json", "gcs")
    assert isinstance(folder.filesystem, FileSystem) and pickle.loads(pickle.dumps(folder)) == folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://host/runs", r"ftp://.* s3://bucket/folder, gs://bucket/folder$"),
        ("file://host/runs", r"file://.* file:///folder, "),
        ("s3:///runs", r"s3://.* s3://bucket/folder"),
        (
            "s3://bucket/runs?endpont=x&region=y",
            r"^s3://bucket: endpont .*endpoint_override, ",
        ),
        ("s3://key@bucket/runs?region=x", r"^s3://bucket/runs: .*secret_key"),
        ("gs://bucket/runs?region=x", r"^gs://bucket/runs: .*'region'"),
    ],
)
def test_an_address_that_is_wrong_is_refused_with_what_to_write(text, message):
    with pytest.raises(StorageError, match=message):
        open_folder(text)


def test_a_key_that_was_not_encoded_is_not_shown():
    with pytest.raises(StorageError, match=r"bucket.* %2F for /") as caught:
        open_folder("s3://someone:very/secret@bucket/runs")
    assert "someone" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_bucket_that_is_missing_is_named(server):
    folder = open_folder(server.address_of("s3://no-such-bucket/runs"))
    with pytest.raises(StorageError, match=r"^s3://no-such-bucket/runs: .*bucket"):
        reach(folder)
    with pytest.raises(StorageError, match=r"^s3://no-such-bucket/runs/file: .*bucket"):
        write_atomically(folder / "file", b"1")


def test_a_key_that_is_refused_is_reported():
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="1") as strict:  # making the bucket is that one
        folder = open_folder(strict.address)
        with pytest.raises(StorageError, match=r"^s3://.*/prefix: .*AWS_ACCESS_KEY_ID"):
            reach(folder)
        with pytest.raises(StorageError, match=r"^s3://.*/prefix/file: .*AWS_ACCESS_KEY_ID"):
            write_atomically(folder / "file", b"1")


@pytest.mark.nightly
def test_a_server_that_has_gone_is_reported():
    with s3_server() as server:
        folder = open_folder(server.address)
        reach(folder)
        server.kill()
        for use in (reach, Address.read_bytes, remove_tree):
            with pytest.raises(StorageError, match=r"^s3://runs-bucket/prefix: .*endpoint_override.* AWS_ENDPOINT_URL"):
                use(folder)
        with pytest.raises(OSError, match=r"^s3://runs-bucket/prefix/file: .*AWS_ENDPOINT_URL"):
            write_atomically(folder / "file", b"1")


def test_a_server_that_never_answers_is_not_waited_for(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        folder = open_folder(f"s3://bucket/runs?endpoint_override=http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(StorageError, match=r"^s3://bucket/runs: .*0.5 s"):
            reach(folder, seconds=0.5)


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "trials" / "1" / "last").mkdir(parents=True)
    left = [tmp_path / ".run.json.ab12.partial", tmp_path / "trials" / "1" / "last" / ".state.pt.cd34.partial"]
    kept = [tmp_path / "run.json", tmp_path / "trials" / "1" / "partial", tmp_path / ".lock"]
    for file in (*left, *kept):
        file.write_bytes(b"x")
    remove_partials(tmp_path)
    remove_partials(tmp_path / "nowhere")
    assert [file.exists() for file in (*left, *kept)] == [False] * 2 + [True] * 3


class Restless:
    """A store that never describes a file in the same way twice."""

    def __init__(self):
        self.opened = 0

    @contextmanager
    def open_input_file(self, path):
        self.opened += 1
        yield SimpleNamespace(metadata=lambda version=self.opened: {"version": version}, read=lambda: b"content")


def test_a_file_whose_description_never_agrees_is_reported_in_words_and_not_read_for_ever(monkeypatch):
    monkeypatch.setattr(storage, "READING", 0.1)
    store = Restless()
    with pytest.raises(StorageError, match="s3://bucket/file"):
        Address("s3://bucket/file", store, "bucket/file").read_bytes()
    assert store.opened > 1
