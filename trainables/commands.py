"""Commands as they are printed: what a user copies into a shell, and what runs there as it did here."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UV = "UV"  # uv run sets it for what it runs
OURS = "SWEEPVOTE_COMMAND"  # the installed command sets it for the module that it runs


@dataclass(frozen=True)
class Command:
    """What `sweepvote NAME` does."""

    words: str  # the module and what may follow it, as in `python -m tuner.run --resume`
    help: str  # the first line of what its own --help says


COMMANDS = {
    "search": Command("tuner.run", "Search a space for the best models, on all cores and GPUs."),
    "resume": Command("tuner.run --resume", "Resume a search by its run's name, or extend it: --trials +20."),
    "watch": Command(
        "tuner.watch",
        "Watch a run in the browser: trials, learning curves, what runs where, time left, the best so far.",
    ),
    "enqueue": Command("tuner.enqueue", "Propose a configuration to a search: it is tried next, or first when the run is resumed."),
    "stop": Command("tuner.stop", "Stop a search softly, from any machine that reaches its folder, or one of its trials."),
    "spare": Command("tuner.spare", "Spare a trial: it is not pruned any more, and trains to its own end."),
    "look": Command(
        "tuner.look",
        "Look at images and labels before a search: one page of counts, sizes, colours, examples, copies and odd labels.",
    ),
    "draw-masks": Command("tuner.draw_masks", "Draw masks on faces that have none, as further images to train on."),
    "probe": Command(
        "tuner.probe", "Fit linear heads to what the backbones of a space give without being trained, at each of its views, and rank them."
    ),
    "race": Command("tuner.race", "Race the best configurations of a search over its other folds."),
    "vote": Command("analysis.ensemble", "Let the best trials of a search vote, and measure what the vote is worth."),
    "report": Command("analysis.report", "Write what a search found as one page that needs no network and no other file."),
    "predict": Command("analysis.predict", "Let an ensemble answer for images without labels."),
    "demo": Command("analysis.demo", "Show images or a camera to an ensemble, on a page in the browser; programs ask the same address."),
    "export": Command("analysis.export", "Write an ensemble as one ONNX file, or one trial's model."),
    "export-mlflow": Command(
        "analysis.export_mlflow", "Send a run to MLflow: trials with settings, curves and files, and the ensemble as a model that predicts."
    ),
    "export-wandb": Command(
        "analysis.export_wandb", "Write a run in the offline format of Weights & Biases: trials with settings, curves and files."
    ),
    "refit": Command("tuner.refit", "Train the best configurations of a search again: on every fold, on all data, with other seeds."),
    "distill": Command(
        "tuner.distill", "Train one network, the student, on what a vote answers: one model to ship, for a part of the vote's price."
    ),
    "soup": Command("analysis.soup", "Average the weights of similar trials into one network that costs at inference what one trial does."),
    "suspects": Command("analysis.suspects", "Find label issues (labels that are probably wrong), and decide on them one by one."),
    "mistakes": Command(
        "analysis.mistakes", "Show what the answer of a search gets wrong: confusions, the most confident errors, where members disagree."
    ),
    "advise": Command(
        "analysis.advise",
        "Say what would help most: twice the images, better labels, a wider search space, or images of some classes.",
    ),
    "leaks": Command("analysis.leaks", "Find leaks: images and groups that are in two splits of a run (train, validation, test)."),
    "replay": Command("tuner.replay", "Train a trial again, outside the search, and compare it epoch by epoch with its record."),
    "pretrain": Command("tuner.pretrain", "Train a backbone on images without labels, and write weights with which a search can start."),
    "note": Command("analysis.note", "Note a score from elsewhere, such as a leaderboard's, beside our own of the same answer."),
    "runs": Command("analysis.runs", "List the runs that there are: date, trials, best score, answer, size."),
    "spaces": Command("tuner.spaces", "List the spaces that come with the package, or print one of them."),
    "backbones": Command(
        "search_spaces.backbones",
        "List backbones by numbers: parameters, GFLOPs, MB, size and accuracy of their pre-training, and where their weights are.",
    ),
    "cache": Command(
        "trainables.cache", "List the decoded images in the cache, and what was copied from object stores, or remove some of it."
    ),
}


def program(module: str) -> str:
    """What one of our commands is called in its own help."""
    return f"sweepvote {os.environ[OURS]}" if OURS in os.environ else f"python -m {module}"


def launch(function: Callable[..., Any], module: str) -> None:
    """Make a command of a function, and run it."""
    import typer

    app = typer.Typer(add_completion=False)
    app.command()(function)
    app(prog_name=program(module))


def started(words: str) -> str:
    """The command line of a program that is installed beside us, such as `uv run ray get-auth-token`."""
    return f"uv run {words}" if UV in os.environ else words


def typed(words: str) -> str:
    """The command line of one of our modules, such as `uv run python -m tuner.run --resume faces` of `tuner.run --resume faces`.

    It is called as this command was: as `sweepvote resume faces`; else through uv, by Python's name where that is on the path, or its file.

    Args:
        words: the module and what follows it, names and paths quoted as a shell takes them.
    """
    if OURS in os.environ:
        return started(_through_ours(words))
    if UV in os.environ:
        return started(f"python -m {words}")
    found = Path(shutil.which("python") or "nowhere").absolute()
    here = Path(sys.executable).absolute()
    # An environment is its folder; the names in it, python and python3, are links to one file.
    same = found.parent == here.parent and found.resolve() == here.resolve()
    return f"{'python' if same else shlex.quote(sys.executable)} -m {words}"


def _through_ours(words: str) -> str:
    """`sweepvote resume faces` of `tuner.run --resume faces`."""
    name = max(
        (name for name, one in COMMANDS.items() if f"{words} ".startswith(f"{one.words} ")), key=lambda name: len(COMMANDS[name].words)
    )
    return f"sweepvote {name}{words.removeprefix(COMMANDS[name].words)}"
