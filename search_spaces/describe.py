"""`python -m search_spaces.describe`: every name that a space can give, as a page in Markdown.

The page is made from the settings themselves, so it cannot fall behind them: meanings, bounds and defaults from `TrialConfig`, names from
the registries. Nothing imports this module, which alone in this package looks at `trainables`: it explains names to people, and the spaces
themselves stay plain data that knows nothing of training.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from search_spaces.schema import show

HEAD = """# What a space can say

Each name is a `section/field` of a YAML space, of `--set section/field=value`, and of every record, table and plot. A plain value is fixed;
`{choice: [...]}`, `{float: [low, high]}` and `{int: [low, high]}` are searched, with `when:` only where other values make them mean
something. Settings that only some choices use begin with the names of these choices; a space that draws one elsewhere is refused.

Made by `uv run python -m search_spaces.describe > docs/space.md`; change [trainables/config.py](../trainables/config.py) instead."""

# The section that says how much to search belongs to the tuner, which this package does not know.
RUN = {
    "trials": ("configurations to try", "whole, from 1", "20"),
    "epochs": ("of a trial that nothing stops", "whole, from 1", "10"),
    "metric": ("what trials and votes are chosen by", "a name in METRICS, as scikit-learn's scorers have it", "f1_macro"),
    "grace": ("epochs before a trial may be stopped", "whole, from 1, at most run/epochs", "1"),
    "reduction": ("one trial in this many goes on at each rung of ASHA", "above 1", "3.0"),
    "early_stopping": ("whether hopeless trials are stopped", "true or false", "true"),
    "keep_running": ("share of the trials that may not be stopped, which tells how far early scores can be trusted", "0 to 1", "0.05"),
    "keep": ("trials whose weights stay on disk, best first", "whole, from 1", "10"),
    "retries": ("of a trial whose process dies; one that gets on meanwhile has them all again", "whole, from 0", "2"),
}
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
        print(f"{check} is not what the settings say; write it anew: python -m search_spaces.describe > {check}", file=sys.stderr)
        raise typer.Exit(1)


def page() -> str:
    """The page: a table for each section, in the order in which the settings are declared."""
    # pydantic's schema and the registries bring torch along, which --help does not need.
    from trainables.config import UNIONS, TrialConfig
    from trainables.registries import REGISTRIES

    whole = TrialConfig.model_json_schema()
    own = {name: field for name, field in whole["properties"].items() if "$ref" not in field}
    parts = [HEAD, *_section("Top level", "Fields without a section.", _rows("", own, UNIONS, REGISTRIES))]
    parts += _section("run", "How much to search; never searched itself.", ((f"run/{name}", *words) for name, words in RUN.items()))
    for name, field in whole["properties"].items():
        if name not in own:
            section = whole["$defs"][field["$ref"].rpartition("/")[2]]
            parts += _section(name, section["description"], _rows(f"{name}/", section["properties"], UNIONS, REGISTRIES))
    return "\n\n".join(parts) + "\n"


def in_words(schema: Schema) -> str:
    """The values that a JSON schema allows, in words: `0 to 1`, `whole, from 1`, `a list of above 0`."""
    if "enum" in schema:
        return _names(schema["enum"])
    match schema["type"]:
        case "number":
            return _bounds(schema) or "a number"
        case "integer":
            return ", ".join(filter(None, ("whole", _bounds(schema))))
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
    begin = f"above {show(above)}" if above is not None else f"from {show(low)}" if low is not None else ""
    end = f"to below {show(below)}" if below is not None else f"to {show(high)}" if high is not None else ""
    if not (begin and end):
        return begin or end
    return f"{begin}, {end}" if above is not None else f"{begin} {end}".removeprefix("from ")


def _rows(
    prefix: str, fields: Mapping[str, Schema], unions: Mapping[str, str], registries: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, ...]]:
    for name, field in fields.items():
        path = prefix + name
        values = _names(registries[path]) if path in registries else unions.get(path) or in_words(field)
        yield path, field["description"], values, OF_THE_RUN.get(path) or _default(field)


def _names(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _default(field: Schema) -> str:
    if "default" not in field:
        return "must be given"
    return f"`{show(field['default'])}`" if field["default"] != "" else "empty"


def _section(title: str, about: str, rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = ["| name | meaning | values | default |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |" for name, *cells in rows]
    return [f"## {title}", about, "\n".join(lines)]


if __name__ == "__main__":
    typer.run(main)
