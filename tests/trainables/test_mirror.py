import json
import time
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from tests.s3 import BUCKET, s3_server
from trainables import mirror
from trainables.cache import app as cache_command
from trainables.data.view_store import CacheError
from trainables.mirror import FILES, copies_folder, list_copies, local_folder, original, remove_copies
from trainables.storage import StorageError, open_folder, write_atomically

FLOWERS = {"rose/1.jpg": b"red", "rose/2.jpg": b"pink", "tulip/1.jpg": b"yellow" * 1_000_000, "labels.csv": b"image,label\n"}


@pytest.fixture(scope="module")
def server():
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Of this test alone."""
    monkeypatch.setenv("SWEEPVOTE_CACHE", str(tmp_path / "cache"))
    forget()
    return tmp_path / "cache"


@pytest.fixture
def flowers(server) -> str:
    """The address of a folder with images."""
    address = f"s3://{BUCKET}/{uuid4().hex}/flowers"
    put(address, FLOWERS)
    return address


def put(address: str, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        write_atomically(open_folder(f"{address}/{name}"), content)


def forget() -> None:
    """As when this process has ended."""
    local_folder.cache_clear()
    mirror._in_use.clear()


def files_in(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def fetched(monkeypatch) -> list[str]:
    """The names of the files that are copied from now on."""
    names, real = [], mirror._chunks
    monkeypatch.setattr(mirror, "_chunks", lambda folder, path: names.append(path.removeprefix(f"{folder.path}/")) or real(folder, path))
    return names


def test_a_path_is_itself_and_so_is_an_address_of_this_machine(tmp_path):
    assert local_folder(str(tmp_path)) == local_folder(f"file://{tmp_path}") == tmp_path
    assert original(tmp_path) == str(tmp_path)


def test_a_folder_is_copied_once_and_known_by_its_address(flowers, monkeypatch):
    names = fetched(monkeypatch)
    folder = local_folder(flowers)
    assert files_in(folder) == FLOWERS and sorted(names) == sorted(FLOWERS)
    assert original(folder) == flowers and original(folder / "rose") == f"{flowers}/rose"
    forget()
    assert local_folder(flowers) == folder and len(names) == len(FLOWERS)


def test_what_changed_in_the_store_and_nothing_else_changes_in_the_copy(flowers, monkeypatch):
    folder = local_folder(flowers)
    before = (folder / "rose/1.jpg").stat().st_ctime_ns
    time.sleep(1.1)  # the store knows seconds
    put(flowers, {"rose/2.jpg": b"rose", "lily/1.jpg": b"white"})
    open_folder(f"{flowers}/tulip/1.jpg").unlink()
    names = fetched(monkeypatch)
    forget()
    local_folder(flowers)
    assert files_in(folder) == {"rose/1.jpg": b"red", "rose/2.jpg": b"rose", "lily/1.jpg": b"white", "labels.csv": FLOWERS["labels.csv"]}
    assert sorted(names) == ["lily/1.jpg", "rose/2.jpg"] and not (folder / "tulip").exists()
    assert (folder / "rose/1.jpg").stat().st_ctime_ns == before


def test_a_table_comes_with_what_lies_beside_it_and_an_image_alone(flowers):
    table = local_folder(f"{flowers}/labels.csv")
    assert table.name == "labels.csv" and files_in(table.parent) == FLOWERS and original(table) == f"{flowers}/labels.csv"
    image = local_folder(f"{flowers}/rose/1.jpg", whole=False)
    assert image.read_bytes() == b"red" and files_in(image.parent) == {"1.jpg": b"red"}


def test_a_copy_is_listed_and_removed_unless_a_command_uses_it(flowers):
    folder = local_folder(flowers)
    [copy] = list_copies()
    assert copy.address == flowers and copy.size > len(FLOWERS["tulip/1.jpg"])
    assert remove_copies() == 0 and folder.is_dir()
    forget()
    told = CliRunner().invoke(cache_command, ["--json", "--empty"])
    assert told.exit_code == 0 and json.loads(told.stdout)["copies"] == [] and not folder.exists()
    assert files_in(local_folder(flowers)) == FLOWERS


def test_a_pattern_comes_with_its_folder(flowers):
    pattern = local_folder(f"{flowers}/*.csv")
    assert [file.name for file in pattern.parent.glob(pattern.name)] == ["labels.csv"]


@pytest.mark.parametrize("end", [KeyboardInterrupt, StorageError])
def test_a_copy_that_was_stopped_is_resumed(flowers, monkeypatch, end):
    real = mirror._chunks

    def chunks(folder, path):
        if path.endswith("tulip/1.jpg"):
            yield b"yel"
            raise end
        yield from real(folder, path)

    monkeypatch.setattr(mirror, "THREADS", 1)
    monkeypatch.setattr(mirror, "_chunks", chunks)
    with pytest.raises(end):
        local_folder(flowers)
    [left] = copies_folder().glob(f"*/{FILES}")
    assert 0 < len(files_in(left)) < len(FLOWERS) and not any(name.endswith(".partial") for name in files_in(left))
    (left / ".0.partial").write_bytes(b"of one that was killed")
    monkeypatch.setattr(mirror, "_chunks", real)
    names = fetched(monkeypatch)
    assert files_in(local_folder(flowers)) == FLOWERS and 0 < len(names) < len(FLOWERS)


@pytest.mark.parametrize(
    "place", ["s3://no-such-bucket-here/flowers", f"s3://{BUCKET}/nothing", f"s3://{BUCKET}/nothing.csv", "ftp://host/data"]
)
def test_an_address_where_nothing_is_is_refused_by_its_name(server, place, cache):
    with pytest.raises(StorageError, match=place.partition("/nothing")[0].partition("/flowers")[0].removesuffix("host/data")):
        local_folder(place)
    assert not list(cache.glob("copies/*/files"))


def test_a_name_that_leads_out_of_the_copy_is_refused(flowers, monkeypatch):
    folder = open_folder(flowers)
    [one, *rest] = folder.files()
    odd = SimpleNamespace(path=f"{folder.path}/../../out.jpg", size=3, mtime_ns=0)
    monkeypatch.setattr("trainables.storage.Address.files", lambda self: [one, odd])
    with pytest.raises(StorageError, match=r"\.\./\.\./out\.jpg"):
        local_folder(flowers)


def test_a_disk_without_room_is_reported_before_anything_is_copied(flowers, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(CacheError, match="SWEEPVOTE_CACHE") as caught:
        local_folder(flowers)
    assert flowers in str(caught.value) and not list(copies_folder().rglob("*.jpg"))
