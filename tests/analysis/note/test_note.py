"""A score from elsewhere stands beside our own of the same answer."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from analysis.evaluation.elsewhere import FILE, Note, Own, add_note, note_of, read_notes, source_file, source_of, write_source
from analysis.members.trials import load_runs
from analysis.note.__main__ import app
from analysis.runs.__main__ import app as runs
from tests.analysis.ensembles import mean_of, write
from tests.messages import missing
from trainables.metrics import METRICS
from trainables.record import RunError, write_json

SUBMISSION = "runs/faces/ensemble/submission.csv"
SCORES = {
    "metric": "f1_macro",
    "answer": "soft",
    "answers": {"soft": {"score": 0.8, "interval": [0.75, 0.84]}},
    "also": [{"metric": "accuracy", "title": "accuracy", "score": 0.9, "interval": [0.87, 0.92]}],
    "shift": [{"attribute": "mask", "significant": False}, {"attribute": "age", "significant": True}],
}


@pytest.fixture
def scored(here):
    """A run whose ensemble answered, and was scored."""
    folder = write(here / "runs/faces", mean_of(load_runs([here / "runs/faces"]).trials))
    (folder / "submission.csv").write_text("ImageID,ans\na.jpg,3\n")
    write_json(folder / "scores.json", SCORES)
    return here


def call(*words, app=app):
    return CliRunner().invoke(app, list(words))


def noted(*words):
    result = call(SUBMISSION, "--by", "public leaderboard", "--json", *words)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*words):
    result = call(*words)
    assert result.exit_code == 2 and "Traceback" not in result.stderr and not result.stdout
    return result.stderr


def test_notes_are_kept_with_their_days_and_compared_with_our_own_score(scored):
    first = noted("--score", "0.763", "--on", "2026-11-29")
    assert (first["own"], first["outside"], first["shifted"]) == ({"score": 0.8, "interval": [0.75, 0.84]}, False, ["age"])
    assert first["gain"] == pytest.approx(-0.037) and first["date"] == "2026-11-29"
    second = noted("--score", "0.7")
    assert second["outside"] and len(second["notes"]) == 2
    assert len(noted("--score", "0.763", "--on", "2026-11-29")["notes"]) == 2
    by_accuracy = noted("--score", "0.95", "--metric", "accuracy")
    assert by_accuracy["own"]["score"] == 0.9 and by_accuracy["outside"] and by_accuracy["gain"] == pytest.approx(0.05)
    unknown = noted("--score", "0.9", "--metric", "balanced_accuracy")
    assert unknown["own"] is None and not unknown["outside"]
    said = call(SUBMISSION, "--by", "me", "--score", "0.1").stdout
    assert not missing(said, "outside its interval", "age", "0.800", "-0.700")


def test_the_list_of_runs_shows_them_and_names_a_damaged_file(scored):
    noted("--score", "0.7")
    result = call("--json", app=runs)
    (one,) = json.loads(result.stdout)["runs"]
    assert one["elsewhere"][0]["score"] == 0.7 and one["elsewhere"][0]["outside"]
    assert not missing(call(app=runs).stdout, "public leaderboard", "0.700", "outside")
    (scored / "runs/faces" / FILE).write_text("{")
    assert call(app=runs).exit_code == 0 and FILE in call(app=runs).stdout
    before = (scored / "runs/faces" / FILE).read_text()
    assert FILE in refused(SUBMISSION, "--by", "me", "--score", "0.1")
    assert (scored / "runs/faces" / FILE).read_text() == before


def test_a_note_keeps_our_own_score_when_others_vote_and_that_of_an_old_submission_is_not_known(scored):
    (scored / "old.csv").write_text("ImageID,ans\na.jpg,3\n")
    folder = scored / "runs/faces/ensemble"
    write_source(scored / "old.csv", folder)
    noted("--score", "0.7")
    write(scored / "runs/faces", mean_of(load_runs([scored / "runs/faces"]).trials[:2]))
    assert [note.own for note in read_notes(scored / "runs/faces")] == [Own(0.8, (0.75, 0.84))]
    found = json.loads(call("old.csv", "--by", "me", "--score", "0.7", "--json").stdout)
    assert found["own"] is None and len(found["notes"]) == 2


def test_what_is_no_submission_of_ours_or_no_score_is_refused(scored):
    (scored / "theirs.csv").write_text("ImageID,ans\na.jpg,3\n")
    assert not missing(refused("theirs.csv", "--by", "me", "--score", "0.7"), "theirs.csv", "no submission of ours")
    assert "nowhere.csv" in refused("nowhere.csv", "--by", "me", "--score", "0.7")
    assert "--score" in refused(SUBMISSION, "--by", "me", "--score", "high")
    for score in ("1.2", "-0.1", "nan", "inf"):
        assert "--score" in refused(SUBMISSION, "--by", "me", f"--score={score}")
    assert not missing(refused(SUBMISSION, "--by", " ", "--score", "7", "--on", "today"), "--by", "--score", "--on")
    assert not missing(refused(SUBMISSION, "--by", "me", "--score", "0.7", "--metric", "f1_marco"), "--metric", "f1_macro")
    assert not (scored / "runs/faces" / FILE).exists()


def test_a_submission_and_its_runs_may_be_moved_together(scored):
    for folder in ("before", "after"):
        (scored / folder).mkdir()
    shutil.copytree(scored / "runs", scored / "before/runs")
    (scored / "before/theirs.csv").write_text("ImageID,ans\na.jpg,3\n")
    write_source(scored / "before/theirs.csv", scored / "before/runs/faces/ensemble")
    for part in (scored / "before").iterdir():
        part.rename(scored / "after" / part.name)
    assert source_of(scored / "after/theirs.csv").ensemble == str((scored / "after/runs/faces/ensemble").resolve())


def test_a_submission_that_was_changed_or_whose_ensemble_lies_in_no_run_is_refused(scored):
    file, folder = scored / "old.csv", scored / "runs/faces/ensemble"
    file.write_text("ImageID,ans\na.jpg,3\n")
    write_source(file, folder)
    assert source_of(file).ensemble == str(folder.resolve())
    file.write_text("ImageID,ans\na.jpg,4\n")
    with pytest.raises(RunError, match=r"old\.csv.*old\.source\.json"):
        source_of(file)
    source_file(file).write_text("{}")
    with pytest.raises(RunError, match=r"old\.source\.json is damaged"):
        source_of(file)
    write_source(file, shutil.copytree(folder, scored / "elsewhere/ensemble"))
    assert "elsewhere/ensemble" in refused("old.csv", "--by", "me", "--score", "0.7")


@pytest.mark.parametrize("seed", range(5))
def test_a_note_says_whether_the_score_lies_within_the_interval_of_our_own_and_where_shift_was_found(seed):
    rng = np.random.default_rng(seed)
    note = Note("a.csv", "x", "y", "2026-11-30", "me", "m", "m", 0.5, Own(0.4, (0.3, 0.6)), 0.1)
    assert not note.outside and "within" in str(note)
    for score in rng.uniform(0, 1, 5):
        assert replace(note, score=score).outside == (not 0.3 <= score <= 0.6)
    assert "prior shift" in str(replace(note, score=0.9)) and "age" in str(replace(note, score=0.9, shifted=("age",)))


def test_the_own_score_is_that_of_the_answer_by_the_same_metric(scored, tmp_path):
    source = source_of(scored / SUBMISSION)
    note = note_of(scored / SUBMISSION, source, 0.7, METRICS["f1_macro"], "me", "2026-11-30")
    assert note.own == Own(0.8, (0.75, 0.84)) and note.gain == pytest.approx(-0.1)
    assert add_note(tmp_path, note) == [note] and read_notes(tmp_path) == (note,)
