"""Commands as they are printed: what a user copies into a shell, and what runs there as it did here."""

import os
import shlex
import shutil
import sys
from pathlib import Path

UV = "UV"  # uv run sets it for what it runs


def started(words: str) -> str:
    """The command line of a program that is installed beside us, such as `uv run ray get-auth-token`."""
    return f"uv run {words}" if UV in os.environ else words


def typed(words: str) -> str:
    """The command line of one of our modules, such as `uv run python -m tuner.run --resume faces` of `tuner.run --resume faces`.

    Python is called as it was for this command: through uv, by its name where that is on the path, else by its file.

    Args:
        words: the module and what follows it, names and paths quoted as a shell takes them.
    """
    if UV in os.environ:
        return started(f"python -m {words}")
    found = Path(shutil.which("python") or "nowhere").absolute()
    here = Path(sys.executable).absolute()
    # An environment is its folder; the names in it, python and python3, are links to one file.
    same = found.parent == here.parent and found.resolve() == here.resolve()
    return f"{'python' if same else shlex.quote(sys.executable)} -m {words}"
