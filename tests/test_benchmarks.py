import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks.answer import grade, put_aside, put_images_aside, submitted
from benchmarks.answer import main as answer
from benchmarks.decision import main as decision
from benchmarks.face_crop import main as face_crop
from benchmarks.reports import main as reports
from benchmarks.search import main as search
from benchmarks.shift import main as shift
from benchmarks.train_step import main
from benchmarks.views import main as measure_views
from benchmarks.winner import WAYS
from benchmarks.winner import main as winner
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig


def test_the_benchmark_of_a_training_step_ends_with_a_line_of_json(capsys):
    before = torch.get_num_threads()
    main(backbone="test_efficientnet", size=32, batch_size=16, images=64, rounds=1, threads=1)
    torch.set_num_threads(before)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["fit images/s"] > 0 and figures["bare loop images/s"] > 0 and figures["ratio"] > 0


def test_the_benchmark_of_views_ends_with_a_line_of_json(capsys):
    measure_views(images=8, size=32, batch_size=3, rounds=1)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["decode all, s"] > 0 and figures["batches/s of the store"] > 0 and figures["ratio"] > 0


@pytest.mark.nightly
def test_a_crop_around_small_faces_helps_a_network_that_sees_masks(capsys):
    before = torch.get_num_threads()
    face_crop(people=60, epochs=12, seeds=1, size=64, backbone="test_efficientnet", target="mask", threads=1)
    torch.set_num_threads(before)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["scores"]["far, crop face"][0] > figures["scores"]["far, crop none"][0] + 0.1


def test_over_simulated_searches_the_default_rule_gains_more_in_truth_than_the_safe_one_and_seldom_loses(capsys):
    decision(worlds=2, kind=["equal", "spread", "correlated"], groups=60)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["new_gain"] >= max(0.01, 1.5 * figures["safe_gain"])
    assert figures["new_losses"] <= 1 / 6 and figures["worlds"] == 6


@pytest.mark.parametrize(
    "command, words, named",
    [
        (reports, ["--data", ".", "--recipe", "004", "--recipe", "005"], "reports/005.yaml"),
        (reports, ["--data", ".", "--swap", "imagenet"], "--swap imagenet"),
        (reports, ["--data", "nowhere"], "nowhere"),
        (answer, ["--data", "nowhere", "--space", "resnet.yaml"], "nowhere"),
        (answer, ["--data", "DEMO", "--space", "resnet.yaml", "--aside", "999"], "999"),
        (answer, ["--data", "DEMO", "--space", "resnet.yaml", "--answers", "nowhere.csv"], "nowhere.csv"),
        (answer, ["--data", "DEMO", "--space", "resnet.yaml", "--answers", "DEMO/train/train.csv"], "label"),
    ],
)
def test_what_a_benchmark_cannot_use_is_refused_by_name(demo, command, words, named):
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [word.replace("DEMO", str(demo)) for word in words])
    assert result.exit_code == 2 and named in result.stderr, result.stderr


@pytest.mark.nightly
@pytest.mark.faults
def test_the_benchmark_of_recipes_ends_with_a_line_of_json(demo, cache, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    changes = ["view/size=32", "run/trials=3", "run/epochs=1", "run/grace=1", "run/finalists=0", "model/backbone=test_efficientnet"]
    reports(demo, budget=600.0, people=40, aside=9, recipe=["004"], changes=changes)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["reports/004.yaml"]["trials"] == 3 and 0 <= figures["reports/004.yaml"]["f1_macro"] <= 1


@pytest.mark.nightly
def test_the_benchmark_of_winners_ends_with_a_line_of_json_and_one_that_is_far_ahead_wins(capsys):
    winner(worlds=1, kind=["one far ahead"], processes=1)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["worlds"] == 1 and all(figures[way]["worse"] == 0 and figures[way]["gain"] > 0.05 for way in WAYS)


def test_the_benchmark_of_prior_shift_ends_with_a_line_of_json(capsys):
    shift(worlds=1, sharpness=2.0)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {f"{way}_{world}_rmse" for way in ("em", "bbse") for world in ("shift", "none")} < set(figures) and figures["worlds"] == 1


def test_the_benchmark_of_searches_ends_with_a_line_of_json_and_repeats_itself(capsys):
    first, again = ({}, {})
    for figures in (first, again):
        search(seeds=2, budget=40, planned=27, entry=["tpe+asha"], kind=["crossing"], against="random", processes=1)
        figures.update(json.loads(capsys.readouterr().out.splitlines()[-1]), seconds=None)
    assert first == again and first["crossing_tpe+asha"]["regret"] > 0 and first["crossing_correlation"] < 0.8


def test_of_so_many_people_those_who_are_neither_asked_nor_put_aside_are_in_no_part(demo, tmp_path):
    hidden, again = (put_aside(demo, tmp_path / name, people=9, seed=1, train=train) for name, train in (("data", 12), ("whole", None)))
    left = read_images(tmp_path / "data", DataConfig(cuts=(30, 60)))
    assert len(set(left.groups.tolist())) == 12 and hidden.names == again.names and (hidden.truth == again.truth).all()


def test_people_put_aside_train_nothing_and_a_submission_of_the_truth_is_all_right(demo, tmp_path):
    hidden = put_aside(demo, tmp_path / "data", people=9, seed=1)
    left, whole = (read_images(folder, DataConfig(cuts=(30, 60))) for folder in (tmp_path / "data", demo))
    assert len(set(hidden.groups.tolist())) == 9 and len(left) + len(hidden.truth) == len(whole)
    contents = {file.read_bytes() for file in (tmp_path / "data" / "train" / "images").rglob("*.jpg")}
    assert not contents & {file.read_bytes() for file in (tmp_path / "data" / "eval" / "images").iterdir()}
    submission = tmp_path / "submission.csv"
    rows = [f"{name},{truth}" for name, truth in zip(hidden.names, hidden.truth.tolist(), strict=True)]
    submission.write_text("\n".join(["ImageID,ans", *rows]))
    score, (low, high), accuracy = grade(hidden, submitted(submission), seed=0)
    assert accuracy == 1.0 and score == pytest.approx(len(set(hidden.truth.tolist())) / 18) and low <= score <= high


def test_images_of_a_table_are_in_no_file_of_the_data_and_are_asked_by_names_that_tell_nothing(tmp_path):
    data, folder, asked = (tmp_path / name for name in ("flowers", "data", "asked"))
    for image in ("train/rose/1.png", "train/tulip/2.png", "val/rose/3.png", "val/tulip/4.png"):
        (data / image).parent.mkdir(parents=True)
        (data / image).write_text(image)
    answers = tmp_path / "answers.csv"
    answers.write_text("image,label\nval/rose/3.png,rose\nval/tulip/4.png,tulip\n")
    hidden = put_images_aside(data, folder, answers, asked, seed=0)
    assert sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*.png")) == ["train/rose/1.png", "train/tulip/2.png"]
    assert not (folder / "val").exists() and sorted(one.name for one in asked.iterdir()) == ["00000.png", "00001.png"]
    truth = {name: (asked / name).read_text().split("/")[1] for name in hidden.names}
    assert grade(hidden, truth, seed=0)[::2] == (1.0, 1.0) and grade(hidden, dict.fromkeys(truth, "rose"), seed=0)[2] == 0.5
    answers.write_text("image,label\nval/rose/9.png,rose\n")
    with pytest.raises(typer.BadParameter, match="9.png"):
        put_images_aside(data, tmp_path / "more", answers, tmp_path / "more-asked", seed=0)
