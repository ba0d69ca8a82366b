"""What is printed to be typed: a shell hands it on as one run, whatever that is called."""

import shlex
import sys

import pytest

from trainables.commands import UV, typed
from trainables.record import RUNS, find_run
from tuner.runs import resume_command, vote_command

NAMES = ("quick-1", "my faces", "faces (2)", "it's", "a[b]", "x; true", "$HOME")


@pytest.fixture(params=NAMES)
def name(request, tmp_path, monkeypatch) -> str:
    """Of a run in runs/ and of another elsewhere."""
    monkeypatch.chdir(tmp_path)
    for folder in (RUNS / request.param, tmp_path / "else where" / request.param):
        folder.mkdir(parents=True)
        (folder / "run.json").touch()
    return request.param


def test_a_command_names_a_run_in_runs_by_its_name_alone(name, monkeypatch):
    monkeypatch.setenv(UV, "/usr/bin/uv")
    start = ["uv", "run", "python", "-m"]
    for run in (RUNS / name, RUNS.resolve() / name):
        assert shlex.split(resume_command(run)) == [*start, "tuner.run", "--resume", name]
        assert shlex.split(resume_command(run, "tuner.refit")) == [*start, "tuner.refit", "--resume", name]
        assert shlex.split(vote_command(run, 8)) == [*start, "analysis.ensemble", "--top", "3", "--run", name]


def test_a_command_names_a_run_elsewhere_so_that_it_is_found(name, tmp_path):
    run = tmp_path / "else where" / name
    for command in (resume_command(run), vote_command(run, 1)):
        assert find_run(shlex.split(command)[-1]) == run


def test_python_is_called_as_it_was_for_the_command_that_prints(tmp_path, monkeypatch):
    monkeypatch.setenv(UV, "/usr/bin/uv")
    assert shlex.split(typed("tuner.run --resume faces")) == ["uv", "run", "python", "-m", "tuner.run", "--resume", "faces"]
    monkeypatch.delenv(UV)
    folder = tmp_path / "my environment"
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    assert shlex.split(typed("tuner.run")) == [str(folder / "python"), "-m", "tuner.run"]
    monkeypatch.setenv("PATH", str(folder))
    assert shlex.split(typed("tuner.run")) == ["python", "-m", "tuner.run"]
    (folder / "python3").symlink_to("python")
    monkeypatch.setattr(sys, "executable", str(folder / "python3"))
    assert shlex.split(typed("tuner.run")) == ["python", "-m", "tuner.run"]
