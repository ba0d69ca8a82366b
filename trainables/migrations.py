"""The format of the files of a run, and the steps that bring those of earlier versions up to it.

Every JSON file has `"format"`; one without it is of format 1. A step takes the values of one kind of file from one format to the
next. A renamed field raises FORMAT and needs a step; an added one needs none, since reading gives a missing field its default, and a
removed one is kept aside when it is read.

Kinds: run (run.json), config (config.json and the settings in a file of weights), report (a line of reports.jsonl), result, decisions
(rungs.json), fidelity, ensemble, scores, holdout, kept, priced, elsewhere, source.
"""

from collections.abc import Callable, Mapping
from typing import Any

from search_spaces.errors import UserError

FORMAT = 2
FIELD = "format"

Step = Callable[[Any], Any]


class NewerFormatError(UserError):
    """A file that a newer version wrote. Not a ValueError: the file is intact, and must not be treated as damaged."""


def stamped(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they are written, with today's format."""
    return {FIELD: FORMAT, **values}


def migrated(kind: str, values: Any, file: object) -> dict[str, Any]:
    """The values of a file in today's format, without the number of it.

    Args:
        kind: of file, see above.
        values: what its JSON holds, of any format; they are not changed.
        file: where they are from, for the message.
    Raises: NewerFormatError; ValueError for a format that is none, and for values that are not of that kind.
    """
    found = 1
    if isinstance(values, dict):
        values = dict(values)
        found = values.pop(FIELD, 1)
    if not isinstance(found, int) or found < 1:
        raise ValueError(f"its format is {found!r}")
    if found > FORMAT:
        raise NewerFormatError(
            f"{file} was written by a newer version of sweepvote: its format is {found}, and this version reads formats up to {FORMAT}. "
            "Update sweepvote, or leave this run out"
        )
    try:
        for number in range(found, FORMAT):
            values = STEPS.get((number, kind), _unchanged)(values)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"it is not a {kind} file of format {found} ({type(error).__name__}: {error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"it holds {values!r}, not names and values")
    return values


def renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The values with some keys under other names, in their old order."""
    return {names.get(name, name): value for name, value in values.items()}


def _unchanged(values: Any) -> Any:
    return values


# Format 1 knew one metric, and named its fields for it.
METRIC_OF_1 = {"macro_f1": "score", "attribute_f1": "target_scores", "valid_macro_f1": "valid_score", "holdout_macro_f1": "holdout_score"}


def _run_of_1(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "metric": "f1_macro"}


def _report_of_1(values: Mapping[str, Any]) -> dict[str, Any]:
    return renamed(values, METRIC_OF_1)


def _decisions_of_1(values: list[Any]) -> dict[str, Any]:
    return {"decisions": values}


def _fidelity_of_1(values: list[Any]) -> dict[str, Any]:
    return {"rungs": values}


def _scores_of_1(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _scores_of_1(value) for name, value in renamed(values, METRIC_OF_1).items()}
    return [_scores_of_1(value) for value in values] if isinstance(values, list) else values


def _ensemble_of_1(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "version"}


STEPS: dict[tuple[int, str], Step] = {  # by the format that they start from, and the kind
    (1, "run"): _run_of_1,
    (1, "report"): _report_of_1,
    (1, "decisions"): _decisions_of_1,
    (1, "fidelity"): _fidelity_of_1,
    (1, "scores"): _scores_of_1,
    (1, "ensemble"): _ensemble_of_1,
}
