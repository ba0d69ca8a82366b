"""What a stranger's images meet first: options that say how they are read, what is told of them, what is refused with exit code 2."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from search_spaces.read import read_space
from search_spaces.schema import Space
from trainables.data.settings import BEFORE
from tuner import run as command
from tuner import searching
from tuner.runs import Earlier, explicit, with_data_of

app = typer.Typer()
app.command()(command.run)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(*names: str) -> None:
    for index, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (index % 256, 90, 200)).save(name)


def table(*rows: str, name: str = "photos.csv") -> None:
    Path(name).write_text("\n".join(rows) + "\n")


def call(space: Path, *words: str):
    return CliRunner().invoke(app, ["--space", str(space), "--dry-run", *words])


def missing() -> None:
    draw(*(f"{index}.jpg" for index in range(10)))
    table("image,label", *(f"{index}.jpg,{'xy'[index % 2]}" for index in range(20)))


def twice() -> None:
    draw("a.jpg", "b.jpg")
    table("image,label", "a.jpg,x", "b.jpg,y", "a.jpg,y")


def rows(*lines: str):
    def make() -> None:
        draw("a.jpg", "b.jpg", "c.jpg", "d.jpg")
        table(*lines)

    return make


FOUR = ("a.jpg,x", "b.jpg,y", "c.jpg,x", "d.jpg,y")
BAD = {
    "a missing column": (rows("image,label", *FOUR), ["--target", "breed"], ["photos.csv", "breed", "label"]),
    "a missing group": (rows("image,label", *FOUR), ["--group", "patient"], ["photos.csv", "patient", "label"]),
    "missing files": (missing, [], ["photos.csv", "10 of 20", "'10.jpg'", "'14.jpg'"]),
    "two labels for one image": (twice, [], ["photos.csv:4", "photos.csv:2", "'x'", "'y'"]),
    "an empty table": (rows("image,label"), [], ["photos.csv"]),
    "a number that is text": (rows("image,age", "a.jpg,3", "b.jpg,old"), ["--number", "age"], ["photos.csv:3", "'old'"]),
    "an unknown word for a part": (
        rows("image,label,split", "a.jpg,x,train", "b.jpg,y,later"),
        [],
        ["photos.csv", "'later'", "data/split"],
    ),
    "images that are all elsewhere": (rows("image,label", "x/1.jpg,x", "x/2.jpg,y"), [], ["photos.csv", "x/1.jpg", "data/images"]),
    "no target": (rows("image,kind,size", *(f"{row},{row[-1]}" for row in FOUR)), [], ["photos.csv", "--target kind"]),
    "a layout that does not exist": (rows("image,label", *FOUR), ["--layout", "rows"], ["'rows'", "class_folders"]),
    "too few images": (rows("image,label", *FOUR[:2]), [], ["2 groups"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_code_2_and_says_what_where(here, tiny_space, case):
    make, words, said = BAD[case]
    make()
    result = call(tiny_space, "--data", "photos.csv", *words)
    assert result.exit_code == 2 and "Traceback" not in result.output + result.stderr
    assert all(piece in result.stderr for piece in said), result.stderr
    assert not list(here.glob("runs/*"))


@pytest.fixture
def asked(monkeypatch) -> SimpleNamespace:
    """What the command asks a search for, which does not begin."""
    found = SimpleNamespace(options=None)

    def search(options, console, start):
        found.options = options
        return 0

    monkeypatch.setattr(searching, "search", search)
    return found


@pytest.mark.parametrize("name", ["01", "no", "a: b", "*", "a,b", "it's", "[x]"])
def test_options_of_data_are_settings_and_names_are_text(asked, tiny_space, name):
    options = ["--target", name, "--group", name, "--tags", name, "--number", name, "--layout", name, "--label-pattern", name]
    assert call(tiny_space, *options).exit_code == 0
    fixed = read_space(str(tiny_space), changes=asked.options.changes).fixed
    assert [fixed[f"data/{field}"] for field in ("target", "group", "tags", "number", "layout", "label_pattern")] == [name] * 6


def test_files_that_a_shell_made_of_a_pattern_are_their_folder(asked, here, tiny_space):
    for name in ("a", "b", "c"):
        (here / f"{name}.parquet").touch()
    assert call(tiny_space, "--data", "a.parquet", "b.parquet", "c.parquet").exit_code == 0
    assert asked.options.data == "."
    result = call(tiny_space, "--data", "a.parquet", "b.parquet")
    assert result.exit_code == 2


def test_what_was_understood_is_reported_before_anything_is_decoded_and_a_sheet_of_examples_is_drawn(here, tiny_space):
    draw(*(f"set/{part}/{name}/{index}.jpg" for part in ("train", "val") for name in ("ant", "bee") for index in range(24)))
    draw("set/test/t1.jpg", "set/test/t2.jpg")
    result = call(tiny_space, "--data", "set")
    assert result.exit_code == 0, result.output + result.stderr
    before, _, after = result.output.partition("Decoding")
    for words in (
        "96 images",
        "class (2 classes): ant 48, bee 48",
        "48 train, 48 validation",
        "2 images without labels",
        "data/split=val=test",
    ):
        assert words in before
    sheet = next(line for line in after.splitlines() if line.endswith(".png")).split(": ")[1]
    assert Image.open(sheet).width > 100


# Runs from before these settings


def space_of(fixed: dict) -> Space:
    return Space(name="space", file="space.yaml", run={}, fixed=fixed, parameters=(), start=(), places={})


def earlier(fixed: dict) -> Earlier:
    return Earlier(Path("runs/old"), SimpleNamespace(cuts=()), space_of(fixed))


def test_a_run_keeps_how_its_data_is_read_and_one_from_before_there_was_a_choice_reads_it_as_then():
    edited = space_of({"view/size": 64})
    old = {f"data/{name}": value for name, value in BEFORE.items()}
    assert with_data_of(edited, earlier(old)).fixed == old | {"view/size": 64}
    new = {path: value for path, value in explicit(edited).fixed.items() if path in old}
    assert new == {"data/target": [], "data/folders": "", "data/split": ""}
    assert with_data_of(edited, earlier(new)).fixed == new | {"view/size": 64}
