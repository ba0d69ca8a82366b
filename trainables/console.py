"""The consoles of all commands: text is printed as it was written, whoever wrote it."""

import json
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from rich.console import Console

STOPPED = "Stopped by Ctrl-C."
WIDE = 160  # columns of tables where no terminal says how many there are


def open_console(**settings: Any) -> Console:
    """A console to which "[bold]" in a class's name is no markup and ":100:" in a file's name no emoji.

    Styles are given beside a text (`style=`, `Text`), never in it: a text may hold names, and names may hold anything.

    Args:
        settings: of rich's Console.
    """
    plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    return Console(**plain | settings)


def redraws(console: Console) -> bool:
    """Whether a table can be shown that changes: on a terminal, and in a notebook that has widgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


_as_json = [False]  # whether this command answers with a document


def answer_as_json(asked: bool) -> bool:
    """Whether the answer of this command is a JSON document on stdout; what is for people then goes to stderr."""
    _as_json[0] = asked
    return asked


def output() -> Console:
    """Where results are printed; wide enough for tables where that is no terminal."""
    stream = sys.stderr if _as_json[0] else sys.stdout
    return open_console(width=None if stream.isatty() else WIDE, stderr=_as_json[0])


def document(values: Mapping[str, Any]) -> None:
    """Print the answer of a command where it was asked for as JSON: tables as their rows, paths and other objects as their text."""
    if _as_json[0]:
        print(json.dumps(values, default=_plain))


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.astype(object).where(value.notna(), None).to_dict(orient="records")
    return value.tolist() if hasattr(value, "tolist") else str(value)


def complain(words: str) -> None:
    """Say on stderr what the user can fix."""
    open_console(stderr=True, soft_wrap=True).print(words, style="red")
