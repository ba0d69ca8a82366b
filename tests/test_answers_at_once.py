"""Help and mistakes are answered before anything is imported that takes seconds."""

import json
import os
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trainables.commands import COMMANDS as ours

HEAVY = ("ray", "torch", "torchvision", "timm", "albumentations", "matplotlib", "sklearn", "cleanlab", "onnxruntime", "mlflow", "wandb")
# Tables and runs are read with these; help needs none of them.
FOR_HELP = (*HEAVY, "pyarrow", "pandas", "scipy", "cv2", "fsspec", "skimage", "optuna")
COMMANDS = (*dict.fromkeys(command.words.split()[0] for command in ours.values()), "search_spaces.describe")
OVER_RUNS = ("ensemble", "report", "leaks", "soup", "suspects", "mistakes", "advise")
# Gives one command after the other.
WATCHED = f"""
import json, runpy, sys, traceback
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
for words in json.load(sys.stdin):
    before, said, code = set(sys.modules), StringIO(), 0
    sys.argv = list(words)
    with redirect_stdout(said), redirect_stderr(said):
        try:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
            code = 1
    print(json.dumps([code or 0, said.getvalue(), [name for name in {FOR_HELP!r} if name in sys.modules and name not in before]]))
"""


@dataclass(frozen=True)
class Answer:
    """To a command."""

    code: int
    said: str
    imported: list[str]  # of what takes seconds, as far as no command before had imported it


def answers(folder: Path, commands: Iterable[str]) -> dict[str, Answer]:
    """To commands that one fresh process gives in turn: what each of them has imported is there for the next."""
    words = {command: shlex.split(command) for command in commands}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    asked = json.dumps(list(words.values()))
    done = subprocess.run([sys.executable, "-c", WATCHED], input=asked, cwd=folder, env=environment, capture_output=True, text=True)
    return {command: Answer(*json.loads(line)) for command, line in zip(words, done.stdout.splitlines(), strict=True)}


def assert_refused(answer: Answer, named: str) -> None:
    assert answer.code == 2 and not set(answer.imported) & set(HEAVY), answer
    assert named in answer.said and "Traceback" not in answer.said


@pytest.fixture(scope="module")
def helped(tmp_path_factory) -> dict[str, Answer]:
    return answers(tmp_path_factory.mktemp("helped"), [f"{module} --help" for module in COMMANDS])


@pytest.mark.parametrize("module", COMMANDS)
def test_help(module, helped):
    answer = helped[f"{module} --help"]
    assert answer.code == 0 and not answer.imported, answer
    assert "Usage" in answer.said and f"python -m {module} " in answer.said, "it teaches by example"


MISTAKES = [
    ("tuner.run", "--space"),
    ("tuner.run --space effnett", "effnett"),
    ("tuner.run --resume faces", "faces"),
    ("tuner.run --space quickstart --trials 0", "--trials"),
    ("tuner.run --space quickstart --time-budget soon", "--time-budget"),
    ("tuner.run --space quickstart --data nowhere", "nowhere"),
    ("tuner.run --space quickstart --name ../elsewhere", "elsewhere"),
    ("tuner.run --space quickstart --storage ftp://host/runs", "ftp://"),
    ("tuner.run --space quickstart --set loss/gama=2", "loss/gama"),
    ("tuner.run --space quickstart --set run/trails=2", "run/trails"),
    ("tuner.refit", "--run"),
    ("tuner.refit --run faces --folds 2", "faces"),
    ("tuner.refit --resume faces", "faces"),
    ("tuner.refit --run faces --folds 2 --all-data", "--all-data"),
    ("tuner.replay", "--run"),
    ("tuner.probe", "--space"),
    ("tuner.replay --run faces --trial 1", "faces"),
    ("tuner.pretrain", "--backbone"),
    ("tuner.watch faces", "faces"),
    ("tuner.watch faces --port 70000", "--port"),
    ("tuner.enqueue faces --set loss/gamma=2", "faces"),
    ("tuner.stop faces", "faces"),
    ("tuner.spare faces", "--trial"),
    *((f"analysis.{name}", "tuner.run") for name in OVER_RUNS),  # without any run
    *((f"analysis.{name} --run faces", "faces") for name in OVER_RUNS),
    ("analysis.ensemble --top few", "--top"),
    ("analysis.ensemble --per colour", "colour"),
    ("analysis.ensemble --per task --diverse", "--diverse"),
    ("analysis.ensemble --csv nowhere.csv", "--csv"),
    ("analysis.mistakes --part left", "--part"),
    ("analysis.soup --top 1", "--top"),
    ("analysis.leaks --distance 99", "--distance"),
    ("analysis.suspects --most 0", "--most"),
    ("analysis.predict", "--ensemble"),
    ("analysis.predict --ensemble nowhere --photos nowhere --out missing/answers.csv", "missing"),
    ("analysis.export_mlflow", "RUN"),
    ("analysis.export_wandb faces", "faces"),
    ("analysis.export_mlflow faces", "faces"),
    ("analysis.export", "--ensemble"),
    ("analysis.export --run faces --trial 1", "faces"),
    ("analysis.export --ensemble nowhere", "nowhere"),
]


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """A working folder without any run."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def refused(empty) -> dict[str, Answer]:
    return answers(empty, dict(MISTAKES))


@pytest.mark.parametrize("command, named", MISTAKES)
def test_a_mistake(command, named, refused, empty):
    assert_refused(refused[command], named)
    assert not list(empty.glob("runs/*"))


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Path:
    """A working folder with a run of four trials; another run's card is damaged."""
    folder = tmp_path_factory.mktemp("searched")
    with zipfile.ZipFile(ROOT / "tests/old_runs/format1.zip") as archive:
        archive.extractall(folder)
    card = json.loads((folder / "runs/format1/run.json").read_text())
    (folder / "runs/format1/run.json").write_text(json.dumps(card | {"data": str(folder / "people")}))
    (folder / "runs/damaged").mkdir()
    (folder / "runs/damaged/run.json").write_text("{")
    return folder


MISTAKES_ABOUT_A_RUN = [
    *((f"analysis.{name} --run damaged", "damaged/run.json") for name in OVER_RUNS),
    ("analysis.ensemble --run format1 --run faces", "format1"),
    ("analysis.ensemble --run format1 --vote loud", "loud"),
    ("analysis.ensemble --run format1 --step back", "back"),
    ("analysis.ensemble --run format1 --top 0", "0"),
    ("analysis.ensemble --run format1 --members format1/9", "format1/9"),
    ("analysis.mistakes --run format1 --top 0", "0"),
    ("analysis.export --run format1 --trial 9", "9"),
    ("tuner.replay --run format1 --trial 9", "9"),
    ("tuner.refit --run format1 --folds 9", "--folds 2"),
    ("tuner.run --resume format1 --name faces", "--name"),
    ("tuner.enqueue format1 --set optimizer/lr=fast", "fast"),
    ("tuner.stop format1", "--resume format1"),
    ("tuner.spare format1 --trial 0", "--resume format1"),
]


@pytest.fixture(scope="module")
def refused_of_a_run(searched) -> dict[str, Answer]:
    return answers(searched, dict(MISTAKES_ABOUT_A_RUN))


@pytest.mark.parametrize("command, named", MISTAKES_ABOUT_A_RUN)
def test_a_mistake_about_a_run_that_exists(command, named, refused_of_a_run):
    assert_refused(refused_of_a_run[command], named)
