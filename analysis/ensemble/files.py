"""What the command leaves in runs/<run>/ensemble/; every file is whole or absent."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.ensemble.figure import as_png, confusion_figure
from analysis.ensemble.outcome import Outcome
from analysis.ensemble.scoring import absent_classes, class_table
from analysis.trials import Runs, Trial
from trainables.data.photos import LeftOut, Unlabelled
from trainables.metrics import confusion
from trainables.record import write_json
from trainables.storage import Folder, write_whole
from trainables.versions import versions

SUBMISSION = ("submission.csv", "probabilities.csv")


def write_outcome(folder: Folder, runs: Runs, outcome: Outcome, settings: Mapping[str, Any], black: Sequence[LeftOut] = ()) -> list[Folder]:
    """Write the scores, the confusion matrix, the classes and the members of the chosen vote; `black` are eval photos that
    could not be decoded.

    A submission of an earlier ensemble is removed: it would not be of these members.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in SUBMISSION:
        (folder / name).unlink(missing_ok=True)
    answer, scheme, holdout = outcome.answers[outcome.vote], outcome.scheme, runs.holdout
    score = outcome.scores[outcome.vote]
    low, high = score.interval
    figure = confusion_figure(
        confusion(holdout.classes(scheme), answer.argmax(axis=1), scheme.classes),
        scheme,
        f"Hold-out: {outcome.vote} vote of {len(outcome.members)}",
        f"macro F1 {score.macro_f1:.3f} (95 % {low:.3f} to {high:.3f}) · {len(holdout.ids):,} photos of {count_people(runs):,} people",
    )
    write_json(folder / "scores.json", scores_values(runs, outcome, settings, black))
    write_json(folder / "members.json", member_values(runs, outcome))
    _write_table(folder / "per_class.csv", class_table(answer, holdout, scheme))
    write_whole(folder / "confusion.png", as_png(figure))
    return [folder / name for name in ("scores.json", "members.json", "per_class.csv", "confusion.png")]


def write_submission(folder: Folder, photos: Unlabelled, answer: np.ndarray, class_names: list[str]) -> list[Folder]:
    """Write the class of every photo and the scores (photos, classes) behind it, in the photos' order."""
    submission, probabilities = (folder / name for name in SUBMISSION)
    _write_table(submission, pd.DataFrame({"ImageID": photos.ids, "ans": answer.argmax(axis=1)}))
    table = pd.DataFrame(answer, columns=class_names)
    table.insert(0, "ImageID", photos.ids)
    _write_table(probabilities, table)
    return [submission, probabilities]


def scores_values(runs: Runs, outcome: Outcome, settings: Mapping[str, Any], black: Sequence[LeftOut]) -> dict[str, Any]:
    """Everything that is printed, with the settings and versions that made it, as plain values."""
    absent = absent_classes(runs.holdout, outcome.scheme)
    return {
        "settings": dict(settings),
        "runs": [str(folder) for folder in runs.folders],
        "split": runs.cards[0].split,
        "attributes": list(outcome.scheme.names),
        "holdout": {"photos": len(runs.holdout.ids), "people": count_people(runs), "absent_classes": absent},
        "members": [
            {
                "trials": [_trial_values(trial) for trial in member.trials],
                "valid_macro_f1": member.score,
                "holdout_macro_f1": score,
            }
            for member, score in zip(outcome.members, outcome.member_scores, strict=True)
        ],
        "vote": outcome.vote,
        "valid_macro_f1": outcome.choice.scores,
        "answers": {name: asdict(score) | {"distinguishable": score.distinguishable} for name, score in outcome.scores.items()},
        "left_out": [str(item) for item in (*runs.left_out, *black)],
        "versions": versions(),
    }


def member_values(runs: Runs, outcome: Outcome) -> dict[str, Any]:
    """What is needed to predict again: the vote, the classes and each member's models, by their paths from the runs' folder.

    Models in an object store have their address.
    """
    root = runs.folders[0].resolve().parent
    return {
        "vote": outcome.vote,
        "attributes": [attribute.plain() for attribute in outcome.scheme.attributes],
        "members": [[_location(trial.model, root) for trial in member.trials] for member in outcome.members],
    }


def _location(model: Folder, root: Folder) -> str:
    return os.path.relpath(model.resolve(), root) if isinstance(model, Path) and isinstance(root, Path) else str(model.resolve())


def count_people(runs: Runs) -> int:
    """People held out."""
    return len(np.unique(runs.holdout.people))


def _trial_values(trial: Trial) -> dict[str, Any]:
    return {"run": trial.run, "number": trial.record.number, "state": trial.record.result.state, "config": trial.record.config.values()}


def _write_table(file: Folder, table: pd.DataFrame) -> None:
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, float_format="%.6g")
    write_whole(file, buffer.getvalue().encode())
