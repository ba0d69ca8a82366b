"""How a run stands, in one small document: for lists of runs, for programs, and for whoever opens its folder."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from analysis.evaluation.search.history import ranked
from analysis.evaluation.search.reading import STATES, Search, lenient, read_search
from analysis.evaluation.search.table import trials_parquet
from trainables.record import BASELINE, FINALISTS, SPLIT, read_json, write_json
from trainables.storage import UNWRITABLE, Folder, write_atomically

SUMMARY = "summary.json"
TABLE = "trials.parquet"


def summary_of(run: Folder) -> dict[str, Any]:
    """Trials by state, the best of them, what it gains over the baseline, and the answer, as plain values.

    Keys: name, folder, space, data, command, begun (local time; null in an object store), metric, direction, predicts, refit_of, trials
    (planned, and how many of each state), hours (of training, all trials one after the other), best (trial, score on validation, the
    searched settings), baseline (baseline.json), answer (what answers, its score on the hold-out with a 95 % CI, members, gain over the
    best single model), files, damaged. What is not there yet is null.
    Raises: RunError where run.json cannot be read.
    """
    return _summary(read_search(run))


def _summary(search: Search) -> dict[str, Any]:
    run, card, damaged = search.folder, search.card, list(search.damaged)
    best_first = ranked(search.trials, search.metric)
    baseline = lenient(run, BASELINE, lambda file: read_json(file, "baseline"), None, damaged)
    answer = lenient(run, "ensemble/scores.json", lambda file: answer_of(read_json(file, "scores")), None, damaged)
    files = {"ensemble": "ensemble", "report": "report/index.html", "finalists": FINALISTS}
    return {
        "name": search.name,
        "folder": str(run),
        "space": card.space,
        "data": card.data,
        "command": card.command,
        "begun": _begun(run),
        "metric": search.metric.name,
        "direction": search.metric.direction,
        "predicts": list(card.predicted.names),
        "refit_of": card.refit_of or None,
        "trials": {"planned": card.trials, **{state: sum(trial.state == state for trial in search.trials) for state in STATES}},
        "hours": sum(trial.seconds for trial in search.trials) / 3600,
        "best": {"trial": best_first[0].number, "score": best_first[0].score, "settings": best_first[0].values} if best_first else None,
        "baseline": baseline,
        "answer": answer,
        "files": {name: str(run / file) if (run / file).exists() else None for name, file in files.items()},
        "damaged": damaged,
    }


def write_summary(run: Folder) -> dict[str, Any]:
    """Write summary.json and trials.parquet again, and return the summary; where there is no room for them, whoever ended has said so."""
    search = read_search(run)
    summary = _summary(search)
    try:
        write_json(run / SUMMARY, summary)
        write_atomically(run / TABLE, trials_parquet(search))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
    return summary


def _begun(run: Folder) -> str | None:
    # Written once, when the run begins.
    file = run / SPLIT
    return datetime.fromtimestamp(file.stat().st_mtime).isoformat(timespec="seconds") if isinstance(file, Path) and file.is_file() else None


def answer_of(scores: Mapping[str, Any]) -> dict[str, Any]:
    """What answers and what it is worth, of what scores.json holds."""
    found = scores["answers"][scores["answer"]]
    return {
        "answer": scores["answer"],
        "score": found["score"],
        "interval": found["interval"],
        "members": [member["name"] for member in scores["members"]],
        "gain_over_best_single": {"gain": found["gain"], "interval": found["gain_interval"], "significant": found["distinguishable"]},
    }
