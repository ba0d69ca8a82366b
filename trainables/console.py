"""The consoles of all commands: text is printed as it was written, whoever wrote it."""

import sys
from typing import Any

from rich.console import Console

WIDE = 160  # columns of tables where no terminal says how many there are


def open_console(**settings: Any) -> Console:
    """A console to which "[bold]" in a class's name is no markup and ":100:" in a file's name no emoji.

    Styles are given beside a text (`style=`, `Text`), never in it: a text may hold names, and names may hold anything.

    Args:
        settings: of rich's Console.
    """
    plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    return Console(**plain | settings)


def output() -> Console:
    """Where results are printed; wide enough for tables where that is no terminal."""
    return open_console(width=None if sys.stdout.isatty() else WIDE)


def complain(words: str) -> None:
    """Say on stderr what the user can fix."""
    open_console(stderr=True, soft_wrap=True).print(words, style="red")
