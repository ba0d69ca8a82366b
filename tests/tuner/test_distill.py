"""Students: which options go together, and a whole one from the vote to what it keeps."""

import json
import shutil
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from analysis.ensemble.__main__ import app as ensemble
from analysis.predict.__main__ import app as predict
from search_spaces.read import read_space
from tests.conftest import already, edit, never
from tests.messages import missing
from trainables.data.images import DataError
from trainables.data.layouts.contest import contest_scheme
from trainables.data.splits import HOLDOUT
from trainables.migrations import NewerFormatError
from trainables.record import TEACHER, RunError, read_record, read_run, trial_folder
from trainables.restore_data import read_teacher
from tuner.cli import Options, TrialCount
from tuner.distilling import distill, like
from tuner.preflight import check_space, choosers
from tuner.replay import replay
from tuner.searching import search


def distilled(start, ensemble=None, backbone=None, images=None, **options) -> tuple[int, str]:
    said = StringIO()
    return distill(ensemble, backbone, images, Options(**options), Console(file=said, width=200), start), said.getvalue()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, ("--ensemble", "--resume")),
        ({"ensemble": "votes.csv"}, ("votes.csv",)),
        ({"ensemble": "e", "backbone": "resnet10t", "space": "s.yaml"}, ("--backbone", "--space")),
        ({"ensemble": "e", "resume": "faces-student", "name": "x"}, ("--ensemble", "--name")),
        ({"ensemble": "e", "trials": TrialCount(3)}, ("--trials", "--space")),
        ({"ensemble": "nowhere"}, ("nowhere/ensemble.json",)),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_loaded(given, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError) as caught:
        distilled(never, **given)
    assert not missing(str(caught.value), *named)


@pytest.mark.parametrize("changes", [{}, {"loss": {"name": "focal"}, "mix": {"name": "cutmix"}}])
def test_a_space_of_one_trial_like_another_has_nothing_wrong_with_it(make_config, changes):
    config = make_config(**changes)
    space = read_space(like(SimpleNamespace(config=config), None, ()), choosers=choosers())
    assert check_space(space, contest_scheme((30, 60))) == []
    assert space.fixed["view/size"] == 32 and space.fixed["loss/name"] == "cross_entropy"


@pytest.fixture(scope="module")
def home(demo, tiny_space, ray_cluster, tmp_path_factory) -> Path:
    """A folder with a search whose finalists were raced, and its vote."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = Options(space=str(tiny_space), data=demo, trials=TrialCount(2), name="faces", finalists=2, changes=("run/epochs=2",))
        assert search(options, Console(quiet=True), already(ray_cluster)) == 0
        assert CliRunner().invoke(ensemble, ["--run", "faces", "--vote", "soft"]).exit_code == 0
    return folder


@pytest.fixture
def inside(home, monkeypatch) -> None:
    monkeypatch.chdir(home)


@pytest.fixture(scope="module")
def student(home, demo, ray_cluster) -> tuple[Path, str]:
    """A student that learned from images without labels, too, and what the command said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        code, said = distilled(already(ray_cluster), "runs/faces/ensemble", images=demo / "eval" / "images")
    assert code == 0, said
    return home / "runs" / "faces-student", said


@pytest.mark.nightly
def test_a_student_is_a_run_like_others_with_what_it_was_taught(student, inside):
    run, said = student
    card, searched = read_run(run), read_run(run.parent / "faces")
    assert (card.student_of, card.split, card.metric, card.refit_of) == ("faces/ensemble", searched.split, searched.metric, "")
    record, teacher = read_record(trial_folder(run, 0)), read_teacher(run, card)
    assert record.result.state == "finished" and record.has_model
    assert teacher.out_of_fold.all() and len(teacher.unseen.ids) == 28
    assert record.best["photos"] > 0 and record.config.loss.name == "cross_entropy"
    kept = json.loads((run / "kept.json").read_text())
    assert set(kept["answers"]) == {"best single model", "teacher", "student"}
    assert kept["taught"] == {"images": len(teacher.ids), "out_of_fold": len(teacher.ids), "unlabelled": 28}
    assert not missing(said, f"{kept['answers']['student']['score']:.3f}", "of the teacher's time")
    for place in (run, run.parent / "faces"):
        questions = json.loads((place / "holdout.json").read_text())["questions"]
        assert any(one.get("student") == "faces-student/0" for one in questions), "the look at the hold-out is written down"


@pytest.mark.nightly
def test_nothing_of_the_hold_out_is_taught(student, inside):
    run, _ = student
    held_out = {line.split(",")[0] for line in (run / "split.csv").read_text().splitlines() if ",holdout," in line}
    assert held_out and not held_out & set(read_teacher(run, read_run(run)).ids) and HOLDOUT < 0


@pytest.mark.nightly
def test_a_student_predicts_and_is_replayed_bitwise(student, demo, inside):
    run, _ = student
    found = CliRunner().invoke(predict, ["--ensemble", str(run / "ensemble"), "--photos", str(demo / "eval" / "images"), "--out", "a.csv"])
    assert found.exit_code == 0, found.output
    said = StringIO()
    code = replay(str(run), 0, epochs=None, folder=None, threads=None, console=Console(file=said, width=200))
    assert code == 0, said.getvalue()


@pytest.mark.nightly
def test_a_student_resumes_without_its_teacher_and_not_without_its_file(student, home, inside, ray_cluster):
    run, _ = student
    copied = shutil.copytree(run, run.with_name("copied"))
    aside = shutil.move(run.parent / "faces", home / "aside")
    try:
        edit(trial_folder(copied, 0) / "result.json", state="interrupted")
        options = Options(resume="copied", trials=TrialCount(1, more=True))
        assert search(options, Console(quiet=True), already(ray_cluster)) == 0
        assert read_record(trial_folder(copied, 1)).result.state == "finished"
        (copied / TEACHER).unlink()
        with pytest.raises(RunError) as caught:
            search(options, Console(quiet=True), never)
        assert not missing(str(caught.value), TEACHER)
    finally:
        shutil.move(aside, run.parent / "faces")


@pytest.mark.nightly
def test_a_space_is_searched_for_students(home, inside, ray_cluster, tmp_path):
    file = tmp_path / "students.yaml"
    values = "model: {backbone: test_resnet, weights: none}\nview: {size: 32}\nlabels: {teacher: {float: [0.5, 1.0]}}\n"
    file.write_text(f"run: {{trials: 2, epochs: 1}}\noptimizer: {{lr: 0.003}}\ntrain: {{batch_size: 16}}\n{values}")
    code, said = distilled(already(ray_cluster), "runs/faces/ensemble", space=str(file), name="students")
    assert code == 0, said
    shares = [read_record(trial_folder(home / "runs" / "students", number)).config.labels.teacher for number in range(2)]
    assert len(set(np.round(shares, 6))) == 2


@pytest.mark.nightly
def test_what_cannot_be_taught_leaves_no_run(home, inside, tmp_path, demo):
    def refused(*named, error=(RunError, DataError), **given) -> None:
        with pytest.raises(error) as caught:
            distilled(never, name="never", **given)
        assert not missing(str(caught.value), *named) and not Path("runs/never").exists()

    (tmp_path / "empty").mkdir()
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").write_text("no image")
    vote = "runs/faces/ensemble"
    refused("--images", tmp_path / "empty", ensemble=vote, images=tmp_path / "empty")
    refused("--images", "a.txt", ensemble=vote, images=tmp_path / "words")
    refused("model/backbone", "test_resnett", error=Exception, ensemble=vote, backbone="test_resnett")
    aside = Path(vote).rename("runs/faces/aside")
    try:
        shutil.copytree(aside, vote)
        edit(Path(vote) / "ensemble.json", format=99)
        text = (Path(vote) / "ensemble.json").read_text().replace('"format": 2', '"format": 99')
        (Path(vote) / "ensemble.json").write_text(text)
        refused("99", error=NewerFormatError, ensemble=vote)
        shutil.rmtree(vote)
        shutil.copytree(aside, vote)
        values = json.loads((Path(vote) / "ensemble.json").read_text())
        name, (file, *_) = next(iter(values["models"].items()))
        weights = Path("runs") / file
        weights.rename(weights.with_suffix(".aside"))
        try:
            refused(name, "are gone", ensemble=vote)
        finally:
            weights.with_suffix(".aside").rename(weights)
    finally:
        shutil.rmtree(vote)
        aside.rename(vote)
