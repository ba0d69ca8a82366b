"""The trials of a run as a table: one row each, however it ended."""

from typing import TYPE_CHECKING

from analysis.evaluation.search.reading import Search

if TYPE_CHECKING:
    import pandas as pd


def trials_table(search: Search) -> "pd.DataFrame":
    """One row a trial, by number: state, reason, score on validation, its best epoch, epochs, seconds of training and validation, device.

    Settings that differ between trials follow, a column each by path (`loss/gamma`); lists in them are tuples. Settings that all trials
    share are in `attrs["shared"]`.
    """
    import pandas as pd

    rows = []
    for trial in search.trials:
        best = next((epoch for epoch, score in trial.curve if score == trial.score), None)
        rows.append(
            {
                "trial": trial.number,
                "state": trial.state,
                "reason": trial.reason,
                "score": trial.score,
                "best epoch": best,
                "epochs": len(trial.curve),
                "seconds": trial.seconds,
                "device": trial.device,
            }
        )
    table = pd.DataFrame(rows, columns=["trial", "state", "reason", "score", "best epoch", "epochs", "seconds", "device"])
    table = table.astype({"score": "float64", "best epoch": "Int64"}).set_index("trial")
    shared = {}
    for path in dict.fromkeys(path for trial in search.trials for path in trial.settings):
        values = [_plain(trial.settings.get(path)) for trial in search.trials]
        if len({repr(value) for value in values}) > 1:
            table[path] = pd.Series(values, index=table.index, dtype=None if all(map(_simple, values)) else object)
        else:
            shared[path] = values[0]
    table.attrs |= {"metric": search.metric.name, "shared": shared}
    return table


def _plain(value: object) -> object:
    return tuple(map(_plain, value)) if isinstance(value, list) else value


def _simple(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
