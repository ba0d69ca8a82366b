"""Names of classes, files and runs that look like rich's markup, through a whole command."""

import shlex
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import already
from trainables.console import open_console
from trainables.metrics import DEFAULT, METRICS
from tuner.board import Board, Row
from tuner.cli import Options
from tuner.run import run
from tuner.searching import search

RUN = "[bold]run :100:"
CLASSES = ("[red]cats", ":smiley:")
SPACE = """
run: {trials: 1, epochs: 1}
data: {holdout: 0.2, folds: 2}
view: {size: 32}
model: {backbone: {choice: [test_resnet]}, weights: none}
optimizer: {lr: 0.003}
train: {batch_size: 8}
"""

app = typer.Typer()
app.command()(run)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder for each class, and in one a file that is no image."""
    rng = np.random.default_rng(0)
    for label in CLASSES:
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(rng.integers(0, 255, (36, 36, 3), dtype=np.uint8)).save(tmp_path / "data" / label / f"{number}.jpg")
    (tmp_path / "data" / CLASSES[0] / "[dim]:100:.jpg").write_bytes(b"no image")
    return tmp_path / "data"


@pytest.mark.nightly
def test_a_search_says_names_as_they_are_written(folder, tmp_path, monkeypatch, ray_cluster):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[b]:100:.yaml").write_text(SPACE)
    said = StringIO()
    options = Options(space="[b]:100:.yaml", data=folder, name=RUN)
    assert search(options, open_console(file=said, width=200), already(ray_cluster)) == 0
    words = said.getvalue()
    assert words.startswith("[b]:100:")
    assert f"{CLASSES[0]}/[dim]:100:.jpg" in words
    assert f"Records: runs/{RUN}" in words
    assert f"Best trials of {RUN}" in words
    assert f"--run {shlex.quote(RUN)}" in words


def test_the_live_table_shows_names_as_they_are_written():
    said = StringIO()
    board = Board(1, 1, targets="[bold]age", metric=METRICS[DEFAULT], rows={0: Row(0, "backbone=[red]x:100:")}, notes=["[dim]note:100:"])
    open_console(file=said, width=120).print(board)
    for name in ("[bold]age", "backbone=[red]x:100:", "[dim]note:100:"):
        assert name in said.getvalue()


def test_an_error_names_a_file_as_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "[bold]space:100:.yaml"
    Path(name).write_text("loss: {gama: 2}\n")
    done = CliRunner().invoke(app, ["--space", name, "--dry-run"])
    assert done.exit_code == 2 and f"{name}:1" in done.stderr
