"""Writes a space as the YAML that reads as the same space: what a run keeps of it, whatever becomes of its files."""

from collections.abc import Sequence
from typing import Any

import yaml

from search_spaces.schema import Choice, Parameter, Space, nested


def space_text(space: Space, header: str = "", extensions: Sequence[str] = ()) -> str:
    """The space in YAML: extended, overlaid and changed as it was, so it needs no other file.

    Args:
        header: words for the top, each line of them a comment.
        extensions: the files that it needs, seen from where it will lie.
    """
    searched = {parameter.path: _spec(parameter) for parameter in space.parameters}
    values: dict[str, Any] = {"extensions": list(extensions)} if extensions else {}
    values |= {"run": dict(space.run)} if space.run else {}
    # Searched values first: their order is the order of drawing, and reading keeps it within and between sections.
    values |= nested(searched | space.fixed)
    if space.start:
        values["start"] = [nested(entry) for entry in space.start]
    comments = "".join(f"# {line}\n" for line in header.splitlines())
    return comments + yaml.safe_dump(_plain(values), sort_keys=False, default_flow_style=None, width=140, allow_unicode=True)


def _spec(parameter: Parameter) -> dict[str, Any]:
    domain = parameter.domain
    if isinstance(domain, Choice):
        spec: dict[str, Any] = {"choice": domain.values}
    else:
        spec = {type(domain).__name__.lower(): [domain.low, domain.high]}
        spec |= {"log": True} if domain.log else {}
        spec |= {"step": domain.step} if domain.step is not None else {}
    when = {name: allowed[0] if len(allowed) == 1 and not isinstance(allowed[0], list) else allowed for name, allowed in parameter.when}
    return spec | ({"when": when} if when else {})


def _plain(value: Any) -> Any:
    """Tuples as lists, and no object twice: YAML would write an anchor for it."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
