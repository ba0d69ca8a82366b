"""`python -m tuner.spaces`: the spaces that come with the package, and what is in one."""

import sys
from typing import Annotated

import typer

from search_spaces.read import FOLDER, SpaceError, find_shipped, shipped_spaces
from trainables.commands import launch
from trainables.console import complain, document, output
from trainables.options import AsJson


def main(
    name: Annotated[str | None, typer.Argument(help="A shipped space, whose file is printed; > mine.yaml makes a copy to edit.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the spaces that come with the package, or print one of them.

    python -m tuner.spaces

    python -m tuner.spaces effnet > mine.yaml
    """
    console = output()
    try:
        if name is not None:
            text = find_shipped(name).read_text(encoding="utf-8")
            console.out(text, end="")
            document({"name": name, "yaml": text})
            return
    except SpaceError as error:
        complain(str(error))
        sys.exit(2)
    spaces = {space.removesuffix(".yaml"): about(space) for space in shipped_spaces()}
    for space, words in spaces.items():
        console.print(f"{space:<12}{words}", soft_wrap=True)
    document({"spaces": spaces})


def about(space: str) -> str:
    """The first line of a space, which says what it is for."""
    return (FOLDER / space).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


if __name__ == "__main__":
    launch(main, "tuner.spaces")
