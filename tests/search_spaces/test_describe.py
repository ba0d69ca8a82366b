import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from search_spaces.describe import in_words, main, page
from search_spaces.schema import show
from trainables.config import REGISTRIES, setting_paths, settings_of
from tuner.settings import RunSettings

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "space.md"


def rows() -> dict[str, list[str]]:
    """The cells of every table of the page, by the name in the first."""
    return {
        line.split("`")[1]: [cell.strip() for cell in line.strip("|").split("|")][1:]
        for line in page().splitlines()
        if line.startswith("| `")
    }


def tables() -> dict[str, dict[str, list[str]]]:
    """The names in each table, by section (`## loss`) and entries (`### arcface, cosface, ldam`), "" for the section's own table."""
    found: dict[str, dict[str, list[str]]] = {}
    section = entries = ""
    for line in page().splitlines():
        if line.startswith("## "):
            section, entries = line.removeprefix("## "), ""
        elif line.startswith("### "):
            entries = line.removeprefix("### ")
        elif line.startswith("| `"):
            found.setdefault(section, {}).setdefault(entries, []).append(line.split("`")[1])
    return found


def command(*words: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "search_spaces.describe", *map(str, words)], cwd=ROOT, capture_output=True, text=True)


def test_the_shipped_page_is_what_the_settings_say():
    assert PAGE.read_text() == page(), "python -m search_spaces.describe > docs/space.md"


def test_every_setting_stands_on_the_page():
    assert set(rows()) == {*setting_paths(), *(f"run/{name}" for name in RunSettings.model_fields)}
    assert all(len(cells) == 3 for cells in rows().values())


@pytest.mark.parametrize("path", REGISTRIES)
def test_an_entry_has_a_table_of_its_own_settings_and_one_without_is_listed(path):
    section = path.partition("/")[0]
    shared, found = tables()[section].pop(""), tables()[section]
    own = {name: paths for names, paths in found.items() if names for name in names.split(", ")}
    for name in REGISTRIES[path]:
        every = [f"{section}/{field}" for field in settings_of(section, name)]
        assert sorted(shared + own.get(name, [])) == sorted(every) and not set(shared) & set(own.get(name, []))
        listed = [line for line in page().splitlines() if line.startswith("No settings of their own") and f"`{name}`" in line]
        assert bool(listed) or name in own


def test_every_setting_has_a_meaning():
    assert all(meaning for meaning, *_ in rows().values())


@pytest.mark.parametrize("path", REGISTRIES)
def test_every_name_in_a_registry_stands_beside_its_setting(path):
    assert rows()[path][1] == ", ".join(f"`{name}`" for name in REGISTRIES[path])


def test_what_the_page_says_of_the_run_is_what_the_tuner_takes():
    for name, field in RunSettings.model_fields.items():
        assert rows()[f"run/{name}"][::2] == [field.description, f"`{show(field.default)}`"]


def test_the_page_names_no_rows_of_reports():
    assert not re.search(r"S[0-4]-\d|report 00", page())


def test_a_default_on_the_page_is_the_settings_own():
    found = rows()
    assert found["loss/gamma"][2] == "`2.0`"
    assert found["data/folds"][2] == "`5`" and found["data/cuts"][2] == "`[]`"
    assert found["model/second"][2] == "empty"
    assert found["optimizer/lr"][2] == found["model/backbone"][2] == "required"
    assert (found["epochs"][2], found["seed"][2]) == ("`run/epochs`", "`--seed`")


@pytest.mark.parametrize(
    "schema, words",
    [
        ({"type": "number", "minimum": 0, "maximum": 1}, "0 to 1"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, ">= 0, < 1"),
        ({"type": "number", "exclusiveMinimum": 0}, "> 0"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "> 0, <= 1"),
        ({"type": "number", "minimum": 0}, ">= 0"),
        ({"type": "number", "maximum": 0.5}, "<= 0.5"),
        ({"type": "number"}, "a number"),
        ({"type": "integer", "minimum": 1}, "integer >= 1"),
        ({"type": "integer"}, "integer"),
        ({"type": "boolean"}, "true or false"),
        ({"type": "string"}, "text"),
        ({"type": "string", "enum": ["none", "mix"]}, "`none`, `mix`"),
        ({"type": "array", "items": {"type": "integer", "minimum": 1}}, "a list, each integer >= 1"),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "number"}]}, "[integer; a number]"),
    ],
)
def test_bounds_are_named_in_words(schema, words):
    assert in_words(schema) == words


def test_the_command_prints_the_page():
    told = command()
    assert (told.returncode, told.stdout, told.stderr) == (0, page(), "")


def test_the_command_reports_a_page_that_fell_behind(tmp_path, capsys):
    file = tmp_path / "space.md"
    file.write_text(page())
    main(check=file)
    assert capsys.readouterr() == ("", "")
    file.write_text(page().replace("loss/gamma", "loss/gama"))
    for behind in (file, tmp_path / "nowhere.md"):
        with pytest.raises(typer.Exit) as left:
            main(check=behind)
        assert left.value.exit_code == 1
        assert f"python -m search_spaces.describe > {behind}" in capsys.readouterr().err


def test_help_teaches_how_to_write_the_page():
    told = command("--help").stdout
    assert "python -m search_spaces.describe > docs/space.md" in told and "--check" in told
