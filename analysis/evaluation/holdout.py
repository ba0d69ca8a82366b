"""What the hold-out has been asked: the best of many answers looks better than it is, so each look is written down before it is shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainables.record import DAMAGE, read_json, write_json
from trainables.storage import Folder

FILE = "holdout.json"


def note_look(runs: Sequence[Folder], question: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Write down, in the folder of every run, what the hold-out is asked; returns all that any of these runs has asked it, oldest first.

    The same question again is the same look. The file is on disk when this returns.

    Args:
        question: settings by which the answer to it differs; plain values.
    """
    asked = [one for one in asked_before(runs) if one != question] + [dict(question)]
    for run in runs:
        write_json(run / FILE, {"questions": asked})
    return asked


def asked_before(runs: Sequence[Folder]) -> list[dict[str, Any]]:
    """Every different question that is written down in the runs, oldest first; a damaged file holds none.

    Earlier versions wrote them into the scores of the ensemble.
    """
    found: list[dict[str, Any]] = []
    for run in runs:
        for file, kind in ((run / "ensemble" / "scores.json", "scores"), (run / FILE, "holdout")):
            try:
                values = read_json(file, kind) if file.is_file() else {}
                found += [dict(one) for one in values.get("holdout", values).get("questions", [])]
            except DAMAGE:
                continue
    return [one for place, one in enumerate(found) if one not in found[:place]]
