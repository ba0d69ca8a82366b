import io
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFont
from typer.testing import CliRunner

from analysis.evaluation.fitted_ensemble import EnsembleFile, Pipeline, write_ensemble
from analysis.figures.sheets import FONTS, PICTURE, TEXT, Tile, draw_sheet, wrapped
from analysis.members.compose import Member, Part
from analysis.members.trials import Sample, load_runs
from analysis.mistakes import files
from analysis.mistakes.__main__ import app
from analysis.mistakes.find import FEW, confident_errors, confusions, disagreement, divergence, subgroups, subgroups_of
from analysis.votes.voting import Mean
from tests.conftest import nightly_after
from tests.messages import missing
from trainables.data.targets import Classes, Scheme
from trainables.metrics import METRICS
from trainables.seeding import generator

SCHEME = Scheme((Classes("shape", ("round", "square")), Classes.banded("size", (10, 20))))
NAMES = SCHEME.class_names()


def sample_of(ids, groups, labels):
    return Sample(ids, groups, labels, SCHEME, np.full(len(ids), "fold 0"))


def make_sample(rng, groups=40, shots=3):
    """Images of groups, each with shots of the same names."""
    ids = tuple(f"{group}/shot{shot}.png" for group in range(groups) for shot in range(shots))
    labels = np.stack([rng.integers(size, size=len(ids)) for size in SCHEME.sizes], axis=-1)
    return sample_of(ids, np.repeat(np.arange(groups), shots), labels)


def make_answers(rng, members, images):
    return rng.dirichlet(np.full(SCHEME.classes, 0.5), size=(members, images))


# Records


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_confusions_count_every_image_by_what_it_is_and_what_it_is_taken_for(seed):
    rng = np.random.default_rng(seed)
    sample = make_sample(rng)
    (answer,) = make_answers(rng, 1, len(sample.ids))
    found = {one.name: one for one in confusions(answer, sample, SCHEME, METRICS["f1_macro"])}
    assert list(found) == ["", "shape", "size"]
    predicted = SCHEME.split(answer.argmax(axis=1))
    for column, attribute in enumerate(SCHEME.targets):
        pairs = Counter(zip(sample.labels[:, column].tolist(), predicted[:, column].tolist(), strict=True))
        counts = found[attribute.name].counts
        assert found[attribute.name].scheme.names == (attribute.name,)
        assert {cell: count for cell, count in np.ndenumerate(counts) if count} == pairs
    assert found[""].counts.sum() == len(sample.ids)
    assert found[""].counts.trace() == (predicted == sample.labels).all(axis=1).sum()


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_the_most_confident_errors_are_exactly_the_wrong_images_by_falling_probability(seed):
    rng = np.random.default_rng(seed)
    sample = make_sample(rng)
    (answer,) = make_answers(rng, 1, len(sample.ids))
    truth = sample.truth(SCHEME)
    wrong = [row for row in range(len(sample.ids)) if answer[row].argmax() != truth[row]]
    wrong.sort(key=lambda row: -answer[row].max())
    found = confident_errors(answer, sample, SCHEME)
    assert [error.image for error in found] == [sample.ids[row] for row in wrong]
    for error, row in zip(found, wrong, strict=True):
        assert (error.true, error.predicted) == (NAMES[truth[row]], NAMES[answer[row].argmax()])
        assert (error.group, error.size) == (sample.groups[row], answer[row].max())
    assert confident_errors(answer, sample, SCHEME, most=3) == found[:3]


def test_errors_in_a_part_of_the_attributes_are_named_by_that_part():
    sample = make_sample(np.random.default_rng(0))
    part = SCHEME.part(("shape",))
    answer = np.eye(2)[1 - sample.labels[:, 0]]
    found = confident_errors(answer, sample, part)
    assert len(found) == len(sample.ids)
    assert {(error.true, error.predicted) for error in found} == {("round", "square"), ("square", "round")}


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
@pytest.mark.parametrize("members", [2, 3, 5])
def test_the_divergence_is_the_mean_distance_of_members_from_their_mean_as_a_share_of_the_largest(seed, members):
    probabilities = make_answers(np.random.default_rng(seed), members, 10)
    slow = [
        np.mean([sum(p * np.log(p / q) for p, q in zip(one, row.mean(axis=0), strict=True)) for one in row]) / np.log(members)
        for row in probabilities.transpose(1, 0, 2)
    ]
    np.testing.assert_allclose(divergence(probabilities), slow, atol=1e-12)


def test_the_divergence_is_nothing_among_the_alike_or_the_lonely_and_largest_where_each_is_certain_of_another_class():
    alike = np.repeat(make_answers(np.random.default_rng(0), 1, 10), 4, axis=0)
    np.testing.assert_allclose(divergence(alike), 0, atol=1e-12)
    np.testing.assert_array_equal(divergence(alike[:1]), 0)
    np.testing.assert_allclose(divergence(np.eye(SCHEME.classes)[:4, None]), 1)


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_disagreement_lists_exactly_the_images_with_several_answers_the_furthest_apart_first(seed):
    rng = np.random.default_rng(seed)
    sample = make_sample(rng, groups=10)
    probabilities = make_answers(rng, 3, len(sample.ids))
    found = disagreement(probabilities, sample, SCHEME)
    predicted = probabilities.argmax(axis=2)
    several = {image for image, votes in zip(sample.ids, predicted.T, strict=True) if len(set(votes)) > 1}
    assert {one.image for one in found} == several and len(found) == len(several)
    assert [one.divergence for one in found] == sorted((one.divergence for one in found), reverse=True)
    for one in found:
        row = sample.ids.index(one.image)
        assert one.answers == tuple(NAMES[vote] for vote in predicted[:, row])
        assert one.divergence == divergence(probabilities)[row]
        assert sum(votes for _, votes in one.tally) == 3 and one.tally[0][1] == max(votes for _, votes in one.tally)
    assert disagreement(probabilities[:1], sample, SCHEME) == []
    assert disagreement(probabilities, sample, SCHEME, most=2) == found[:2]


# Groups


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_a_subgroup_has_its_rate_and_that_of_all_others(seed):
    rng = np.random.default_rng(seed)
    sample = make_sample(rng)
    wrong, chosen = rng.random(len(sample.ids)) < 0.3, rng.random(len(sample.ids)) < 0.4
    (found,) = subgroups(wrong, sample.groups, {"some": chosen}, rng)
    assert (found.images, found.errors) == (chosen.sum(), (wrong & chosen).sum())
    assert found.groups == len(set(sample.groups[chosen].tolist()))
    assert found.rate == pytest.approx(wrong[chosen].mean()) and found.elsewhere == pytest.approx(wrong[~chosen].mean())
    assert found.interval[0] <= found.rate - found.elsewhere <= found.interval[1]


def test_where_errors_were_planted_they_are_found_and_stand_first():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sample = make_sample(rng, groups=60)
        first = subgroups_of(sample)["shot shot0"]
        wrong = rng.random(len(sample.ids)) < np.where(first, 0.6, 0.1)
        found = subgroups(wrong, sample.groups, subgroups_of(sample), generator(seed, "bootstrap"))
        assert found[0].name == "shot shot0" and found[0].distinguishable


def test_where_errors_fall_by_chance_on_whole_groups_few_groups_seem_to_differ():
    # Images of one group err together. Taken for independent, about a fifth of the intervals would leave 0 out.
    told = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(80), 7)
        wrong = (rng.random(80) < 0.3)[groups] ^ (rng.random(560) < 0.05)
        (found,) = subgroups(wrong, groups, {"half": (rng.random(80) < 0.5)[groups]}, rng, draws=400)
        told.append(found.distinguishable)
    assert np.mean(told) <= 0.1


def test_an_interval_repeats_the_bootstrap_over_groups():
    rng = np.random.default_rng(3)
    sample = make_sample(rng, groups=25)
    wrong, chosen = rng.random(len(sample.ids)) < 0.3, rng.random(len(sample.ids)) < 0.5
    (found,) = subgroups(wrong, sample.groups, {"some": chosen}, np.random.default_rng(7), draws=300)
    differences = []
    for times in np.random.default_rng(7).multinomial(25, np.full(25, 1 / 25), size=300):
        rows = np.concatenate([np.flatnonzero(sample.groups == group) for group, number in enumerate(times) for _ in range(number)])
        inside = chosen[rows]
        differences.append(wrong[rows][inside].mean() - wrong[rows][~inside].mean())
    np.testing.assert_allclose(found.interval, np.percentile(differences, [2.5, 97.5]))


def test_too_few_groups_get_no_interval_and_what_holds_all_images_or_none_is_no_group():
    sample = make_sample(np.random.default_rng(0))
    every = np.ones(len(sample.ids), bool)
    few = sample.groups < FEW - 1
    found = subgroups(every, sample.groups, {"few": few, "all but few": ~few, "all": every, "none": ~every}, np.random.default_rng(0))
    assert {group.name: group.interval for group in found} == {"few": None, "all but few": None}
    assert not any(group.distinguishable for group in found)


def test_images_near_a_cut_are_those_within_two_of_it():
    sample = make_sample(np.random.default_rng(0), groups=30, shots=1)
    numbers = np.arange(30).astype(np.float32)
    near = subgroups_of(sample, numbers=numbers)["size: within 2 of a cut"]
    assert numbers[near].tolist() == [8, 9, 10, 11, 12, 18, 19, 20, 21, 22]


def test_every_value_of_every_attribute_is_a_group():
    sample = make_sample(np.random.default_rng(0))
    inside = subgroups_of(sample)
    for column, attribute in enumerate(SCHEME.targets):
        for value, name in enumerate(attribute.values):
            np.testing.assert_array_equal(inside[f"{attribute.name}: {name}"], sample.labels[:, column] == value)


def test_brightness_parts_images_into_fifths_from_dark_to_bright():
    rng = np.random.default_rng(0)
    sample, brightness = make_sample(rng, groups=50, shots=2), rng.random(100)
    fifths = [chosen for name, chosen in subgroups_of(sample, brightness=brightness).items() if name.startswith("brightness")]
    assert [chosen.sum() for chosen in fifths] == [20] * 5
    assert all(brightness[darker].max() < brightness[brighter].min() for darker, brighter in zip(fifths, fifths[1:], strict=False))


def test_files_smaller_than_most_are_a_group_and_files_of_one_size_are_not():
    sample = make_sample(np.random.default_rng(0))
    shorter = np.full(len(sample.ids), 96)
    assert not any(chosen.any() for name, chosen in subgroups_of(sample, shorter=shorter).items() if name.startswith("file smaller"))
    shorter[:4] = 50
    (chosen,) = (chosen for name, chosen in subgroups_of(sample, shorter=shorter).items() if name.startswith("file smaller"))
    assert np.flatnonzero(chosen).tolist() == [0, 1, 2, 3]


def test_images_without_a_face_are_a_group():
    sample = make_sample(np.random.default_rng(0))
    chosen = subgroups_of(sample, without_face=(sample.ids[2], sample.ids[7], "of another side"))["no face detected"]
    assert np.flatnonzero(chosen).tolist() == [2, 7]


def test_shots_are_groups_where_most_groups_have_them_whatever_their_ending():
    rng = np.random.default_rng(0)
    ids = tuple(f"{group}/front.{'png' if group % 2 else 'jpg'}" for group in range(6)) + ("0/extra.png", "1/extra.png", "2/own.png")
    groups = np.array([*range(6), 0, 1, 2])
    sample = sample_of(ids, groups, np.zeros((9, 2), int))
    shots = {name: chosen for name, chosen in subgroups_of(sample).items() if name.startswith("shot")}
    assert list(shots) == ["shot front"] and np.flatnonzero(shots["shot front"]).tolist() == list(range(6))
    alone = make_sample(rng, groups=9, shots=1)
    named = sample_of(tuple(f"{number}.png" for number in range(9)), alone.groups, alone.labels)
    assert not any(name.startswith("shot") for name in subgroups_of(named))


# Sheets


def test_lines_fit_the_width_and_lose_no_word_that_fits():
    font = ImageFont.truetype(FONTS / "DejaVuSans.ttf", TEXT)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        text = " ".join("x" * rng.integers(1, 12) for _ in range(rng.integers(1, 12)))
        lines = wrapped(text, font, PICTURE[0])
        assert all(font.getlength(line) <= PICTURE[0] for line in lines)
        assert " ".join(lines) == text
    (cut,) = wrapped("begin" + "x" * 100 + "end.png", font, PICTURE[0])
    assert font.getlength(cut) <= PICTURE[0] and cut.startswith("begin") and "…" in cut and cut.endswith("end.png")
    assert wrapped("", font, PICTURE[0]) == []


@pytest.mark.parametrize("count", [1, 9, 10, 11, 60])
def test_a_sheet_shows_every_picture_once(count):
    colours = [(40 + 3 * number, 250 - 4 * number, 7) for number in range(count)]
    tiles = [Tile((Image.new("RGB", PICTURE, colour),), (("a class", "#000000"),)) for colour in colours]
    sheet = Image.open(io.BytesIO(draw_sheet(tiles, "Title", "subtitle")))
    pixels = {colour: count for count, colour in sheet.getcolors(sheet.width * sheet.height)}
    assert {colour: pixels[colour] for colour in colours} == dict.fromkeys(colours, PICTURE[0] * PICTURE[1])


def test_pictures_of_a_tile_stand_side_by_side():
    left, right = (Image.new("RGB", PICTURE, colour) for colour in ("#ff0000", "#0000ff"))
    sheet = np.asarray(Image.open(io.BytesIO(draw_sheet([Tile((left, right), (("words", "#000000"),))], "Title", "subtitle"))))
    (rows, columns), (other_rows, other_columns) = (np.nonzero((sheet == colour).all(axis=-1)) for colour in ((255, 0, 0), (0, 0, 255)))
    assert columns.max() + 1 == other_columns.min() and set(rows) == set(other_rows)


# The command


@pytest.fixture
def without_pictures(monkeypatch):
    """What takes longest is left out: the pictures are empty."""
    monkeypatch.setattr(files, "draw_sheet", lambda *words: b"")
    monkeypatch.setattr(files, "_confusion_picture", lambda *words: b"")


def call(*words):
    return CliRunner().invoke(app, list(words))


def refused(result):
    """The one message of a refusal."""
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    return result.stderr.strip()


def pipeline_of(runs, *names):
    """A soft vote of some trials."""
    scheme = runs.scheme
    members = tuple(Member(scheme, (Part(name, scheme, scheme.names),)) for name in names)
    return Pipeline(scheme, members, Mean((1 / len(names),) * len(names)))


def test_the_command_writes_every_table_and_sheet_and_prints_their_heads(here):
    result = call("--top", "3")
    assert result.exit_code == 0, result.output
    folder = here / "runs/faces/mistakes"
    names = {f"{name}.{ending}" for name in ("confident", "disagreement", "confusion") for ending in ("csv", "png")} | {
        "groups.csv",
        "index.html",
        "mistakes.json",
    }
    attributes = load_runs([here / "runs/faces"]).scheme.names
    names |= {f"confusion-{name}.{ending}" for name in attributes for ending in ("csv", "png")}
    assert {file.name for file in folder.iterdir()} == names
    assert all(f"faces/mistakes/{name}" in result.stdout for name in names)
    for title in (
        "Most frequent confusions",
        "The most confident errors",
        "Where members disagree most",
        "Subgroups with the most excess errors",
    ):
        assert title in result.stdout
    assert min(Image.open(folder / "confident.png").size) > 500


def test_the_tables_hold_what_the_records_of_the_best_members_say(here, without_pictures):
    call("--top", "2")
    runs = load_runs([here / "runs/faces"])
    table = pd.read_csv(here / "runs/faces/mistakes/confusion.csv")
    assert list(table["true"]) == list(table.columns[1:]) == runs.scheme.class_names()
    counts = table.drop(columns="true").to_numpy()
    np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(runs.valid.truth(runs.scheme), minlength=runs.scheme.classes))
    errors = pd.read_csv(here / "runs/faces/mistakes/confident.csv")
    assert len(errors) == counts.sum() - counts.trace()
    assert errors["probability"].is_monotonic_decreasing and set(errors["photo"]) <= set(runs.valid.ids)
    apart = pd.read_csv(here / "runs/faces/mistakes/disagreement.csv")
    assert (apart.iloc[:, -2] != apart.iloc[:, -1]).all() and len(apart.columns) == 6
    found = pd.read_csv(here / "runs/faces/mistakes/groups.csv")
    number = next(attribute.name for attribute in runs.scheme.targets if attribute.cuts)
    assert f"{number}: within 2 of a cut" in set(found["group"]) and "brightness: darkest fifth" in set(found["group"])
    np.testing.assert_allclose(found["difference"], found["rate"] - found["elsewhere"], atol=1e-5)


def test_the_answer_is_that_of_the_ensemble_where_there_is_one_and_of_the_best_where_top_is_given(here, without_pictures):
    run = here / "runs/faces"
    runs = load_runs([run])
    pipeline = pipeline_of(runs, "faces/1")
    (run / "ensemble").mkdir()
    models = {"faces/1": ("faces/trials/1/model.safetensors",)}
    write_ensemble(run / "ensemble", EnsembleFile(models, pipeline))
    result = call()
    assert "Mistakes of runs/faces/ensemble/ensemble.json." in result.stdout
    errors = pd.read_csv(run / "mistakes/confident.csv")
    alone = next(trial for trial in runs.trials if trial.name == "faces/1")
    truth = runs.valid.truth(runs.scheme)
    assert len(errors) == (alone.valid.argmax(axis=1) != truth).sum()
    assert not (run / "mistakes/disagreement.csv").exists()
    assert "Mistakes of the soft vote of faces/" in call("--top", "2").stdout
    assert (run / "mistakes/disagreement.csv").is_file()
    assert call().exit_code == 0
    assert not (run / "mistakes/disagreement.png").exists()


def test_an_ensemble_of_other_runs_is_refused_with_the_fix(here):
    run = here / "runs/faces"
    (run / "ensemble").mkdir()
    models = {"others/7": ("others/trials/7/model.safetensors",)}
    write_ensemble(run / "ensemble", EnsembleFile(models, pipeline_of(load_runs([run]), "others/7")))
    message = refused(call())
    assert not missing(message, "ensemble.json", "others/7", "--run", "--top")


def test_the_holdout_is_predicted_and_the_reader_is_warned(here, without_pictures):
    result = call("--part", "holdout", "--top", "2")
    assert result.exit_code == 0, result.output
    runs = load_runs([here / "runs/faces"])
    counts = pd.read_csv(here / "runs/faces/mistakes/confusion.csv").drop(columns="true").to_numpy()
    assert counts.sum() == len(runs.holdout.ids)
    assert "no longer unbiased" in result.stdout
    assert set(pd.read_csv(here / "runs/faces/mistakes/confident.csv")["photo"]) <= set(runs.holdout.ids)


def test_the_same_seed_gives_the_same_intervals(here, without_pictures):
    found = []
    for seed in ("5", "5", "6"):
        call("--top", "1", "--seed", seed)
        found.append((here / "runs/faces/mistakes/groups.csv").read_bytes())
    assert found[0] == found[1] != found[2]
