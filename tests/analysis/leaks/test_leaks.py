import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from analysis.leaks.__main__ import app
from analysis.leaks.find import Leaks, Pair, features, find_pairs, meaning, nearest_neighbour, split_groups
from analysis.report.answer import read_leaks
from tests.conftest import nightly_after
from trainables.data.copies import BLOCK, DISTANCE, close_pairs, fingerprints
from trainables.data.images import Images
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig
from trainables.data.splits import HOLDOUT
from trainables.data.targets import Classes, Scheme
from trainables.data.views import View, ViewConfig, build_views, open_view
from trainables.metrics import METRICS

SQUARE = View.of(ViewConfig(size=64))


def crop(image):
    """All but 2 % at each side."""
    width, height = image.size
    return image.crop((round(0.02 * width), round(0.02 * height), round(0.98 * width), round(0.98 * height)))


# What becomes of a copied image, by its name.
COPIES = {
    "re-encoded": lambda image, file: image.save(file, quality=60),
    "resized": lambda image, file: image.resize((3 * image.width // 2, 3 * image.height // 2)).save(file),
    "cropped": lambda image, file: crop(image).save(file, quality=95),
}


def prints_of(images, cache):
    seen = open_view(build_views(images, [SQUARE], cache).files[SQUARE])
    return fingerprints(seen.images, seen.rows(images.ids))


@pytest.fixture
def planted(people, tmp_path):
    """The drawn people with copies of three images of the first group in the place of images of three others, and one same file."""
    folder = shutil.copytree(people, tmp_path / "people")
    root = folder / "train" / "images"
    groups = sorted(place for place in root.iterdir() if place.is_dir())
    pairs = []
    for number, (kind, copy) in enumerate(COPIES.items()):
        source, target = (sorted(groups[place].iterdir())[number] for place in (0, 10 + number))
        copy(Image.open(source).convert("RGB"), target)
        pairs.append((kind, {str(source.relative_to(root)), str(target.relative_to(root))}))
    source, target = (sorted(groups[place].iterdir())[4] for place in (0, 20))
    shutil.copyfile(source, target)
    pairs.append(("identical", {str(source.relative_to(root)), str(target.relative_to(root))}))
    return folder, dict(pairs)


def call(*words):
    return CliRunner().invoke(app, list(words))


# Pairs


def test_copies_under_another_group_are_found_and_nothing_else(planted, tmp_path):
    folder, copies = planted
    images = read_images(folder, DataConfig())
    parts = np.arange(len(images)) % 2
    digests = np.arange(len(images)).astype(str)
    pairs, complete = find_pairs(images, parts, prints_of(images, tmp_path / "cache"), digests, DISTANCE)
    found = [{pair.image, pair.other_image} for pair in pairs]
    assert complete and not [kind for kind, pair in copies.items() if pair not in found]
    # Drawn groups resemble each other more than real ones.
    assert len(found) <= len(copies) + 2


def test_drawn_groups_without_copies_give_few_false_alarms(people, cache):
    images = read_images(people, DataConfig())
    places, _, _ = close_pairs(prints_of(images, cache), images.groups, DISTANCE)
    assert len(places) <= 2


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
@pytest.mark.parametrize("distance", [0, 4, 20])
def test_close_pairs_are_those_of_two_groups_that_a_comparison_of_all_bits_finds(seed, distance):
    rng = np.random.default_rng(seed)
    count = BLOCK + 40
    bits = rng.integers(2, size=(count, 2, 64)).astype(bool)
    for row in range(0, count, 3):  # images that differ from an earlier one in a few bits
        bits[row] = bits[rng.integers(count)] ^ (rng.random((2, 64)) < 0.05)
    groups = rng.integers(100, size=count)
    prints = np.packbits(bits, axis=2).view(np.uint64)[..., 0]
    places, differ, complete = close_pairs(prints, groups, distance)
    slow = {}
    for first in range(count):
        apart = (bits[first] != bits[first + 1 :]).sum(axis=2)
        for second in np.flatnonzero((apart <= distance).all(axis=1) & (groups[first] != groups[first + 1 :])):
            slow[first, first + 1 + int(second)] = apart[second].tolist()
    assert complete and {tuple(pair): bits_apart for pair, bits_apart in zip(places.tolist(), differ.tolist(), strict=True)} == slow
    assert distance == 0 or slow


def test_images_that_all_look_alike_end_the_search_and_that_is_shown():
    prints, groups = np.zeros((2 * BLOCK, 2), np.uint64), np.arange(2 * BLOCK)
    places, bits, complete = close_pairs(prints, groups, 4, most=100)
    assert (len(places), len(bits), complete) == (100, 100, False)
    found = Leaks(1, 1, 1, (), (), False, None)
    assert any("--distance 4" in line and "smaller" in line for line, _ in meaning(found, 4))


def test_images_of_one_group_are_no_pair():
    places, _, complete = close_pairs(np.zeros((5, 2), np.uint64), np.zeros(5, int), 4)
    assert len(places) == 0 and complete


def test_both_hashes_must_agree():
    prints = np.array([[0, 0], [0, 2**40 - 1], [2**40 - 1, 0], [1, 1]], np.uint64)
    places, bits, _ = close_pairs(prints, np.arange(4), 4)
    assert places.tolist() == [[0, 3]] and bits.tolist() == [[1, 1]]


def test_pairs_across_parts_stand_first_and_held_out_images_are_counted_once():
    scheme = Scheme((Classes("shape", ("round", "square")),))
    ids = tuple("abcdef")
    images = Images(None, ids, np.arange(6), np.zeros((6, 1), int), scheme)
    parts = np.array([0, 0, HOLDOUT, 1, HOLDOUT, 0])
    prints = np.array([[0, 0], [1, 0], [3, 0], [7, 0], [2**63 - 1, 0], [2**60 - 1, 2**60 - 1]], np.uint64)
    pairs, _ = find_pairs(images, parts, prints, np.array(["1", "1", "2", "3", "4", "5"]), distance=4)
    assert [(pair.image, pair.other_image) for pair in pairs if pair.across] == [("b", "c"), ("c", "d"), ("a", "c"), ("b", "d"), ("a", "d")]
    assert [(pair.image, pair.other_image, pair.identical) for pair in pairs if not pair.across] == [("a", "b", True)]
    assert pairs[-1].image == "a" and (pairs[0].part, pairs[0].other_part) == ("fold 0", "holdout")
    found = Leaks(6, 6, 2, (), pairs, True, None)
    assert (found.identical, found.across, found.remembered) == (1, 5, 1)


def test_groups_with_images_in_two_parts_are_named_by_an_image():
    scheme = Scheme((Classes("shape", ("round", "square")),))
    images = Images(None, tuple("abcdef"), np.array([3, 3, 5, 5, 9, 9]), np.zeros((6, 1), int), scheme)
    assert split_groups(images, np.array([0, 0, 1, HOLDOUT, 1, 1])) == ("c",)
    assert split_groups(images, np.array([0, 0, 1, 1, HOLDOUT, HOLDOUT])) == ()


# The probe


def make_groups(rng, shots=4, groups=60, classes=3):
    """Images whose label belongs to the group."""
    scheme = Scheme((Classes("kind", tuple(f"kind {number}" for number in range(classes))),))
    group = np.repeat(np.arange(groups), shots)
    labels = rng.integers(classes, size=groups)[group][:, None]
    return Images(None, tuple(map(str, range(len(group)))), group, labels, scheme)


def test_where_only_the_group_can_be_seen_a_split_by_image_flatters_and_one_by_groups_does_not():
    for seed in range(2):
        rng = np.random.default_rng(seed)
        images = make_groups(rng)
        looks = rng.normal(size=(60, 256))[images.groups] + 0.1 * rng.normal(size=(len(images), 256))
        probe = nearest_neighbour(looks.astype(np.float32), images, METRICS["f1_macro"], seed)
        assert probe.by_image > 0.95 and probe.by_group < 0.55 and probe.gap == probe.by_image - probe.by_group


def test_where_only_the_label_can_be_seen_no_split_flatters():
    for seed in range(2):
        rng = np.random.default_rng(seed)
        images = make_groups(rng)
        looks = 5 * np.eye(3)[images.labels[:, 0]] @ rng.normal(size=(3, 256)) + 0.1 * rng.normal(size=(len(images), 256))
        probe = nearest_neighbour(looks.astype(np.float32), images, METRICS["f1_macro"], seed)
        assert probe.by_image == probe.by_group == 1


def test_where_every_image_is_a_group_of_its_own_there_is_no_probe():
    rng = np.random.default_rng(0)
    images = make_groups(rng, shots=1)
    assert nearest_neighbour(rng.random((60, 256)).astype(np.float32), images, METRICS["f1_macro"], 0) is None


def test_features_are_small_and_grey_and_those_of_the_rows_asked_for():
    view = np.zeros((3, 40, 30, 3), np.uint8)
    view[2] = (255, 255, 255)
    seen = features(view, np.array([2, 0]))
    assert seen.shape == (2, 256) and seen.dtype == np.float32
    assert (seen[0] == 255).all() and (seen[1] == 0).all()


# The command


def test_the_command_finds_what_was_planted_and_says_what_it_means(planted, make_run, tmp_path, monkeypatch):
    folder, copies = planted
    make_run(tmp_path / "runs", "leaky", [{"task": "joint", "view": {"size": 64}}, {"view": {"size": 96, "crop": "center"}}], data=folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    result = call("--run", "leaky")
    assert result.exit_code == 0, result.output
    out = tmp_path / "runs/leaky/leaks"
    table = pd.read_csv(out / "pairs.csv")
    found = [set(row) for row in table[["photo", "other_photo"]].to_numpy().tolist()]
    assert all(pair in found for pair in copies.values())
    (same,) = table[table["identical"]][["photo", "other_photo"]].to_numpy().tolist()
    assert set(same) == copies["identical"]
    assert table["across"].is_monotonic_decreasing and (table["across"] == (table["side"] != table["other_side"])).all()
    figures = json.loads((out / "leaks.json").read_text())
    assert figures["settings"]["view"] == str(SQUARE) and figures["pairs"] == len(table) and figures["across"] == table["across"].sum()
    assert min(Image.open(out / "pairs.png").size) > 300
    told = read_leaks(out.parent, damaged := [])
    assert not damaged and [one.warning for one in told] == [True, False]
    assert all(one.words in result.stdout for one in told)
    assert f"{figures['probe']['by_photo']:.3f} against {figures['probe']['by_person']:.3f}" in result.stdout
    assert "Look at pairs.png" in result.stdout and "split by group" in result.stdout
    assert all(f"leaky/leaks/{name}" in result.stdout for name in ("pairs.csv", "pairs.png", "leaks.json"))


def test_a_run_without_pairs_says_so_and_takes_an_old_sheet_away(faces, tmp_path, monkeypatch):
    shutil.copytree(faces.folder, tmp_path / "runs" / "faces")
    monkeypatch.chdir(tmp_path)
    old = tmp_path / "runs/faces/leaks/pairs.png"
    old.parent.mkdir()
    old.write_bytes(b"old")
    result = call("--distance", "0")
    assert result.exit_code == 0 and "No two groups share" in result.stdout
    assert not old.exists() and len(pd.read_csv(old.parent / "pairs.csv")) == 0


def test_images_that_changed_since_the_run_are_refused_with_the_fix(people, make_run, tmp_path, monkeypatch):
    data = shutil.copytree(people, tmp_path / "people")
    made = make_run(tmp_path / "runs", "faces", [{"task": "joint"}], data=data)
    Image.new("RGB", (36, 48)).save(made.images.root / made.images.ids[0])
    monkeypatch.chdir(tmp_path)
    result = call()
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert f"content, 1: {made.images.ids[0]}" in result.stderr


def test_findings_are_shown_in_words():
    pair = Pair("a", 0, "fold 0", "round", "b", 1, "holdout", "square", 1, 2, False)
    near = Pair("a", 0, "fold 0", "round", "c", 2, "fold 0", "round", 1, 2, False)
    lines = [line for line, _ in meaning(Leaks(9, 5, 2, ("d", "e"), (pair, near), True, None), 4)]
    assert lines[0].startswith("2 groups") and "d, e" in lines[0] and "new run" in lines[0]
    assert lines[1].startswith("1 pair ") and "across splits" in lines[1] and "1 held-out image" in lines[1]
    assert "cannot be measured" in lines[2]
    (line, *_) = (line for line, _ in meaning(Leaks(9, 5, 2, (), (near,), True, None), 4))
    assert "leak into no score" in line
