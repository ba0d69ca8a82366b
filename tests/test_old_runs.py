"""A run of format 1, as the first versions left it, works on: listed, resumed, refitted, voted, reported, replayed, predicted from.

`old_runs/format1.zip` holds 40 drawn people, a search of four trials (finished, stopped twice, interrupted after two of three epochs) and
what its ensemble was worth, all written by that version. What the first version computed stands in its files, and is compared with.
"""

import json
import zipfile
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from analysis.ensemble.__main__ import app as ensemble
from analysis.leaks.__main__ import app as leaks
from analysis.members.trials import load_runs
from analysis.mistakes.__main__ import app as mistakes
from analysis.predict.__main__ import app as predict
from analysis.report.__main__ import app as report
from analysis.soup.__main__ import app as soup
from analysis.suspects.__main__ import app as suspects
from tests.conftest import already
from trainables import migrations
from trainables.losses import LOSSES
from trainables.migrations import FORMAT, NewerFormatError
from trainables.record import MODEL, read_config, read_json, read_record, read_records, read_run, trial_folder, write_json, write_run
from tuner.cli import Options, TrialCount
from tuner.look import main as look
from tuner.refit import main as refit_command
from tuner.refits import RefitOptions
from tuner.refitting import refit
from tuner.replay import main as replay
from tuner.resume import take_stock
from tuner.runs import open_earlier
from tuner.searching import search

FOLDER = Path(__file__).parent / "old_runs"
RUN = Path("runs/format1")


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    """The working folder: people/, runs/format1/."""
    with zipfile.ZipFile(FOLDER / "format1.zip") as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    # The images have moved since; the command gets their new place.
    card = json.loads((RUN / "run.json").read_text())
    (RUN / "run.json").write_text(json.dumps(card | {"data": str(tmp_path / "people")}))
    return tmp_path


def call(app, *words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output + result.stderr
    return result


def then(name: str) -> dict:
    """A JSON file of the run as the first version wrote it."""
    with zipfile.ZipFile(FOLDER / "format1.zip") as archive:
        return json.loads(archive.read(f"{RUN}/{name}"))


def test_its_records_read_as_todays(old):
    card, records = read_run(RUN), read_records(RUN)
    assert (card.metric, card.split, card.predicts) == ("f1_macro", then("run.json")["split"], ("mask", "gender", "age"))
    assert [record.result.state for record in records] == ["finished", "stopped", "stopped", "interrupted"]
    lines = [json.loads(line) for line in (RUN / "trials/0/reports.jsonl").read_text().splitlines()]
    assert [report["score"] for report in records[0].reports] == [line["macro_f1"] for line in lines]
    assert records[0].best["target_scores"] == lines[2]["attribute_f1"]
    assert [(decision.pruner, decision.epoch, decision.passed) for decision in records[1].decisions] == [("asha", 1, False)]
    assert records[1].config.loss.name == "focal" and records[1].config.loss.gamma == 2.0
    assert records[0].config.metric == "f1_macro"


def test_settings_that_the_chosen_entry_does_not_have_are_kept_aside(old):
    config, aside = read_config(RUN / "trials/0")
    assert config.loss.name == "cross_entropy" and not hasattr(config.loss, "gamma")
    assert aside["loss/gamma"] == 2.0 and "loss/smoothing" not in aside


def test_its_ensemble_is_worth_today_what_it_was_worth_then(old):
    (RUN / "trials/3").rename(old / "aside")  # it was interrupted after the ensemble was made
    before = then("ensemble/scores.json")
    for name in ("soft", "hard", "rank", "weighted", "greedy"):
        call(ensemble, "--run", "format1", "--top", 2, "--vote", name, "--step", "none")
        now = read_json(RUN / "ensemble/scores.json", "scores")
        for answer in ("best single", name):
            assert now["answers"][answer]["score"] == pytest.approx(before["answers"][answer]["macro_f1"], abs=1e-3), answer
            assert now["answers"][answer]["interval"] == pytest.approx(before["answers"][answer]["interval"], abs=5e-3), answer
    assert now["members"][0]["valid_score"] == pytest.approx(before["members"][0]["valid_macro_f1"], abs=1e-6)


def test_its_old_ensemble_predicts_what_it_predicted(old):
    images, out = old / "people/eval/images", old / "answers.csv"
    call(predict, "--ensemble", RUN / "ensemble", "--photos", images, "--out", out)
    before, now = pd.read_csv(RUN / "answers.csv"), pd.read_csv(out)
    assert list(now.iloc[:, 0]) == list(before.iloc[:, 0])
    numbers = before.select_dtypes("number").columns
    np.testing.assert_allclose(now[numbers], before[numbers], atol=1e-3)


def test_it_is_reported_with_the_scores_of_its_old_ensemble(old):
    call(report, "--run", "format1")
    page = (RUN / "report/index.html").read_text()
    assert f"{then('ensemble/scores.json')['answers']['best single']['macro_f1']:.3f}" in page
    assert "amaged" not in page


@pytest.mark.nightly
def test_it_is_looked_at_and_its_report_shows_what_was_found(old):
    app = typer.Typer()
    app.command()(look)
    call(app, "--run", "format1")
    call(report, "--run", "format1")
    page = (RUN / "report/index.html").read_text()
    assert "../look/index.html" in page and "40 groups" in page and "tuner.look" not in page


def test_a_trial_of_it_is_replayed_epoch_by_epoch(old):
    app = typer.Typer()
    app.command()(replay)
    call(app, "--run", "format1", "--trial", 0)


def test_it_is_resumed_with_one_more_trial_and_then_refitted(old, ray_cluster):
    kept = {number: (trial_folder(RUN, number) / MODEL).read_bytes() for number in (0, 1, 2)}
    said = StringIO()
    more = Options(resume="format1", trials=TrialCount(1, more=True), early_stopping=False)
    assert search(more, Console(file=said), already(ray_cluster)) == 0, said.getvalue()
    records = {record.number: record for record in read_records(RUN)}
    assert sorted(records) == [0, 1, 2, 3, 4] and not (RUN / "damaged").exists()
    assert records[3].result.attempt == 2 and len(records[3].reports) == 3, "it went on after its second epoch"
    assert {number: (trial_folder(RUN, number) / MODEL).read_bytes() for number in kept} == kept
    refit_options = RefitOptions(run="format1", trials=(0,), all_data=True)
    assert refit(refit_options, Options(), Console(file=said), already(ray_cluster)) == 0, said.getvalue()
    again = read_record(old / "runs/format1-refit/trials/0")
    assert again.result.state == "finished" and again.config.epochs == 3


# What later versions may change, and an old run survives


@pytest.fixture
def next_format(monkeypatch):
    """A version of the program whose files have one format more; takes the steps to it by kind of file."""

    def raise_format(**steps):
        monkeypatch.setattr(migrations, "FORMAT", FORMAT + 1)
        monkeypatch.setattr(migrations, "STEPS", migrations.STEPS | {(FORMAT, kind): step for kind, step in steps.items()})

    return raise_format


def test_a_setting_that_was_added_since_has_its_default(old):
    values = read_json(RUN / "trials/1/config.json", "config")
    del values["loss"]["gamma"], values["train"]["ema"]
    write_json(RUN / "trials/1/config.json", values)
    config = read_record(RUN / "trials/1").config
    assert config.loss.gamma == 2.0 and config.train.ema == 0.0


def test_a_setting_that_was_renamed_since_keeps_its_value(old, next_format):
    values = read_json(RUN / "trials/1/config.json", "config")
    values["loss"]["focus"] = 1.25
    del values["loss"]["gamma"]
    write_json(RUN / "trials/1/config.json", values)
    next_format(config=lambda values: values | {"loss": migrations.renamed(values["loss"], {"focus": "gamma"})})
    assert read_record(RUN / "trials/1").config.loss.gamma == 1.25


def test_a_setting_that_was_removed_since_is_kept_aside(old):
    values = read_json(RUN / "trials/1/config.json", "config")
    values["loss"]["charm"], values["spell"] = 3, {"strength": 1}
    write_json(RUN / "trials/1/config.json", values)
    record = read_record(RUN / "trials/1")
    assert record.aside["loss/charm"] == 3 and record.aside["spell/strength"] == 1
    assert record.config.loss.name == "focal"


@pytest.fixture
def no_focal(old):
    """The space of the run in a version without the focal loss; afterwards the table is as it was, its order too."""
    space, table = open_earlier("format1").space, dict(LOSSES)
    del LOSSES["focal"]
    yield space
    LOSSES.clear()
    LOSSES.update(table)


def test_trials_that_chose_an_entry_which_is_gone_stay_as_they_are_and_are_named(no_focal):
    stock = take_stock(RUN, no_focal, {"epochs": 3, "seed": 0, "metric": "f1_macro"}, retry=True)
    assert [record.number for record in stock.ended] == [0] and stock.damaged == stock.going_on == ()
    assert [(item.folder.name, "loss/name" in item.why, "focal" in item.why) for item in stock.unknown] == [
        (name, True, True) for name in ("1", "2", "3")
    ]
    assert [record.number for record in read_records(RUN)] == [0]
    runs = load_runs([RUN])
    assert [trial.name for trial in runs.trials] == ["format1/0"]
    assert any("format1/2" in str(item) and "focal" in str(item) for item in runs.left_out)


def test_a_field_of_a_report_that_is_not_known_stays_and_one_that_was_renamed_is_found(old, next_format):
    folder = RUN / "trials/0"
    lines = [json.loads(line) for line in (folder / "reports.jsonl").read_text().splitlines()]
    (folder / "reports.jsonl").write_text("".join(json.dumps(line | {"mood": "good"}) + "\n" for line in lines))
    next_format(report=lambda values: migrations.renamed(values, {"mood": "spirits"}))
    assert [report["spirits"] for report in read_record(folder).reports] == ["good"] * 3


def test_a_field_of_the_run_that_is_not_known_is_written_again(old):
    card = json.loads((RUN / "run.json").read_text())
    (RUN / "run.json").write_text(json.dumps(card | {"weather": "fine"}))
    write_run(RUN, read_run(RUN))
    assert json.loads((RUN / "run.json").read_text())["weather"] == "fine"


@pytest.mark.parametrize("name", ["run.json", "trials/0/config.json", "trials/0/result.json", "trials/0/rungs.json"])
def test_a_file_of_a_format_to_come_is_refused_with_its_name_and_both_formats_and_nothing_is_moved(old, name):
    file = RUN / name
    values = json.loads(file.read_text())
    file.write_text(json.dumps((values if isinstance(values, dict) else {"decisions": values}) | {"format": FORMAT + 1}))
    with pytest.raises(NewerFormatError, match=rf"{name}.*{FORMAT + 1}.*{FORMAT}"):
        read_run(RUN), read_records(RUN)
    before = sorted(old.rglob("*"))
    with pytest.raises(NewerFormatError, match=name):
        take_stock(RUN, open_earlier("format1").space, {}, retry=False)
    result = CliRunner().invoke(ensemble, ["--run", "format1"])
    assert result.exit_code == 2 and file.name in result.stderr
    assert sorted(old.rglob("*")) == before


def commands() -> dict[str, typer.Typer]:
    """Every command that reads a run, with the options that it needs beside the run."""
    made = {}
    for name, main in (("tuner.replay", replay), ("tuner.refit", refit_command)):
        made[name] = typer.Typer()
        made[name].command()(main)
    shared = {"ensemble": ensemble, "report": report, "suspects": suspects, "mistakes": mistakes, "leaks": leaks, "soup": soup}
    return made | {f"analysis.{name}": app for name, app in shared.items()}


@pytest.mark.parametrize("name", commands())
@pytest.mark.parametrize("file", ["run.json", "trials/1/result.json"])
def test_every_command_says_that_a_file_is_of_a_format_to_come(old, name, file):
    (RUN / file).write_text(json.dumps(json.loads((RUN / file).read_text()) | {"format": FORMAT + 1}))
    more = {"tuner.replay": ["--trial", "1"], "tuner.refit": ["--top", "1", "--all-data"]}.get(name, [])
    result = CliRunner().invoke(commands()[name], ["--run", "format1", *more])
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.exception
    assert file in result.stderr and str(FORMAT + 1) in result.stderr
