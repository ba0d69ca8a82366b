"""`python -m search_spaces.describe`: every name that a space can give, as a page in Markdown.

The page is made from the settings themselves, so it cannot fall behind them: meanings, bounds and defaults from `TrialConfig` and
`RunSettings`, names from the registries. Nothing imports this module, which, as `backbones`, imports what trains and what tunes:
it explains names to people, and the spaces themselves stay plain data.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from search_spaces.schema import show

HEAD = """# What a space can say

Each name is a `section/field` of a YAML space, of `--set section/field=value`, and of every record, table and plot. A plain value is fixed;
`{choice: [...]}`, `{float: [low, high]}` and `{int: [low, high]}` are searched.

In most sections one name chooses an entry, such as `loss/name`, and the first table lists the settings of all entries. Settings of
only some entries are below, under their names; they are searched, or set, only where one of these is chosen. A space in which none of
them can be chosen is refused. Other conditions are written with `when:`, as in `{choice: [0.9, 0.99], when: {loss/alpha: effective}}`.

`extensions: [my_parts.py]` names Python files beside the space whose parts it may choose too: [extending.md](extending.md#your-own-parts).

The first trial of a search is its baseline: what one would have trained without searching, the first entry of `start:`. Where there is
none, every searched setting has the default of these tables if the space can draw it; else the first of some choices, or the middle of a
range, on its scale.

Made by `uv run python -m search_spaces.describe > docs/space.md`; the texts are beside the settings, where
[trainables/config.py](../trainables/config.py) finds them."""

OF_THE_RUN = {"epochs": "`run/epochs`", "metric": "`run/metric`", "seed": "`--seed`"}  # what a space does not give itself

Schema = Mapping[str, Any]


def main(
    check: Annotated[Path | None, typer.Option(help="Print nothing; exit with 1 where FILE is not this page.", metavar="FILE")] = None,
) -> None:
    """Print every name that a space can give: meaning, values, default.

    The page is Markdown: read it with a pager, or write it to a file:

    python -m search_spaces.describe > docs/space.md

    python -m search_spaces.describe --check docs/space.md
    """
    text = page()
    if check is None:
        print(text, end="")
    elif not check.is_file() or check.read_text(encoding="utf-8") != text:
        print(f"{check} differs from the settings; write it again: python -m search_spaces.describe > {check}", file=sys.stderr)
        raise typer.Exit(1)


def page() -> str:
    """The page: the tables of each section, in the order in which the settings are declared."""
    # pydantic and the registries take a moment that --help does not need.
    from trainables.config import CHOOSERS, REGISTRIES, SECTIONS, TrialConfig
    from trainables.metrics import BY_NAME
    from tuner.settings import RunSettings

    metrics = {"metric": _names(BY_NAME)}

    own = {name: field for name, field in TrialConfig.model_json_schema()["properties"].items() if name not in SECTIONS}
    parts = [HEAD, "## Top level", "Fields without a section.", _table(_rows("", own, metrics))]
    parts += ["## run", "How much to search; never searched itself.", _table(_rows("run/", _fields(RunSettings), metrics))]
    for name, shared in SECTIONS.items():
        if name not in CHOOSERS:
            parts += [f"## {name}", _about(shared), _table(_rows(f"{name}/", _fields(shared)))]
            continue
        table = REGISTRIES[f"{name}/{CHOOSERS[name]}"]
        parts += [f"## {name}", _about(shared), _table(_rows(f"{name}/", _fields(shared), {CHOOSERS[name]: _names(table)}))]
        entries: dict[type, list[str]] = {}
        for one, entry in table.items():
            entries.setdefault(entry.settings, []).append(one)
        for settings, names in entries.items():
            if settings is not shared:
                fields = {field: schema for field, schema in _fields(settings).items() if field not in shared.model_fields}
                parts += [f"### {', '.join(names)}", *filter(None, [_about(settings)]), _table(_rows(f"{name}/", fields))]
        if shared in entries:
            parts.append(f"No settings of their own: {_names(entries[shared])}.")
    return "\n\n".join(parts) + "\n"


def in_words(schema: Schema) -> str:
    """The values that a JSON schema allows, in words: `0 to 1`, `integer >= 1`, `a list, each > 0`."""
    if "enum" in schema:
        return _names(schema["enum"])
    match schema["type"]:
        case "number":
            return _bounds(schema) or "a number"
        case "integer":
            return " ".join(filter(None, ("integer", _bounds(schema))))
        case "boolean":
            return "true or false"
        case "array" if "prefixItems" in schema:
            return f"[{'; '.join(map(in_words, schema['prefixItems']))}]"
        case "array":
            return f"a list, each {in_words(schema['items'])}"
    return "text"


def _bounds(schema: Schema) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    begin = f"> {show(above)}" if above is not None else f">= {show(low)}" if low is not None else ""
    end = f"< {show(below)}" if below is not None else f"<= {show(high)}" if high is not None else ""
    if low is not None and high is not None:
        return f"{show(low)} to {show(high)}"
    return ", ".join(filter(None, (begin, end)))


def _fields(section: Any) -> dict[str, Schema]:
    return section.model_json_schema()["properties"]


def _about(section: Any) -> str:
    return " ".join((section.__doc__ or "").split())


def _rows(prefix: str, fields: Mapping[str, Schema], words: Mapping[str, str] | None = None) -> Iterator[tuple[str, ...]]:
    """(name, meaning, values, default) of each field; `words` for values that the schema does not know."""
    for name, field in fields.items():
        path = prefix + name
        values = (words or {}).get(name) or field.get("values") or in_words(field)
        yield path, field["description"], values, OF_THE_RUN.get(path) or _default(field)


def _names(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _default(field: Schema) -> str:
    if "default" not in field:
        return "required"
    return f"`{show(field['default'])}`" if field["default"] != "" else "empty"


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| name | meaning | values | default |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |" for name, *cells in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
