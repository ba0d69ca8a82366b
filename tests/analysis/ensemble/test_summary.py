"""What is printed: the answer first and last, in few lines, with commands that can be typed as they stand."""

import json
import shlex
from math import ceil

import pytest
import yaml
from typer.testing import CliRunner

from analysis.ensemble.__main__ import app as ensemble
from analysis.predict.__main__ import app as predict
from analysis.report.__main__ import app as report

WIDTH, MOST = 80, 40
QUICK = ("--vote", "soft", "--step", "none")


def call(*words, app=ensemble):
    return CliRunner().invoke(app, list(words))


def rows(text):
    """Lines of a terminal of 80 columns."""
    return sum(max(1, ceil(len(line) / WIDTH)) for line in text.splitlines())


def scores(here):
    return json.loads((here / "runs/faces/ensemble/scores.json").read_text())


def test_the_answer_stands_first_and_last_in_at_most_forty_lines(here, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    result = call("--top", "3")
    assert result.exit_code == 0, result.output
    assert rows(result.stdout) <= MOST
    first, last = result.stdout.split("\n")[:2], result.stdout.rstrip("\n").split("\n")[-2:]
    assert first == last and f"{scores(here)['answers'][scores(here)['answer']]['score']:.3f}" in " ".join(first)


def test_where_it_would_be_longer_the_least_important_is_left_out_with_the_option_that_prints_it(here, monkeypatch):
    long = call("--top", "2", *QUICK).stdout
    room = rows(long) - 4
    monkeypatch.setattr("analysis.ensemble.__main__.MOST", room)
    short = call("--top", "2", *QUICK).stdout
    assert rows(short) <= room and "--details" in short
    assert long.splitlines()[-8:] == short.splitlines()[-8:]
    assert set(short.splitlines()) - {"More: --details."} < set(long.splitlines())


def test_the_models_that_answer_are_named_with_backbone_and_file(here):
    out = call("--top", "2", *QUICK).stdout
    for member in scores(here)["members"]:
        for trial in member["trials"]:
            (line,) = [line for line in out.splitlines() if line.startswith(f"  faces/{trial['number']} ")]
            _, backbone, file = line.split()
            assert backbone == trial["config"]["model"]["backbone"] and (here / file).is_file()


def test_details_print_more_and_the_same_answer(here):
    short, long = (call("--top", "2", *QUICK, *more).stdout for more in ((), ("--details",)))
    assert rows(long) > rows(short) and short.splitlines()[0] == long.splitlines()[0]
    assert set(short.splitlines()) <= set(long.splitlines())


def test_the_classes_of_the_holdout_are_counted(here, faces):
    out = " ".join(call("--top", "1", *QUICK).stdout.split())
    held = faces.images.labels[faces.split.holdout]
    for column, attribute in enumerate(faces.images.scheme.targets):
        for number, value in enumerate(attribute.values):
            assert f"{value} {(held[:, column] == number).sum()}" in out


def test_the_next_commands_run_as_they_are_printed(here, monkeypatch):
    (here / "runs/faces").rename(here / "runs/my faces (2)")
    out = call("--run", "my faces (2)", *QUICK).stdout
    commands = [shlex.split(line) for line in out.splitlines() if line.startswith("  python -m ")]
    apps = {"analysis.report": report, "analysis.predict": predict}
    assert [words[2] for words in commands] == list(apps)
    for words in commands:
        result = call(*words[3:], app=apps[words[2]])
        assert result.exit_code == 0, result.output
    assert (here / "answers.csv").is_file()


@pytest.mark.parametrize("started", [True, False])
def test_the_baseline_is_the_trial_of_the_first_start_entry_and_nothing_is_shown_without_one(here, started):
    space = {
        "run": {"trials": 4, "epochs": 1},
        "view": {"size": 32},
        "task": {"choice": ["joint", "heads"]},
        "model": {"backbone": "test_efficientnet", "weights": "none"},
        "optimizer": {"lr": {"float": [0.0001, 0.1]}},
        "start": [{"task": "heads", "optimizer": {"lr": 0.001}}] if started else [{"task": "heads", "optimizer": {"lr": 0.05}}],
    }
    (here / "runs/faces/space.yaml").write_text(yaml.safe_dump(space))
    out = call("--top", "2", *QUICK).stdout
    found = scores(here)["baseline"]
    if started:
        assert found["trial"] == "faces/1" and found["gain_interval"][0] <= found["gain"] <= found["gain_interval"][1]
    else:
        assert found is None
    assert ("baseline" in out) is started
