"""How often the hold-out was used: the best of many answers is optimistically biased, so each use is recorded before it is shown."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from search_spaces.errors import UserError
from trainables.record import DAMAGE, list_folders, read_json, read_run, write_json
from trainables.storage import Folder

FILE = "holdout.json"


def note_look(runs: Sequence[Folder], question: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Write down, in the folder of every run, what their hold-out is asked; returns all that it has been asked, oldest first.

    The same question again is the same look. The file is on disk when this returns.

    Args:
        runs: of one split.
        question: settings by which the answer to it differs; plain values.
    """
    question = _plain(question)
    asked = [one for one in asked_before(runs) if one != question] + [question]
    for run in runs:
        write_json(run / FILE, {"questions": asked})
    return asked


def use_words(asked: Sequence[object]) -> str:
    """What to keep in mind after all that `note_look` returns; empty after a single look."""
    if len(asked) < 2:
        return ""
    return f"The hold-out has scored {len(asked)} different answers: the best of many is optimistically biased."


def asked_before(runs: Sequence[Folder]) -> list[dict[str, Any]]:
    """Every different question to the hold-out of these runs' split, oldest first, whichever run beside them was asked.

    A damaged file holds none. Earlier versions wrote them into the scores of the ensemble.
    """
    found: list[dict[str, Any]] = []
    for run in _of_one_split(runs):
        for file, kind in ((run / "ensemble" / "scores.json", "scores"), (run / FILE, "holdout")):
            try:
                values = read_json(file, kind) if file.is_file() else {}
                found += [_plain(one) for one in values.get("holdout", values).get("questions", [])]
            except DAMAGE:
                continue
    return [one for place, one in enumerate(found) if one not in found[:place]]


def _of_one_split(runs: Sequence[Folder]) -> Iterator[Folder]:
    """These runs, then those beside them that hold the same images out."""
    named = {run.resolve(): run for run in runs}
    yield from named.values()
    splits = {read_run(run).split for run in runs}
    for parent in dict.fromkeys(run.parent for run in named):
        for run in list_folders(parent):
            try:
                if run.resolve() not in named and (run / "run.json").is_file() and read_run(run).split in splits:
                    yield run
            except (UserError, *DAMAGE):
                continue


def _plain(question: Mapping[str, Any]) -> dict[str, Any]:
    """The question with its runs by name, in no order: who was asked first, and from which folder, changes no answer."""
    runs = question.get("runs")
    return dict(question) | ({"runs": sorted(PurePosixPath(run).name for run in runs)} if runs else {})
