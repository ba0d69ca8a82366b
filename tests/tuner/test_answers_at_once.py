"""Help and mistakes are answered without Ray, torch or what decodes images: all of these take seconds to import."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

HEAVY = ("ray", "torch", "timm", "albumentations", "matplotlib")
WATCHED = f"""
import runpy, sys
sys.argv[0] = sys.argv[1]
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
finally:
    imported = [name for name in {HEAVY!r} if name in sys.modules]
    print("imported:", *imported)
"""


def answer(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and words of a command, which may not import what is heavy."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", WATCHED, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "imported:", done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["tuner.run", "tuner.refit", "tuner.replay", "tuner.pretrain"])
def test_help(module, tmp_path):
    code, words = answer(tmp_path, module, "--help")
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
    ],
)
def test_a_mistake(command, named, tmp_path):
    code, said = answer(tmp_path, *shlex.split(command))
    assert code == 2, said
    assert named in said and "Traceback" not in said
    assert not list(tmp_path.glob("runs/*"))
