"""What the recipes of the five reports answer within minutes: macro F1 on people put aside, by the commands of each recipe's header.

Some people of a data set in the contest's layout are put aside, and their images become its eval images, without labels. Then the commands
run as the header of each space in reports/ has them, but for those that serve a page. Their searches share the budget, or most of it:

    uv run python -m benchmarks.reports --data photos [--budget 4m] [--people 240] [--recipe 004] [--swap WORD=OTHER] [--set ...]

A few minutes show that the way from images to a submission is whole, and no more: networks for a laptop, and few epochs.
"""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.answer import grade, put_aside, submitted
from search_spaces.read import FOLDER, shipped_spaces
from trainables.console import open_console
from tuner.cli import seconds

RECIPES = tuple(name for name in shipped_spaces() if name.startswith("reports/"))
SEARCHES = 0.75  # of the budget; the rest is for votes, refits and pages, which take what they take


def header_of(name: str) -> str:
    """The comment at the top of a space, without its signs."""
    lines = (FOLDER / name).read_text().splitlines()
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in takewhile(lambda line: line.startswith("#"), lines))


def commands_of(name: str) -> list[list[str]]:
    """The words of each command of a header; a line that ends in a backslash goes on in the next."""
    lines = header_of(name).replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix("Run:")) for line in lines if line.removeprefix("Run:").strip().startswith("python -m ")]


def answer_of(name: str) -> Path:
    """Where the submission of a header's commands lies, below the folder where they run."""
    return Path(re.findall(r"[\w./]*submission\.csv", header_of(name))[-1])


def swapped(word: str, swaps: dict[str, str]) -> str:
    """A word of a command with what stands here for it, or for a part of it that stands alone."""
    for old, new in swaps.items():
        word = re.sub(rf"(?<![\w.]){re.escape(old)}(?![\w.])", lambda _, new=new: new, word)
    return word


def main(
    data: Annotated[Path, typer.Option(help="A folder in the contest's layout.")],
    budget: Annotated[float, typer.Option(parser=seconds, metavar="TIME", help="Of each recipe, from command to answer.")] = 240.0,
    people: Annotated[int, typer.Option(min=9, help="People to learn from.")] = 240,
    aside: Annotated[int, typer.Option(min=1, help="People put aside.")] = 120,
    seed: Annotated[int, typer.Option(min=0, help="Of who is put aside.")] = 0,
    recipe: Annotated[list[str] | None, typer.Option(help="000 to 004; repeat it. [default: all]", show_default=False)] = None,
    swap: Annotated[list[str] | None, typer.Option(metavar="WORD=OTHER", help="What stands for a word of the commands.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="For every search that does not set it.")] = None,
) -> None:
    """Print what each recipe answers for the people put aside, with 95 % CIs over people, and the time it took."""
    console, figures = open_console(width=140), {}
    table = Table("recipe", "macro F1 (95 % CI)", "accuracy", "seconds", "trials", "commands done")
    names = [f"reports/{one}.yaml" for one in recipe] if recipe else RECIPES
    if unknown := [one for one in names if one not in RECIPES]:
        raise typer.BadParameter(f"no recipe is called {', '.join(unknown)}; there are {', '.join(RECIPES)}, by their numbers")
    if odd := [one for one in swap or () if "=" not in one]:
        raise typer.BadParameter(f"--swap {', '.join(odd)} has no '='; write WORD=OTHER")
    swaps = dict(one.split("=", 1) for one in swap or ())
    with TemporaryDirectory(prefix="reports-") as made:
        hidden = put_aside(data, Path(made) / "faces", aside, seed, people)
        for name in names:
            folder, begun = Path(made) / Path(name).stem, perf_counter()
            folder.mkdir()
            (folder / "faces").symlink_to(Path(made) / "faces")
            commands = [words for words in commands_of(name) if words[2] != "analysis.demo"]
            searches = sum(words[2] == "tuner.run" for words in commands)
            done = [
                _run([swapped(word, swaps) for word in words], folder, SEARCHES * budget / searches, changes or ()) for words in commands
            ]
            took = perf_counter() - begun
            trials = len(list(folder.glob("runs/*/trials/*/result.json")))
            figures[name] = {"seconds": round(took, 1), "trials": trials, "commands": len(commands), "failed": done.count(False)}
            score, accuracy = "no answer", "-"
            if (file := folder / answer_of(name)).is_file():
                value, (low, high), right = grade(hidden, submitted(file), seed)
                score, accuracy = f"{value:.3f} ({low:.3f}-{high:.3f})", f"{right:.3f}"
                figures[name] |= {"f1_macro": round(value, 4), "low": round(low, 4), "high": round(high, 4)}
            table.add_row(name, score, accuracy, f"{took:.0f}", str(trials), f"{sum(done)} of {len(done)}")
    console.print(table)
    machine = {"python": platform.python_version(), "cores": os.cpu_count()}
    print(json.dumps({**figures, "budget": budget, "people": people, "aside": aside, "seed": seed, **machine}))


def _run(words: list[str], folder: Path, budget: float, changes: Sequence[str]) -> bool:
    """Whether the command ended well; what it says of a mistake is seen."""
    if words[2] == "tuner.run":
        said = {word.partition("=")[0] for before, word in pairwise(words) if before == "--set"}
        words = [*words, "--time-budget", f"{budget:.0f}s", "--no-dashboard"]
        words += [word for change in changes if change.partition("=")[0] not in said for word in ("--set", change)]
    print(shlex.join(words), file=sys.stderr, flush=True)
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    done = subprocess.run([sys.executable, *words[1:]], cwd=folder, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.DEVNULL)
    return done.returncode == 0


if __name__ == "__main__":
    typer.run(main)
