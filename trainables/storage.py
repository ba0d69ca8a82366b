"""Where records are kept: a folder of this machine, or an address in an object store.

A folder is a plain `Path`. What has `://` in it is an `Address`, which has the few methods of `Path` that records need, so that the
rest of the code writes `run / "trials"` and asks `file.is_file()` without knowing which of the two it holds.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, unquote, urlencode
from uuid import uuid4

from search_spaces.errors import UserError

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

S3_SETTINGS = ("endpoint_override", "region", "scheme", "tls_ca_file_path")
READING = 60  # seconds that a file is read again, until it was not replaced meanwhile
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # error numbers: nothing can be written there
# What the libraries say, and what it means for the user.
FIXES = {
    "NO_SUCH_BUCKET|Bucket .* not found": "there is no such bucket; create it, or correct its name",
    "ACCESS_DENIED|ACCESS_KEY|SIGNATURE|TOKEN|PERMISSION_DENIED|UNAUTHENTICATED|HTTP status 40[13]": (
        "access is refused; give a key that may list, read, write and delete there "
        "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, a profile or a role)"
    ),
    "NETWORK_CONNECTION|curl|CURL": (
        "no server answers; check the network, and the endpoint if the store is not the cloud's own "
        "(?endpoint_override=http://host:port behind the address, or AWS_ENDPOINT_URL)"
    ),
}


class StorageError(UserError, ValueError, OSError):
    """An address that is wrong, cannot be reached or may not be used; the text says how to fix it."""


@dataclass(frozen=True)
class Address:
    """A file or folder in an object store. What is missing raises FileNotFoundError, as with `Path`; all else raises StorageError."""

    uri: str  # without settings and secrets; with the same environment `open_folder` understands it again
    filesystem: "FileSystem" = field(repr=False, hash=False)
    path: str  # below the store: bucket/folder/file

    def __str__(self) -> str:
        return self.uri

    def __reduce__(self) -> tuple:
        return _unpickled, (self.uri, self.filesystem, self.path)

    def __truediv__(self, name: str) -> Self:
        return type(self)(f"{self.uri}/{name}", self.filesystem, f"{self.path}/{name}")

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> Self:
        """The folder around it; a bucket is its own."""
        if "/" not in self.path:
            return self
        return type(self)(self.uri.rpartition("/")[0], self.filesystem, self.path.rpartition("/")[0])

    def resolve(self) -> Self:
        return self

    def is_file(self) -> bool:
        return self._kind() == "File"

    def is_dir(self) -> bool:
        return self._kind() == "Directory"

    def exists(self) -> bool:
        return self._kind() != "NotFound"

    def iterdir(self) -> Iterator[Self]:
        """The files and folders in it; none where nothing is there."""
        from pyarrow.fs import FileSelector

        with in_plain_words(self):
            found = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        return (self / info.base_name for info in found)

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Parents are made in any case: stores have no folders but marks for them."""
        if not exist_ok and self.exists():
            raise FileExistsError(f"{self} exists already")
        with in_plain_words(self):
            self.filesystem.create_dir(self.path, recursive=True)

    def read_bytes(self) -> bytes:
        # As a file and not as a stream, which would ask for the content in many small pieces.
        with in_plain_words(self), ExitStack() as files:
            file = files.enter_context(self.filesystem.open_input_file(self.path))
            until = monotonic() + READING
            while monotonic() < until:
                # The size was asked first and the content is now. If the file was replaced in between, a longer one comes cut off and a
                # shorter one with rubbish behind it, and pyarrow says nothing.
                content, later = file.read(), files.enter_context(self.filesystem.open_input_file(self.path))
                if later.metadata() == file.metadata():
                    return content
                file = later
        raise StorageError(
            f"{self}: the file was replaced during each of its reads in {READING} s; stop what writes it, or use another store"
        )

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def write_bytes(self, content: bytes) -> None:
        """Readers find the old content or the new one: a store shows an upload when it is complete."""
        with in_plain_words(self), self.filesystem.open_output_stream(self.path) as stream:
            stream.write(content)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with in_plain_words(self):
                self.filesystem.delete_file(self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def files(self) -> "list[FileInfo]":
        """All files below it; none where nothing is there."""
        from pyarrow.fs import FileSelector

        with in_plain_words(self):
            below = self.filesystem.get_file_info(FileSelector(self.path, recursive=True, allow_not_found=True))
        return [info for info in below if info.is_file]

    def _kind(self) -> str:
        with in_plain_words(self):
            return self.filesystem.get_file_info(self.path).type.name


def _unpickled(uri: str, filesystem: "FileSystem", path: str) -> Address:
    # Without this import the process may not end: unpickling alone imports only a part of pyarrow.
    import pyarrow.fs  # noqa: F401

    return Address(uri, filesystem, path)


Folder = Path | Address


def open_folder(text: str) -> Folder:
    """A folder by its path, or by its address: `s3://bucket/folder`, `gs://bucket/folder`, `file:///folder`.

    S3 takes settings behind the address, `?endpoint_override=http://host:port&region=eu-west-1`, and else those of the environment.

    Raises: StorageError when the text is no address of a known kind.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    if scheme == "file" and rest.startswith("/"):
        return Path(unquote(rest))
    if scheme not in STORES:
        known = ", ".join(f"{name}://bucket/folder" for name in STORES)
        raise StorageError(f"addresses with {scheme}:// are not known; write a folder, file:///folder, {known}")
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    secrets, _, bucket = authority.rpartition("@")
    # The text is not repeated: a key that was not encoded may be anywhere in it.
    if not re.fullmatch(r"[\w.-]+", bucket):
        raise StorageError(f"the {scheme}:// address names no bucket; write {scheme}://bucket/folder, in a key %2F for / and %40 for @")
    path = "/".join([bucket, *filter(None, path.split("/"))])
    uri = f"{scheme}://{path}"
    with in_plain_words(uri):
        return Address(uri, STORES[scheme](bucket, secrets, dict(parse_qsl(query))), path)


def _open_s3(bucket: str, secrets: str, settings: Mapping[str, str]) -> "FileSystem":
    from pyarrow.fs import S3FileSystem, resolve_s3_region

    if unknown := sorted(settings.keys() - set(S3_SETTINGS)):
        raise StorageError(f"s3://{bucket}: {', '.join(unknown)} is not a setting of an address; choose from {', '.join(S3_SETTINGS)}")
    key, _, secret = secrets.partition(":")
    environment = os.environ.get
    endpoint = settings.get("endpoint_override") or environment("AWS_ENDPOINT_URL_S3") or environment("AWS_ENDPOINT_URL")
    region = settings.get("region") or environment("AWS_REGION") or environment("AWS_DEFAULT_REGION")
    return S3FileSystem(
        access_key=unquote(key) or None,
        secret_key=unquote(secret) or None,
        endpoint_override=endpoint,
        region=region or ("us-east-1" if endpoint else resolve_s3_region(bucket)),
        scheme=settings.get("scheme"),
        tls_ca_file_path=settings.get("tls_ca_file_path"),
        # Seconds; three attempts are made.
        connect_timeout=3,
        request_timeout=5,
        # One request for a small file, and no marks where folders are already.
        allow_delayed_open=True,
        check_directory_existence_before_creation=True,
    )


def _open_gs(bucket: str, secrets: str, settings: Mapping[str, str]) -> "FileSystem":
    from pyarrow.fs import FileSystem

    # By default it would try for a quarter of an hour.
    query = urlencode({"retry_limit_seconds": "15", **settings})
    return FileSystem.from_uri(f"gs://{secrets}{'@' if secrets else ''}{bucket}?{query}")[0]


# Stores which show a file when it is complete and not before.
STORES = {"s3": _open_s3, "gs": _open_gs}


@contextmanager
def in_plain_words(address: Address | str) -> Iterator[None]:
    """Turn what the libraries of a store say into a StorageError, but for what is missing."""
    try:
        yield
    except (FileNotFoundError, UserError):
        raise
    except (OSError, ValueError) as error:
        message = str(error)
        fix = next((words for pattern, words in FIXES.items() if re.search(pattern, message)), message)
        raise StorageError(f"{address}: {fix}") from error


def reach(folder: Folder, seconds: float = 15) -> None:
    """Make sure that files can be written, listed and removed in a folder, which is made where it is missing.

    Raises: StorageError, after `seconds` at the latest.
    """
    done: Future[None] = Future()

    def probe() -> None:
        try:
            _probe(folder)
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    # A thread of its own, because a dead network disk blocks it for ever.
    Thread(target=probe, daemon=True).start()
    try:
        done.result(seconds)
    except StorageError:
        raise
    except TimeoutError:
        raise StorageError(f"{folder}: no answer within {seconds:g} s; check the network and the address") from None
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}; records are written there; give another folder") from None


def _probe(folder: Folder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f".probe-{uuid4().hex}"
    try:
        write_atomically(file, b"sweepvote")
        if file.name not in {entry.name for entry in folder.iterdir()}:
            raise StorageError(f"{folder}: a file that was just written is not listed; give a folder that shows new files at once")
    finally:
        file.unlink(missing_ok=True)


def write_atomically(file: Folder, content: bytes) -> None:
    """Write a file so that readers find the old one or the new one, after a power cut too.

    Raises: OSError as the system has it, without a trace of the new file.
    """
    if isinstance(file, Address):
        file.write_bytes(content)
        return
    # Two machines that share the folder may have processes of the same number.
    partial = file.with_name(f".{file.name}.{uuid4().hex}.partial")
    try:
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError as error:
        # A failed write does not name its file.
        error.filename = error.filename or str(file)
        raise
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(folder: Folder) -> None:
    """Remove what processes that were killed in mid-write left below a folder; a store keeps nothing of an upload that was cut off."""
    if isinstance(folder, Path):
        for file in folder.rglob(".*.partial"):
            file.unlink(missing_ok=True)


def remove_tree(folder: Folder) -> None:
    """Remove a folder with all in it; one that is missing is fine."""
    with suppress(FileNotFoundError):
        if isinstance(folder, Path):
            shutil.rmtree(folder)
            return
        with in_plain_words(folder):
            folder.filesystem.delete_dir(folder.path)


def file_size(file: Folder) -> int:
    """Bytes of a file."""
    if isinstance(file, Path):
        return file.stat().st_size
    with in_plain_words(file):
        return file.filesystem.get_file_info(file.path).size


def size_below(folder: Folder) -> int:
    """Bytes of all files in a folder and its folders; 0 where it is missing. A file that vanishes meanwhile is not counted."""
    if isinstance(folder, Address):
        return sum(info.size for info in folder.files())
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def move_tree(folder: Folder, to: Folder) -> None:
    """Give a folder another name in the same store. A store copies file by file and removes the old ones when all are copied.

    Raises: FileNotFoundError, FileExistsError.
    """
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist")
    if to.exists():
        raise FileExistsError(f"{to} exists already")
    if isinstance(folder, Path) and isinstance(to, Path):
        to.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(to)
    elif isinstance(folder, Address) and isinstance(to, Address):
        for info in folder.files():
            with in_plain_words(to):
                folder.filesystem.copy_file(info.path, to.path + info.path.removeprefix(folder.path))
        remove_tree(folder)
    else:
        raise TypeError(f"{folder} and {to} are not in one store")


@contextmanager
def local_file(file: Folder) -> Iterator[Path]:
    """The file itself, or a copy for the length of the block: for libraries that need a path."""
    if isinstance(file, Path):
        yield file
        return
    with TemporaryDirectory() as scratch:
        copy = Path(scratch) / file.name
        copy.write_bytes(file.read_bytes())
        yield copy
