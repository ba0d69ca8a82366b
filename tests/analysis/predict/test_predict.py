import csv
import os
import shutil
import signal
import struct
import time
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from analysis.evaluation.fitted_ensemble import FILE, Pipeline
from analysis.members.trials import load_runs
from analysis.predict.__main__ import app
from analysis.predict.files import answer_table
from analysis.votes.voting import Mean
from tests.analysis.ensembles import alone, mean_of, write
from tests.messages import missing
from trainables.data.targets import Classes, Scheme
from trainables.record import MODEL, read_predictions, trial_folder


@pytest.fixture
def here(faces, tmp_path, monkeypatch):
    """A folder with a copy of the run in runs/, an ensemble of all its trials, and nothing of the data set."""
    run = shutil.copytree(faces.folder, tmp_path / "runs" / "faces")
    write(run, mean_of(load_runs([run]).trials))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def images(here, people):
    """Six images of two groups in folders of their own, with names in no order."""
    source = people / "train" / "images"
    for number, name in enumerate(sorted(file.relative_to(source) for file in source.rglob("*.*"))[:6]):
        place = here / "photos" / ("b" if number % 2 else "a/deep") / f"{(number * 5) % 7}{name.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, place)
    return here / "photos"


def call(*words, ensemble="runs/faces/ensemble", out="answers.csv"):
    return CliRunner().invoke(app, ["--ensemble", ensemble, "--out", out, *map(str, words)])


def refused(result):
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr


def table(file="answers.csv"):
    return pd.read_csv(file, keep_default_na=False, dtype={"image": str})


def scores(answers):
    return answers[[name for name in answers.columns if name.startswith("P(")]].astype(float).to_numpy()


@pytest.mark.parametrize("number", range(4))
def test_validation_images_get_bitwise_the_probabilities_of_validation(here, faces, number):
    run = here / "runs" / "faces"
    trial = load_runs([run]).trials[number]
    write(run, Pipeline(trial.task.scheme, (alone(trial),), Mean((1.0,))))
    recorded = read_predictions(trial_folder(run, number))
    (here / "valid").mkdir()
    for row, name in enumerate(recorded.ids):
        # In the order of the record, so that the same images meet in a batch.
        shutil.copy(faces.images.root / name, here / "valid" / f"{row:04}")
    for file in ("config.json", "result.json", "reports.jsonl", "valid.npz"):
        (trial_folder(run, number) / file).unlink()
    assert call("--photos", "valid", "--device", "cpu").exit_code == 0
    np.testing.assert_array_equal(scores(table()), trial.task.answer(recorded.heads))


def test_each_image_has_a_row_in_the_order_of_its_path_with_values_and_probabilities(here, images):
    result = call("--photos", "photos")
    assert result.exit_code == 0, result.output
    answers, scheme = table(), load_runs([here / "runs/faces"]).scheme
    names = sorted(file.relative_to(images).as_posix() for file in images.rglob("*.*"))
    assert answers["image"].tolist() == names and len(names) == 6
    found = scores(answers)
    assert found.shape == (6, 18)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert answers["joint class"].tolist() == found.argmax(axis=1).tolist()
    for attribute, values in zip(scheme.targets, scheme.split(found.argmax(axis=1)).T, strict=True):
        assert answers[attribute.name].tolist() == [attribute.values[value] for value in values]
        marginal = scheme.marginal((attribute.name,), found)[np.arange(6), values]
        np.testing.assert_allclose(answers[f"{attribute.name} probability"], marginal)
    assert answers["problem"].tolist() == [""] * 6


@pytest.mark.parametrize("batch", ["1", "4"])
def test_batches_of_any_size_and_single_images_are_answered_alike(here, images, batch):
    call("--photos", "photos")
    whole = table()
    assert call("--photos", "photos", "--batch", batch, out="batch.csv").exit_code == 0
    np.testing.assert_allclose(scores(table("batch.csv")), scores(whole), atol=1e-5)
    assert (table("batch.csv")["joint class"] == whole["joint class"]).all()
    for row, name in list(whole["image"].items())[:2]:
        assert call("--photos", images / name, out="one.csv").exit_code == 0
        np.testing.assert_allclose(scores(table("one.csv"))[0], scores(whole)[row], atol=1e-5)
        assert table("one.csv")["image"].tolist() == [name.rpartition("/")[2]]


def test_a_second_look_is_part_of_the_answer(here, images):
    call("--photos", "photos")
    trials = load_runs([here / "runs/faces"]).trials
    write(here / "runs/faces", replace(mean_of(trials), looks=("plain", "flip")))
    assert call("--photos", "photos", out="both.csv").exit_code == 0
    mirrored = shutil.copytree(images, here / "mirrored")
    for file in mirrored.rglob("*.*"):
        Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file.with_suffix(".png"))
        if file.suffix != ".png":
            file.unlink()
    write(here / "runs/faces", mean_of(trials))
    call("--photos", "mirrored", out="mirrored.csv")
    np.testing.assert_allclose(scores(table("both.csv")), (scores(table()) + scores(table("mirrored.csv"))) / 2, atol=0.02)


def png_header(width, height):
    """A picture that says that it is so large and then ends."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 99) + b"IDAT"


def test_images_that_cannot_be_used_are_named_counted_and_listed_while_the_others_are_answered(here, images):
    call("--photos", "photos")
    before = table()
    (images / "bomb.png").write_bytes(png_header(40_000, 40_000))
    (images / "lying.png").write_bytes(png_header(60, 60))
    (images / "text.jpg").write_text("not an image")
    (images / "empty.jpg").touch()
    cut = next(images.rglob("*.*g"))
    (images / "b" / "cut.jpg").write_bytes(b"")
    (images / ".hidden").write_text("passed over")
    (images / ".folder").mkdir()
    shutil.copy(cut, images / ".folder")
    result = call("--photos", "photos")
    assert result.exit_code == 0, result.output
    answers = table().set_index("image")
    bad = ["b/cut.jpg", "bomb.png", "empty.jpg", "lying.png", "text.jpg"]
    assert sorted(answers.index[answers["problem"] != ""]) == bad
    assert not missing(result.stdout, "5 images ", ": b/cut.jpg (", "bomb.png (")
    assert (answers.loc[bad].drop(columns="problem") == "").all(axis=None)
    assert "pixels" in answers.loc["bomb.png", "problem"]
    pd.testing.assert_frame_equal(answers.drop(bad).astype(before.set_index("image").dtypes), before.set_index("image"))


def test_images_of_any_mode_and_format_are_answered_whatever_their_names(here, images):
    first = Image.open(next(images.rglob("*.*g"))).convert("RGB")
    shutil.rmtree(images)
    images.mkdir()
    for number, mode in enumerate(("L", "P", "RGBA", "CMYK", "1")):
        first.convert(mode).save(images / f"{number}.{'tif' if mode == 'CMYK' else 'png'}")
    first.save(images / "without suffix", format="webp")
    first.save(images / 'comma, "quote" [red].bmp')
    os.rename(images / "0.png", os.path.join(os.fsencode(images), b"latin \xe9.png"))
    (images / "z.jpg").touch()
    os.rename(images / "z.jpg", os.path.join(os.fsencode(images), b"broken \xe9.jpg"))
    result = call("--photos", "photos")
    assert result.exit_code == 0, result.output
    assert not missing(result.stdout, "1 images ", r": broken \xe9.jpg")
    with open("answers.csv", errors="surrogateescape", newline="") as file:
        answers = list(csv.DictReader(file))
    assert len(answers) == 8 and sum(row["problem"] != "" for row in answers) == 1
    assert {os.fsencode(row["image"]) for row in answers} == set(os.listdir(os.fsencode(images)))


def test_the_summary_counts_answers_and_says_how_fast_and_where(here, images):
    result = call("--photos", "photos")
    answers = table()
    for value, count in answers["age"].value_counts().items():
        assert any(line.split()[-3:] == [value, str(count), f"{count / 6:.1%}"] for line in result.stdout.splitlines())
    assert not missing(result.stdout, "6 images answered in", "a second", "on cpu", "answers.csv")


def test_a_face_view_finds_faces_by_itself_and_says_where_there_is_none(here, images, make_run):
    made = make_run(here / "runs", "crops", [{"task": "joint", "view": {"size": 32, "crop": "face"}}])
    write(made.folder, mean_of(load_runs([made.folder]).trials))
    shutil.rmtree(images / "b")
    Image.new("RGB", (60, 80), "navy").save(images / "a" / "no face.png")
    result = call("--photos", "photos", ensemble="runs/crops/ensemble")
    assert result.exit_code == 0, result.output
    assert "a/no face.png" in result.stdout
    whole = table().set_index("image")
    name = whole.index[-1]
    assert call("--photos", images / name, ensemble="runs/crops/ensemble", out="one.csv").exit_code == 0
    np.testing.assert_allclose(scores(table("one.csv"))[0], scores(whole)[-1], atol=1e-5)


def test_answers_of_an_earlier_call_among_the_images_are_no_image(here, images):
    for _ in range(2):
        assert call("--photos", "photos", out="photos/answers.csv").exit_code == 0
        assert len(table("photos/answers.csv")) == 6


def test_a_file_of_the_ensemble_may_be_named_instead_of_its_folder(here, images):
    assert call("--photos", "photos", ensemble=f"runs/faces/ensemble/{FILE}").exit_code == 0


def test_everything_that_is_wrong_is_reported_at_once_with_the_fix(here):
    message = refused(call("--photos", "nowhere", "--device", "cuda", ensemble="runs/other/ensemble", out="missing/answers.csv"))
    assert not missing(message, "runs/other/ensemble/ensemble.json", "python -m analysis.ensemble --run other", "--photos nowhere: ")
    assert not missing(message, "--out missing/answers.csv: ", "--device cuda: ", "cpu or auto")


def test_an_empty_folder_and_one_without_an_image_are_refused(here):
    (here / "empty" / "deep").mkdir(parents=True)
    assert "--photos empty: " in refused(call("--photos", "empty"))
    (here / "empty" / "notes.txt").write_text("no image")
    assert not missing(refused(call("--photos", "empty")), "1 files", ": notes.txt (")
    assert "notes.txt" in refused(call("--photos", "empty/notes.txt"))
    assert not (here / "answers.csv").exists()


def test_a_folder_as_the_file_to_write_is_refused(here, images):
    assert not missing(refused(call("--photos", images, out="photos")), "--out photos ", "photos/answers.csv")


@pytest.mark.parametrize("harm", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:9000])])
def test_weights_that_are_gone_or_damaged_are_refused_by_name(here, images, harm):
    harm(trial_folder(here / "runs/faces", 1) / MODEL)
    message = refused(call("--photos", "photos"))
    assert not missing(message, f"runs/faces/trials/1/{MODEL}: ", "faces/1", "python -m analysis.ensemble --run faces")


@pytest.mark.nightly
def test_ctrl_c_leaves_the_earlier_answers_and_no_half_file(here, images, start_command):
    for number in range(12):
        shutil.copytree(images, here / "many" / str(number))
    (here / "answers.csv").write_text("earlier")
    words = ("--ensemble", "runs/faces/ensemble", "--photos", "many", "--batch", "1", "--out", "answers.csv")
    process = start_command(here, "analysis.predict", *words, SWEEPVOTE_CACHE=str(here / "cache"))
    # All images are decoded, and the models begin to predict.
    while process.poll() is None and len(list((here / "cache").glob("**/index"))) < 3:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and "Traceback" not in errors
    assert (here / "answers.csv").read_text() == "earlier"
    assert [file.name for file in here.iterdir() if file.is_file()] == ["answers.csv"]


@pytest.mark.parametrize("name", ["problem", "joint class", "image", "P(a)", "kind probability"])
def test_a_target_called_as_a_column_of_the_table_keeps_its_answers(name):
    scheme = Scheme((Classes("kind", ("a", "b")), Classes(name, ("scratch", "dent"))))
    scores = np.array([[0.1, 0.6, 0.2, 0.1], [0.7, 0.1, 0.1, 0.1]])
    table = answer_table(scheme, ["x.jpg", "broken.jpg", "y.jpg"], np.array([0, 2]), scores, {"broken.jpg": "truncated"})
    assert table[name][[0, 2]].tolist() == ["dent", "scratch"] and table.columns.is_unique
    assert table.iloc[:, 0].tolist() == ["x.jpg", "broken.jpg", "y.jpg"] and table.iloc[:, -1].tolist() == ["", "truncated", ""]
    assert sorted(table.filter(like="P(a, dent)").iloc[[0, 2], 0]) == [0.1, 0.6]
