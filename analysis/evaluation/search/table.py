"""The trials of a run as a table: one row each, however it ended."""

import io
import json
from typing import TYPE_CHECKING, Any

from analysis.evaluation.search.reading import Search
from trainables.migrations import FIELD, FORMAT

if TYPE_CHECKING:
    import pandas as pd

# How a trial went, by column, in the words of Arrow.
OUTCOME = {
    "trial": "int64",
    "state": "string",
    "reason": "string",
    "score": "double",
    "best epoch": "int64",
    "epochs": "int64",
    "seconds": "double",
    "device": "string",
}


def trials_table(search: Search) -> "pd.DataFrame":
    """One row a trial, by number: state, reason, score on validation, its best epoch, epochs, seconds of training and validation, device.

    Settings that differ between trials follow, a column each by path (`loss/gamma`); lists in them are tuples. Settings that all trials
    share are in `attrs["shared"]`.
    """
    import pandas as pd

    table = pd.DataFrame(_outcomes(search), columns=list(OUTCOME))
    table = table.astype({"score": "float64", "best epoch": "Int64"}).set_index("trial")
    shared = {}
    for path in dict.fromkeys(path for trial in search.trials for path in trial.settings):
        values = [_plain(trial.settings.get(path)) for trial in search.trials]
        if len({repr(value) for value in values}) > 1:
            table[_column(path)] = pd.Series(values, index=table.index, dtype=None if all(map(_simple, values)) else object)
        else:
            shared[_column(path)] = values[0]
    table.attrs |= {"metric": search.metric.name, "shared": shared}
    return table


def trials_parquet(search: Search) -> bytes:
    """The same as a Parquet file, with every setting, the shared ones too.

    A setting that is a number, a text or true/false in every trial that has it is a column of that type; any other is text, as JSON.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    outcomes = _outcomes(search)
    columns = {name: pa.array([row[name] for row in outcomes], pa.type_for_alias(kind)) for name, kind in OUTCOME.items()}
    for path in dict.fromkeys(path for trial in search.trials for path in trial.settings):
        values = [trial.settings.get(path) for trial in search.trials]
        kinds = {type(value) for value in values if value is not None}
        if not (len(kinds) == 1 and kinds <= {bool, int, float, str}) and kinds != {int, float}:
            values = [None if value is None else json.dumps(value) for value in values]
        columns[_column(path)] = pa.array(values)
    notes = {"run": search.name, "metric": search.metric.name, FIELD: str(FORMAT)}
    stream = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(notes), stream)
    return stream.getvalue()


def _outcomes(search: Search) -> list[dict[str, Any]]:
    return [
        {
            "trial": trial.number,
            "state": trial.state,
            "reason": trial.reason,
            "score": trial.score,
            "best epoch": next((epoch for epoch, score in trial.curve if score == trial.score), None),
            "epochs": len(trial.curve),
            "seconds": trial.seconds,
            "device": trial.device,
        }
        for trial in search.trials
    ]


def _column(path: str) -> str:
    """Epochs that were planned are beside those that were trained, by the path that a space has for them: `run/epochs`."""
    return f"run/{path}" if path in OUTCOME else path


def _plain(value: object) -> object:
    return tuple(map(_plain, value)) if isinstance(value, list) else value


def _simple(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
