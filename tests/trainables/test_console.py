"""Whatever users name, prints as they wrote it, in every command and for every print that is added."""

import ast
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.progress import Progress
from rich.table import Table

from trainables.console import complain, open_console, output
from trainables.progress import progress_bar

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("search_spaces", "trainables", "tuner", "analysis", "benchmarks")
SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
NAMES = ["[bold]cats", "tags.csv:100:", "[/]", "[red]a[/red]", "a[0]", ":smiley:", "\\[b]", "[link=x]y"]
MARKUP = re.compile(r"\[(/[a-z ]*|(bold|b|dim|italic|underline|reverse|red|green|yellow|blue|magenta|cyan|white)( [a-z ]+)?)\]")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_prints_as_it_is_written_in_text_and_in_every_place_of_a_table(name):
    said = StringIO()
    console = open_console(file=said, width=100)
    console.print(f"line {name}")
    table = Table(title=f"title {name}", caption=f"caption {name}")
    table.add_column(f"head {name}", footer=f"foot {name}")
    table.show_footer = True
    table.add_row(f"cell {name}", style="bold")
    console.print(table)
    for place in ("line", "title", "head", "cell", "foot", "caption"):
        assert f"{place} {name}" in said.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_prints_as_it_is_written_in_an_error_and_a_result(name, capsys):
    complain(f"{name}: no such file")
    output().print(name)
    told = capsys.readouterr()
    assert told.err == f"{name}: no such file\n"
    assert told.out == f"{name}\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_shows_as_it_is_written_beside_a_progress_bar(name, monkeypatch):
    drawn = []
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setattr(Progress, "start", lambda bar: drawn.append(bar))
    monkeypatch.setattr(Progress, "stop", lambda bar: None)
    with progress_bar(f"decoding {name}", 3):
        (bar,) = drawn
    said = StringIO()
    open_console(file=said, width=100).print(bar.get_renderable())
    assert f"decoding {name}" in said.getvalue()


# Every print there is and will be


def nodes(file: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(file.read_text())))


def docstrings(tree: list[ast.AST]) -> set[int]:
    """The ids of the docstrings: the help of a command is markup of its own."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = [node.body[0] for node in tree if isinstance(node, owners) and node.body]
    return {id(one.value) for one in first if isinstance(one, ast.Expr)}


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_print_takes_a_name_for_markup(file):
    tree = nodes(file)
    helps = docstrings(tree)
    mistakes = []
    for node in tree:
        if isinstance(node, ast.ImportFrom) and node.module in ("rich.markup", "rich.emoji"):
            mistakes.append(f"{node.lineno}: text needs no escaping, consoles print it as it is")
        if isinstance(node, ast.ImportFrom) and node.module == "rich" and {one.name for one in node.names} & {"print", "get_console"}:
            mistakes.append(f"{node.lineno}: rich's own console reads markup; take trainables.console")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in helps and MARKUP.search(node.value):
            mistakes.append(f"{node.lineno}: {node.value!r} holds markup; give style=, or Text.assemble")
        if not isinstance(node, ast.Call):
            continue
        given = {one.arg: getattr(one.value, "value", None) for one in node.keywords}
        if called(node) == "Console" and file.name != "console.py":
            mistakes.append(f"{node.lineno}: take open_console, output or complain of trainables.console")
        if called(node) == "from_markup" or given.get("markup") is True or given.get("emoji") is True:
            mistakes.append(f"{node.lineno}: reads markup")
        if called(node) == "TextColumn" and given.get("markup") is not False:
            mistakes.append(f"{node.lineno}: a TextColumn reads markup unless markup=False")
    assert not mistakes, "\n".join(mistakes)
