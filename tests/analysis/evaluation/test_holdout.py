"""Looks at the hold-out: each question once, whichever run of the split was asked, from wherever."""

import json
from dataclasses import replace

import pytest

from analysis.evaluation.holdout import FILE, asked_before, note_look
from trainables.record import RunCard, write_run

CARD = RunCard("", "s.yaml", "data", (), 0, "one split", (("kind", ("a", "b")),), 1, 1, "test")


@pytest.fixture
def runs(tmp_path):
    """Two runs of one split and one of another, beside a folder that is no run and a damaged one."""
    folders = [tmp_path / name for name in ("a", "b", "other")]
    for folder in folders:
        write_run(folder, replace(CARD, name=folder.name, split="another" if folder.name == "other" else CARD.split))
    (tmp_path / "notes").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/run.json").write_text("{")
    return folders


def test_the_same_question_again_is_the_same_look_whatever_the_order_and_the_path_of_its_runs(runs, tmp_path, monkeypatch):
    a, b, _ = runs
    monkeypatch.chdir(tmp_path)
    note_look([a, b], {"top": 3, "runs": [str(a), str(b)]})
    assert len(note_look([b, a], {"top": 3, "runs": ["runs/b", "a"]})) == 1
    assert len(note_look([a], {"top": 3, "runs": ["a"]})) == 2


def test_what_one_run_of_a_split_was_asked_counts_for_the_others_and_not_for_other_splits(runs):
    a, b, other = runs
    note_look([a], {"top": 3})
    assert asked_before([b]) == [{"top": 3}] and asked_before([other]) == []
    assert [one["top"] for one in note_look([b], {"top": 4})] == [3, 4]
    assert [one["top"] for one in json.loads((b / FILE).read_text())["questions"]] == [3, 4]


def test_a_damaged_file_of_questions_holds_none(runs):
    a, b, _ = runs
    note_look([a], {"top": 3})
    (a / FILE).write_text("{")
    assert asked_before([a, b]) == []
