"""`sweepvote COMMAND`: the commands of all packages under one name."""

import ast
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from analysis.command import refusals
from search_spaces.shadowing import shadows_in
from tests.conftest import ROOT
from tests.messages import missing
from trainables.commands import COMMANDS, OURS, typed
from trainables.console import STOPPED
from trainables.record import RunError
from tuner.cli import ray_starter


def sweepvote(*words: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    code = "import sys; sys.argv[0] = 'sweepvote'; from sweepvote.cli import main; main()"
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment}
    return subprocess.run([sys.executable, "-c", code, *words], cwd=folder, env=settings, capture_output=True, text=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_of_a_command_is_the_first_one_of_its_own_help(name):
    module = COMMANDS[name].words.split()[0]
    file = next(file for file in (ROOT / f"{module.replace('.', '/')}{end}" for end in (".py", "/__main__.py")) if file.is_file())
    helps = [ast.get_docstring(node) or "" for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    if COMMANDS[name].words == module:
        assert COMMANDS[name].help in [words.partition("\n")[0] for words in helps]


def test_all_commands_of_analysis_are_there():
    packages = {f"analysis.{file.parent.name}" for file in (ROOT / "analysis").glob("*/__main__.py")}
    assert packages <= {command.words for command in COMMANDS.values()}
    assert all(find_spec(command.words.split()[0]) for command in COMMANDS.values())


def test_without_a_name_it_lists_all_and_a_misspelt_one_is_refused_with_the_nearest():
    done = sweepvote()
    assert done.returncode == 0 and not missing(done.stdout, *COMMANDS, "Exit codes")
    done = sweepvote("serch", "--space", "quickstart.yaml")
    assert done.returncode == 2 and not missing(done.stderr, "serch", "did you mean search")


def test_a_command_does_what_its_module_does_and_says_what_to_type_in_the_same_way(tmp_path):
    done = sweepvote("vote", "--run", "faces", folder=tmp_path)
    assert done.returncode == 2 and not missing(done.stderr, "'faces' in runs/", "sweepvote search makes one")
    done = sweepvote("resume", "faces", folder=tmp_path)
    assert done.returncode == 2 and "'faces' in runs/" in done.stderr
    done = sweepvote("resume")
    assert done.returncode == 2 and not missing(done.stderr, "resume takes the name", "sweepvote runs")
    assert "Usage: sweepvote resume" in sweepvote("resume", "--help").stdout
    assert sweepvote("spaces", "quickstart").stdout == (ROOT / "search_spaces" / "quickstart.yaml").read_text()


@pytest.mark.parametrize(
    "words, expected",
    [
        ("tuner.run --resume faces", "sweepvote resume faces"),
        ("tuner.run", "sweepvote search"),
        ("analysis.ensemble --run faces", "sweepvote vote --run faces"),
    ],
)
def test_what_is_printed_to_be_typed_is_the_installed_command_where_that_was_used(words, expected, monkeypatch):
    monkeypatch.setenv(OURS, "search")
    monkeypatch.delenv("UV", raising=False)
    assert typed(words) == expected


def test_a_module_of_the_users_in_the_place_of_a_package_is_named(tmp_path):
    (tmp_path / "analysis.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = subprocess.run([sys.executable, "-m", "tuner.run"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert command.returncode == 2 and f"{tmp_path}/analysis.py" in command.stderr and "Traceback" not in command.stderr
    code = "try:\n    import sweepvote\nexcept ImportError as error:\n    print(error)"
    called = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert f"{tmp_path}/analysis.py" in called.stdout


def test_so_is_one_that_ray_would_find_before_ours_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "tuner.py").write_text("")
    monkeypatch.chdir(tmp_path)
    with ray_starter(None, dashboard=False) as start, pytest.raises(RunError) as caught:
        start(0)
    assert not missing(str(caught.value), f"{tmp_path}/tuner.py", "Rename it")
    monkeypatch.chdir(ROOT)
    assert shadows_in(Path()) == "", "our own folder is none"


def test_asked_for_json_a_command_prints_one_document_and_all_else_on_stderr(tmp_path):
    done = sweepvote("runs", "--json", folder=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout) == {"storage": "runs", "runs": []} and "There is no run" in done.stderr
    assert set(json.loads(sweepvote("spaces", "--json").stdout)["spaces"]) >= {"quickstart", "effnet"}


def test_ctrl_c_while_a_command_looks_at_a_run_ends_it_with_130_and_no_traceback(capsys):
    with pytest.raises(typer.Exit) as ended, refusals():
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130 and capsys.readouterr().err.strip() == STOPPED
