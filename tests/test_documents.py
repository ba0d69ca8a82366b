"""What README and docs tell to type: commands have these options, spaces can be read, Python runs."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
import yaml

import sweepvote
from search_spaces.read import read_space
from search_spaces.schema import flat
from tests.conftest import ROOT, already
from trainables.commands import COMMANDS
from trainables.config import choosers, setting_paths

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(kind: str, pages: list[Path] = PAGES) -> list:
    found = [(page, text) for page in pages for name, text in BLOCK.findall(page.read_text()) if name == kind]
    return [pytest.param(text, id=f"{page.name}-{number}") for number, (page, text) in enumerate(found)]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Page, and the words of each command of ours in it."""
    for page in PAGES:
        text = page.read_text()
        shown = [line for kind, block in BLOCK.findall(text) if not kind for line in block.splitlines()]
        for line in [*shown, *re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))]:
            words = shlex.split(line, comments=True) if line.count("'") % 2 == 0 else line.split()
            words = words[2:] if words[:2] == ["uv", "run"] else words
            words = words[: words.index(">")] if ">" in words else words
            ours = words[:1] == ["sweepvote"] or (words[:2] == ["python", "-m"] and "." in words[2])
            if ours and not {"NAME", "COMMAND", "MODULE"} & {*words}:
                yield page.name, words


def parsed(words: list[str]) -> None:
    """Raises: click's error for an option or argument that the command does not have."""
    if words[0] == "sweepvote":
        if words[1].startswith("--"):
            return
        words = [*COMMANDS[words[1]].words.split(), *words[2:]]
    else:
        words = words[2:]
    module, *given = words
    package = (ROOT / module.replace(".", "/")).is_dir()
    found = import_module(f"{module}.__main__" if package else module)
    app = getattr(found, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command()(getattr(found, "run", None) or found.main)
    if given != ["--help"]:
        typer.main.get_command(app).make_context(module, list(given))


@pytest.mark.parametrize("page, words", [pytest.param(*one, id=f"{one[0]}: {' '.join(one[1])}") for one in commands()])
def test_a_command_has_the_options_that_it_is_shown_with(page, words):
    parsed(words)


@pytest.mark.parametrize("words, wrong", [("sweepvote search --spaec effnet.yaml", "--spaec"), ("sweepvote serch", "serch")])
def test_a_misspelt_one_would_be_found(words, wrong):
    with pytest.raises(Exception, match=wrong):
        parsed(words.split())


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_space_that_is_shown_can_be_read(text):
    space = {"extends": "quickstart.yaml"} | yaml.safe_load(text)
    if "extensions" not in space:
        found = read_space(space, choosers=choosers())
        assert {*found.fixed, *(one.path for one in found.parameters)} <= {*setting_paths()}
        assert not {path for entry in space.get("start", []) for path in flat(entry)} - {*setting_paths()}


@contextmanager
def small_searches(ray_cluster) -> Iterator[SimpleNamespace]:
    """The package with searches of two trials in place of long ones."""
    changes = {"run/epochs": 2, "run/grace": 1, "run/probe": False}

    def search(space, data=None, **options):
        name = options.get("name") or Path(data or "demo").name
        return sweepvote.search("quickstart", trials=2, name=name, finalists=0, answer=False, changes=changes)

    @contextmanager
    def joined(address, *, dashboard):
        yield already(ray_cluster)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sweepvote.run.ray_starter", joined)
        names = {name: getattr(sweepvote, name) for name in sweepvote.__all__}
        yield SimpleNamespace(**names | {"search": search})


@pytest.mark.nightly
@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_python_that_is_shown_runs(page, ray_cluster, demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").write_bytes(next((demo / "eval" / "images").iterdir()).read_bytes())
    text = "\n".join(text for kind, text in BLOCK.findall((ROOT / page).read_text()) if kind == "python")
    with small_searches(ray_cluster) as small:
        exec(compile(text.replace("import sweepvote as sv", "").replace('"+20"', '"+1"'), page, "exec"), {"sv": small})
    assert list(Path("runs").glob("*/ensemble/scores.json"))


@pytest.mark.nightly
def test_a_notebook_searches_votes_and_predicts_with_a_table_that_changes(demo, tmp_path, monkeypatch):
    """In a kernel of its own, as in Jupyter."""
    import nbformat
    from nbclient import NotebookClient

    image = next((demo / "eval" / "images").iterdir())
    first = next(text for kind, text in BLOCK.findall((ROOT / "docs" / "python.md").read_text()) if kind == "python")
    cells = [first.partition("\n\n")[0], *first.partition("\n\n")[2].replace('"a.jpg"', repr(str(image))).split("\n\n")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("widget-view" in str(output.get("data", "")) for output in outputs), "the live table"
    assert "probability" in str(notebook.cells[-1]["outputs"][-1])


def test_the_readme_is_short_enough_to_be_read():
    text = re.sub(r"<[^>]+>", "", (ROOT / "README.md").read_text())
    assert len(text.split()) <= 1200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page.read_text())
    gone = [link for pair in links for link in pair if link and "://" not in link and not (page.parent / link).exists()]
    assert not gone
