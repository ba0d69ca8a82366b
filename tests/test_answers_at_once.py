"""Help and mistakes are answered before anything is imported that takes seconds."""

import json
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

HEAVY = ("ray", "torch", "torchvision", "timm", "albumentations", "matplotlib", "sklearn", "cleanlab", "onnxruntime")
# Tables and runs are read with these; help needs none of them.
FOR_HELP = (*HEAVY, "pyarrow", "pandas", "scipy", "cv2", "fsspec", "skimage", "optuna")
COMMANDS = (
    *(f"tuner.{name}" for name in ("run", "refit", "replay", "pretrain")),
    *(f"analysis.{file.parent.name}" for file in sorted((ROOT / "analysis").glob("*/__main__.py"))),
    "trainables.cache",
    "search_spaces.describe",
)
OVER_RUNS = ("ensemble", "report", "leaks", "soup", "suspects", "mistakes")
WATCHED = f"""
import runpy, sys
sys.argv[0] = sys.argv[1]
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
finally:
    imported = [name for name in {FOR_HELP!r} if name in sys.modules]
    print("imported:", *imported)
"""


def answer(folder: Path, *words: str, heavy: tuple[str, ...] = HEAVY) -> tuple[int, str]:
    """Exit code and words of a command, which may not import what is heavy."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", WATCHED, *words], cwd=folder, env=environment, capture_output=True, text=True)
    _, *imported = done.stdout.splitlines()[-1].split()
    assert not set(imported) & set(heavy), done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("module", COMMANDS)
def test_help(module, tmp_path):
    code, words = answer(tmp_path, module, "--help", heavy=FOR_HELP)
    assert code == 0, words
    assert "Usage" in words


@pytest.mark.parametrize(
    "command, named",
    [
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
        ("tuner.run --space quickstart --set 'task={choice: [mask, gender, age]}'", "task"),
        ("tuner.refit", "--run"),
        ("tuner.refit --run faces --folds 2", "faces"),
        ("tuner.refit --resume faces", "faces"),
        ("tuner.refit --run faces --folds 2 --all-data", "--all-data"),
        ("tuner.replay", "--run"),
        ("tuner.replay --run faces --trial 1", "faces"),
        ("tuner.pretrain", "--backbone"),
        *((f"analysis.{name}", "tuner.run") for name in OVER_RUNS),  # without any run
        *((f"analysis.{name} --run faces", "faces") for name in OVER_RUNS),
        ("analysis.ensemble --top few", "--top"),
        ("analysis.ensemble --per colour", "colour"),
        ("analysis.ensemble --per task --diverse", "--diverse"),
        ("analysis.ensemble --csv nowhere.csv", "--csv"),
        ("analysis.mistakes --side left", "--side"),
        ("analysis.soup --top 1", "--top"),
        ("analysis.leaks --distance 99", "--distance"),
        ("analysis.suspects --most 0", "--most"),
        ("analysis.predict", "--ensemble"),
        ("analysis.predict --ensemble nowhere --photos nowhere --out missing/answers.csv", "missing"),
        ("analysis.export", "--ensemble"),
        ("analysis.export --run faces --trial 1", "faces"),
        ("analysis.export --ensemble nowhere", "nowhere"),
    ],
)
def test_a_mistake(command, named, tmp_path):
    code, said = answer(tmp_path, *shlex.split(command))
    assert code == 2, said
    assert named in said and "Traceback" not in said
    assert not list(tmp_path.glob("runs/*"))


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


@pytest.mark.parametrize(
    "command, named",
    [
        *((f"analysis.{name} --run damaged", "damaged/run.json") for name in OVER_RUNS),
        ("analysis.ensemble --run format1 --run faces", "format1"),
        ("analysis.ensemble --run format1 --vote loud", "loud"),
        ("analysis.ensemble --run format1 --step back", "back"),
        ("analysis.ensemble --run format1 --top 40", "40"),
        ("analysis.ensemble --run format1 --members format1/9", "format1/9"),
        ("analysis.mistakes --run format1 --top 40", "40"),
        ("analysis.export --run format1 --trial 9", "9"),
        ("tuner.replay --run format1 --trial 9", "9"),
        ("tuner.refit --run format1 --folds 9", "--folds 2"),
        ("tuner.run --resume format1 --name faces", "--name"),
    ],
)
def test_a_mistake_about_a_run_that_exists(command, named, searched):
    code, said = answer(searched, *shlex.split(command))
    assert code == 2, said
    assert named in said and "Traceback" not in said
