"""Faces with drawn masks as a table that data/extra takes: labels, groups, what is left out, and what is refused."""

import csv
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from tests.trainables.data.test_drawn_masks import FACE, POINTS
from trainables.data.layouts.reading import read_images, read_joining
from trainables.data.settings import DataConfig
from tuner.cli import Options
from tuner.draw_masks import main
from tuner.masking import Wish, chosen, draw_masks

app = typer.Typer()
app.command()(main)
WORN = Wish("mask", "absent", "worn", nose_free=False, most=None)


def points_of(image: Image.Image) -> np.ndarray | None:
    """In place of MTCNN: what has one colour shows no face."""
    return None if np.asarray(image).std(axis=(0, 1)).max() < 1 else POINTS


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A table of nine faces of four people, five without a mask, of which one shows no face and one is damaged."""
    monkeypatch.chdir(tmp_path)
    rows = ["image,mask,age,person"]
    for number in range(9):
        pixels = np.asarray(FACE).copy()
        pixels[:20] = 10 * number if number != 4 else pixels[20]
        Image.fromarray(pixels).save(f"{number}.png")
        rows.append(f"{number}.png,{'worn' if number % 2 else 'absent'},{20 + number},p{number // 3}")
    Path("8.png").write_bytes(b"no image")
    Path("photos.csv").write_text("\n".join(rows) + "\n")
    return Path("photos.csv")


def draw(photos: Path, wish: Wish = WORN, out: str = "made", seed: int = 0, *changes: str) -> int:
    options = Options(data=str(photos), changes=("data/target=mask", *changes), seed=seed)
    return draw_masks(options, wish, out, Console(quiet=True), find=points_of)


def test_each_image_is_made_with_the_new_class_and_all_else_as_it_was(photos):
    assert draw(photos, WORN, "made", 0, "data/ordinal=age", "data/cuts=[24]", "data/target=mask,age") == 0
    with open("made/labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["mask"], row["age"], row["person"]) for row in rows] == [("worn", "20", "p0"), ("worn", "22", "p0"), ("worn", "26", "p2")]
    first = np.asarray(Image.open(Path("made", rows[0]["image"])), dtype=int)
    before = np.asarray(Image.open("0.png"), dtype=int)
    assert first.shape == before.shape and np.abs(first - before)[130:170, 90:110].mean() > 20 > 3 * np.abs(first - before)[:60].mean()


def test_data_extra_takes_the_table_and_keeps_an_image_with_the_one_that_it_was_made_of(photos):
    assert draw(photos) == 0
    settings = DataConfig(target=("mask",))
    images = read_images(photos, settings)
    made = read_joining(Path("made/labels.csv"), settings, images.scheme, {"mask"})
    assert made.names == ("p0", "p0", "p2") and set(made.names) <= set(images.names)
    assert [made.scheme.targets[0].values[label] for label in made.labels[:, 0]] == ["worn"] * 3


def test_without_groups_an_image_is_a_group_by_its_own_name(photos):
    text = photos.read_text().replace(",person", ",note")
    photos.write_text(text)
    assert draw(photos) == 0
    settings = DataConfig(target=("mask",))
    made = read_joining(Path("made/labels.csv"), settings, read_images(photos, settings).scheme, {"mask"})
    assert made.names == ("0.png", "2.png", "6.png")


def test_the_same_seed_writes_the_same_bytes_and_another_one_others(photos):
    for out, seed in (("one", 1), ("again", 1), ("other", 2)):
        assert draw(photos, WORN, out, seed) == 0
    files = [sorted(Path(out).rglob("*.*")) for out in ("one", "again", "other")]
    one, again, other = ([file.read_bytes() for file in found] for found in files)
    assert one == again and one != other and len(one) == 4


def test_a_sample_is_drawn_and_what_is_held_out_is_not_in_it(photos):
    images = read_images(photos, DataConfig(target=("mask",)))
    assert len(chosen(images, Wish("mask", "absent", "worn", False, 2), frozenset(), 0)) == 2
    assert [images.ids[row] for row in chosen(images, WORN, frozenset({"0.png", "6.png"}), 0)] == ["2.png", "4.png", "8.png"]


def test_where_no_face_is_found_nothing_is_written_and_the_code_is_1(photos):
    options = Options(data=str(photos), changes=("data/target=mask",))
    assert draw_masks(options, WORN, "made", Console(quiet=True), find=lambda image: None) == 1
    assert not Path("made").exists() and not list(Path().glob(".made*"))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--target", "hat"], ["hat", "mask"]),
        (["--target", "mask", "--from", "bare", "--to", "wron"], ["--from bare", "--to wron", "absent, worn"]),
        (["--target", "mask", "--from", "worn", "--to", "worn"], ["--from and --to"]),
        (["--target", "mask", "--out", "."], ["exists already"]),
    ],
)
def test_what_does_not_fit_the_data_is_refused_all_at_once(photos, words, named):
    given = {"--from": "absent", "--to": "worn", "--out": "made"} | dict(zip(words[::2], words[1::2], strict=True))
    done = CliRunner().invoke(app, ["--data", str(photos), "--set", "data/target=mask", *(word for pair in given.items() for word in pair)])
    assert done.exit_code == 2 and all(word in done.stderr for word in named), done.output
    assert not Path("made").exists()
