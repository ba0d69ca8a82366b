"""A real S3 server on this machine, for tests of what is kept in an object store."""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import Popen
from tempfile import TemporaryFile
from urllib.request import Request, urlopen

import pytest

BUCKET = "runs-bucket"


@dataclass(frozen=True)
class S3Server:
    """A server with an empty bucket, in a process of its own."""

    process: Popen
    endpoint: str  # http://127.0.0.1:port

    @property
    def address(self) -> str:
        """A folder in the bucket, with all that is needed to reach it."""
        return self.address_of(f"s3://{BUCKET}/prefix")

    def address_of(self, uri: str) -> str:
        """An address on this server: `s3://bucket/folder` with the endpoint behind it."""
        return f"{uri}?endpoint_override={self.endpoint}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def s3_server(**environment: str) -> Iterator[S3Server]:
    """Start a server on a free port of this machine alone, and put a key for it in the environment, for processes started meanwhile too.

    Args:
        environment: settings for the server's process.
    """
    with pytest.MonkeyPatch.context() as patch, TemporaryFile() as log:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        server = Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            yield S3Server(server, _endpoint_with_bucket(server, log.fileno()))
        finally:
            server.kill()
            server.wait()


def _endpoint_with_bucket(server: Popen, log: int) -> str:
    while not (found := re.search(rb"Running on (http://[\d.:]+)", said := os.pread(log, 10_000, 0))):
        assert server.poll() is None, said.decode()
        time.sleep(0.05)
    endpoint = found[1].decode()
    with urlopen(Request(f"{endpoint}/{BUCKET}", method="PUT")):
        return endpoint
