"""Probes before a search: which there are, that they are trials like others, and what the search makes of them."""

import json
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from analysis.ensemble.__main__ import app as ensemble
from analysis.evaluation.search.probes import probes_of as probe_table_of
from analysis.evaluation.search.probes import write_probes
from analysis.export import parity
from analysis.export.__main__ import app as export
from analysis.members.predictions import Source, predict_trials, wanted_views
from analysis.members.trials import load_runs
from search_spaces.read import read_space
from tests.conftest import already, edit, never
from trainables.config import choosers
from trainables.data.layouts.reading import read_images
from trainables.data.view_store import view_cache
from trainables.data.views import build_views
from trainables.metrics import METRICS
from trainables.record import RunError, read_records, read_run, trial_folder
from tuner import training
from tuner.candidates import candidates
from tuner.cli import Options, TrialCount
from tuner.prepare import settings_of
from tuner.probing import LOOKS, MOST, affordable, first_tries, prior_of, shown_by, too_long
from tuner.replay import replay
from tuner.runs import Earlier
from tuner.searching import search

F1 = METRICS["f1_macro"]
FIXED = {"epochs": 2, "seed": 0, "metric": "f1_macro"}


@pytest.fixture
def space(probed_space):
    return read_space(probed_space, choosers=choosers())


def searched(start, **options) -> tuple[int, str]:
    said = StringIO()
    probe_only = options.pop("probe_only", False)
    return search(Options(**options), Console(file=said, width=200), start, probe_only=probe_only), said.getvalue()


@pytest.fixture(scope="module")
def run(probed_space, demo, ray_cluster, tmp_path_factory) -> Path:
    """A search of two trials, and what it said in `said.txt`."""
    storage = tmp_path_factory.mktemp("runs")
    code, said = searched(already(ray_cluster), space=str(probed_space), data=demo, name="probed", storage=str(storage))
    assert code == 0, said
    (storage / "said.txt").write_text(said)
    return storage / "probed"


def probes_of(run):
    return [record for record in read_records(run) if record.config.model.is_probe]


def test_every_backbone_with_weights_is_probed_at_every_view_the_smallest_first(space, tmp_path):
    found = candidates(space, FIXED)
    assert {(one.model.backbone, one.view.crop) for one in found} == {
        (name, crop) for name in ("test_efficientnet", "test_resnet") for crop in ("none", "center")
    }
    assert all(one.model.is_probe and one.epochs == 1 and one.normalize == "backbone" for one in found)
    larger = (tmp_path / "larger.yaml", Path(space.file).read_text().replace("size: 32", "size: {choice: [64, 32]}"))
    larger[0].write_text(larger[1])
    sides = [one.view.height for one in candidates(read_space(larger[0], choosers=choosers()), FIXED)]
    assert sides == sorted(sides) and len(sides) == 8


def test_a_space_without_weights_has_no_probes(probed_space):
    assert candidates(read_space(probed_space, choosers=choosers(), changes=["model/weights=none"]), FIXED) == []


@pytest.mark.parametrize(
    "heads, texts, expected",
    [
        ("{choice: [random, probe]}", None, 0),
        ("zero_shot", None, 4),
        ("{choice: [zero_shot, random], when: {model/backbone: test_resnet}}", None, 2),
        ("{choice: [zero_shot, random]}", "{choice: ['a {class}', 'no {class}']}", 8),
    ],
)
def test_where_heads_may_be_made_of_texts_each_backbone_is_probed_with_them_too(probed_space, heads, texts, expected):
    changes = [f"model/heads={heads}"] + ([f"model/texts={texts}"] if texts else [])
    found = candidates(read_space(probed_space, choosers=choosers(), changes=changes), FIXED)
    made_of_texts = [one for one in found if one.model.is_zero_shot]
    assert (len(found), len(made_of_texts)) == (4 + expected, expected)
    assert all(one.model.is_probe for one in made_of_texts) and len({str(one.values()) for one in found}) == len(found)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_probes_are_as_many_as_can_be_afforded_the_cheapest_first(space, on_gpu):
    found = candidates(space, FIXED)
    looks = LOOKS[on_gpu] * (224 / 32) ** 2
    counts = [len(affordable(found, int(looks / share), on_gpu=on_gpu)) for share in (0.5, 1, 2, 3.5, 100)]
    assert counts == [1, 1, 2, 3, 4]
    assert affordable(found * 10, 1, on_gpu=on_gpu) == (found * 10)[:MOST]


def test_probes_for_which_there_is_no_time_at_the_pace_measured_are_left_out_the_longest_first(space):
    one, two, *_ = candidates(space, FIXED)

    def at(side, config=one):
        return config.model_copy(update={"view": config.view.model_copy(update={"size": (side, side)})})

    waiting = {number: at(side) for number, side in enumerate((32, 64, 128), start=2)}
    took = [(at(32), 10.0)]  # so that those take 10, 40 and 160 s
    assert [too_long(waiting, took, left, slots=1) for left in (210, 209, 49, 0)] == [[], [4], [4, 3], [4, 3, 2]]
    assert too_long(waiting, took, 105, slots=2) == [] and too_long(waiting, [], 0, slots=1) == []
    other = next(config for config in candidates(space, FIXED) if config.model.backbone != one.model.backbone)
    assert too_long({2: at(32, other)}, [*took, (at(32, other), 100.0)], 50, slots=1) == [2], "a backbone has a pace of its own"


def test_probes_are_trials_beside_those_that_were_asked_for(run):
    records = read_records(run)
    assert [record.number for record in records] == list(range(6))
    assert [record.number for record in probes_of(run)] == [1, 2, 3, 4]
    assert all(record.result.state == "finished" and len(record.reports) == 1 and record.has_model for record in probes_of(run))
    said = (run.parent / "said.txt").read_text()
    assert "Frozen features, by macro F1" in said and "6 trials: " in said


def test_the_table_ranks_linear_heads_and_neighbours_with_intervals(run):
    found = probe_table_of(run)
    assert [row.score for row in found.rows] == sorted((row.score for row in found.rows), reverse=True)
    assert sorted((row.method, row.trial) for row in found.rows if row.trial) == [("linear", number) for number in (1, 2, 3, 4)]
    assert sum(row.method == "k-NN" and row.trial is None for row in found.rows) == 4
    assert all(row.interval[0] <= row.score <= row.interval[1] and row.seconds > 0 and row.milliseconds > 0 for row in found.rows)
    scores = {record.number: record.best["score"] for record in probes_of(run)}
    assert {row.trial: row.score for row in found.rows if row.trial} == pytest.approx(scores)
    assert 0 < found.guess < 0.2


def test_the_search_tries_first_what_the_best_probe_used(run, space):
    first = max(probes_of(run), key=lambda record: (record.best["score"], -record.number))
    second = read_records(run)[5]
    assert shown_by(space, first).items() <= space.drawn(second.config.values()).items()


def test_probes_stay_out_of_what_trials_are_stopped_by_and_of_what_the_search_models(run):
    assert not any((record.folder / "rungs.json").exists() for record in probes_of(run))
    assert all((record.folder / "rungs.json").exists() for record in read_records(run) if not record.config.model.is_probe)


def test_a_probe_votes_and_is_replayed_like_any_trial(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    result = CliRunner().invoke(ensemble, ["--run", str(run), "--members", "probed/1,probed/3", "--whole", "--step", "none"])
    assert result.exit_code == 0, result.output
    console = Console(file=(said := StringIO()), width=200)
    code = replay(str(run), 1, epochs=None, folder=None, threads=None, console=console)
    assert code == 0 and "Bitwise identical" in said.getvalue(), said.getvalue()


def test_a_probe_predicts_and_is_exported_like_any_trial(run, demo, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "IMAGES", parity.PASS + 6)
    result = CliRunner().invoke(export, ["--run", str(run), "--trial", "1", "--out", str(tmp_path / "probe.onnx")])
    assert result.exit_code == 0 and (tmp_path / "probe.onnx").is_file(), result.output
    record, sample = read_records(run)[1], load_runs([run]).valid
    trial = next(one for one in load_runs([run]).trials if one.record.number == 1)
    images = read_images(demo, record.config.data)
    source = Source(build_views(images, wanted_views([trial]), view_cache()), sample.ids[:20])
    (answer,) = predict_trials([trial], source, torch.device("cpu")).values()
    assert answer == pytest.approx(trial.valid[:20], abs=1e-5)


@pytest.mark.nightly
def test_a_search_that_resumes_probes_nothing_twice_but_what_was_damaged_or_interrupted(run, tmp_path, ray_cluster):
    again = Path(shutil.copytree(run, tmp_path / "runs" / "probed"))
    (trial_folder(again, 2) / "valid.npz").write_bytes(b"damaged")
    edit(trial_folder(again, 3) / "result.json", state="interrupted", best_epoch=0)
    for name in ("reports.jsonl", "valid.npz", "model.safetensors"):
        (trial_folder(again, 3) / name).unlink()
    # As a command leaves it that dies before the table has what the neighbours of the last one say.
    known = probe_table_of(again)
    write_probes(again, replace(known, neighbours={number: row for number, row in known.neighbours.items() if number != 4}))
    before = {record.number: record.best["score"] for record in probes_of(run)}
    code, said = searched(already(ray_cluster), resume=str(again), trials=TrialCount(1, more=True))
    assert code == 0, said
    attempts = {record.number: record.result.attempt for record in probes_of(again)}
    assert attempts == {1: 1, 2: 1, 3: 2, 4: 1} and (again / "damaged" / "2").is_dir()
    assert {record.number: record.best["score"] for record in probes_of(again)} == before
    assert [record.number for record in read_records(again)] == list(range(7))
    assert len(probe_table_of(again).rows) == 8


@pytest.mark.nightly
def test_probes_that_a_slow_machine_has_no_time_for_are_named_and_stay_left_out(probed_space, demo, tmp_path, monkeypatch, ray_cluster):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "LONGEST", 0.01)
    code, said = searched(already(ray_cluster), space=str(probed_space), data=demo, name="slow", cpus_per_trial=ray_cluster.cpus)
    assert code == 0 and "left out" in said, said
    found = probe_table_of(Path("runs/slow"))
    assert len(found.rows) == 2 and len(found.left_out) == 3 and all(name in said for name in found.left_out)
    records = read_records(Path("runs/slow"))
    assert [record.number for record in records] == [0, 1, 2] and records[1].config.model.is_probe
    code, said = searched(already(ray_cluster), resume="slow", trials=TrialCount(1, more=True))
    assert code == 0 and len(probes_of(Path("runs/slow"))) == 1, said


def test_a_run_that_knew_no_probes_resumes_without_them(run, space):
    card = read_run(run)

    def probes(told, given):
        old, new = (replace(space, run={**space.run, **more}) for more in (told, given))
        return settings_of(Options(resume="probed"), new, Earlier(run, card, old)).probe

    assert [probes({"probe": True}, {}), probes({"probe": True}, {"probe": True})] == [True, True]
    assert [probes({}, {}), probes({}, {"probe": True}), probes({"probe": True}, {"probe": False})] == [False, False, False]


# What the search makes of them


def with_scores(run, scores):
    found = probes_of(run)
    for record, score in zip(found, scores, strict=True):
        record.reports[0]["score"] = score
    return found


def test_a_good_probe_is_where_fine_tuning_begins_and_one_that_is_not_is_none(run, space):
    good, bad = (first_tries(space, with_scores(run, scores), F1, guess=0.2) for scores in ([0.3, 0.7, 0.4, 0.1], [0.3, 0.5, 0.4, 0.1]))
    best = probes_of(run)[1]
    assert [entry["model/heads"] for entry in good] == ["probe", "random"] and len(bad) == 2
    assert all(entry["model/heads"] == "random" for entry in bad)
    assert shown_by(space, best).items() <= good[0].items()


def test_the_prior_ranks_what_was_probed_and_is_empty_where_nothing_of_it_is_searched(run, space, probed_space):
    probes = with_scores(run, [0.3, 0.7, 0.4, 0.1])
    assert prior_of(space, probes, F1) == [shown_by(space, probes[place]) for place in (1, 2, 0, 3)]
    fixed = read_space(probed_space, choosers=choosers(), changes=["model/backbone=test_resnet", "view/crop=none"])
    assert prior_of(fixed, probes, F1) == []


# The command


def test_the_command_refuses_a_space_without_weights(probed_space, demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="model/weights"):
        searched(never, space=str(probed_space), data=demo, changes=("model/weights=none",), probe_only=True)
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.nightly
def test_the_command_leaves_a_run_whose_search_can_follow_and_names_weights_that_cannot_be_had(
    probed_space, demo, tmp_path, monkeypatch, ray_cluster
):
    monkeypatch.chdir(tmp_path)
    changes = ("view/crop=none", "model/backbone={choice: [test_resnet, test_vit]}")
    code, said = searched(already(ray_cluster), space=str(probed_space), data=demo, changes=changes, probe_only=True, name="alone")
    assert code == 0 and "No probe of test_vit" in said
    (record,) = read_records(Path("runs/alone"))
    assert record.number == 1 and record.has_model and record.config.model.backbone == "test_resnet"
    assert [json.loads((Path("runs/alone") / "run.json").read_text())["trials"], len(probe_table_of(Path("runs/alone")).rows)] == [2, 2]
    assert np.isfinite(record.best["score"])
