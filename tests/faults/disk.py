"""Disks and views of the file system that only some processes have."""

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

ENTER = {("unshare", "-m"): [], ("unshare", "-rm"): ["-U", "--preserve-credentials"]}  # as root; in a user namespace


class Disk:
    """A small disk in a mount namespace of its own: only commands `inside` see it, and it vanishes with the namespace."""

    def __init__(self, folder: Path):
        """Mount it on a folder; skips the test where nobody may."""
        self.folder = folder
        for enter, options in ENTER.items():
            self._shell = subprocess.Popen(enter + ("sh",), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.inside = ["nsenter", "-t", str(self._shell.pid), "-m", *options]
            if self._does(f"mount -t tmpfs -o size=64m tmpfs {folder}"):
                return
            self.close()
        pytest.skip("no disk can be mounted here, neither as root nor in a user namespace (unshare -rm)")

    def _does(self, command: str) -> bool:
        with suppress(BrokenPipeError):
            self._shell.stdin.write(f"({command}) >/dev/null 2>&1; echo $?\n")
            self._shell.stdin.flush()
            return self._shell.stdout.readline().strip() == "0"
        return False

    def remount(self, options: str) -> None:
        assert self._does(f"mount -o remount,{options} {self.folder}")

    def fill(self) -> None:
        """Leave not a byte, as another program would."""
        assert not self._does(f"cat /dev/zero > {self.folder}/of-another-program")

    @property
    def seen(self) -> Path:
        """The folder as this process sees it."""
        return Path(f"/proc/{self._shell.pid}/root{self.folder}")

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self._shell.stdin.close()
        self._shell.wait()
        self._shell.stdout.close()
