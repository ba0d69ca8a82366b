"""Looking before searching: one page, from whatever data options say, or of a run."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from analysis.evaluation.look.facts import read_facts
from tuner.look import main

app = typer.Typer()
app.command()(main)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with photos.csv: 24 images, two targets, a number, patients; one image is damaged, two are copies of other labels."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = ["file,animal,Sex,age,patient"]
    for number in range(24):
        Image.fromarray(rng.integers(255, size=(8, 8, 3), dtype=np.uint8)).resize((64, 48)).save(f"{number}.png")
        rows.append(f"{number}.png,{'cat' if number % 2 else 'dog'},{'FM'[number // 2 % 2]},{20 + number},p{number // 2}")
    Path("5.png").write_bytes(Path("2.png").read_bytes())
    Path("7.png").write_bytes(b"no image")
    Path("photos.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def look(*words: str):
    return CliRunner().invoke(app, [*words])


def test_one_page_shows_counts_examples_and_what_looks_odd(here):
    done = look("--data", "photos.csv", "--target", "animal,Sex", "--number", "age", "--group", "patient", "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    told = {one["kind"]: one for one in answer["findings"]}
    assert told["unreadable"]["names"][0].startswith("7.png") and "2.png = 5.png" in told["identical with different labels"]["names"][0]
    assert (answer["images"], answer["groups"], answer["read"]) == (24, 12, 23)
    page = Path("look/photos/index.html").read_text()
    assert page.count("data:image/jpeg") >= 4 + 2 and "cannot be read" in page
    assert "a random sample" not in page, "all were asked; one is damaged"
    assert read_facts(Path("look/photos/look.json")).images == 24
    assert Path("look/photos/pairs.csv").read_text().count("\n") == 2


def test_of_many_images_a_sample_is_read_and_the_page_says_so(here):
    assert look("--data", "photos.csv", "--target", "animal", "--most", "10", "--out", "seen").exit_code == 0
    facts = read_facts(Path("seen/look.json"))
    assert facts.read <= 10 and f"{facts.read} of 24 images were read" in Path("seen/index.html").read_text()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", "photos.csv", "--target", "breed"], "breed"),
        (["--data", "photos.csv", "--set", "data/tagret=animal"], "data/tagret"),
        (["--data", "photos.csv", "--set", "data/folds=1"], "data/folds"),
        (["--data", "photos.csv", "--set", "loss/gamma=2"], "loss/gamma"),
        (["--run", "faces"], "faces"),
    ],
)
def test_mistakes_are_refused_by_name_and_nothing_is_written(here, words, named):
    done = look(*words)
    assert done.exit_code == 2 and named in done.output + done.stderr and "Traceback" not in done.output
    assert not Path("look").exists()
