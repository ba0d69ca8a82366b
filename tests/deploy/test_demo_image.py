"""The image that serves an exported ensemble without PyTorch."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import typer

from analysis.demo.__main__ import app

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "deploy" / "demo"


def lines(file: str) -> list[str]:
    return [line for line in (FOLDER / file).read_text().splitlines() if line and not line.startswith("#")]


def test_it_installs_the_versions_that_the_project_pins_and_neither_torch_nor_ray_nor_timm():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    known = {
        *project["tool"]["uv"]["constraint-dependencies"],
        *(one for one in project["dependency-groups"]["dev"] if isinstance(one, str)),
    }
    installed = lines("requirements.txt")
    assert set(installed) <= known
    assert not {"torch", "ray", "timm", "matplotlib", "scikit-learn"} & {one.partition("==")[0] for one in installed}


def test_it_copies_what_is_there_and_starts_a_command_that_there_is():
    copied = [shlex.split(line)[1:-1] for line in lines("Dockerfile") if line.startswith("COPY")]
    assert all((ROOT / source).exists() for sources in copied for source in sources)
    (start,) = (json.loads(line.removeprefix("CMD ")) for line in lines("Dockerfile") if line.startswith("CMD"))
    assert start[:3] == ["python", "-m", "analysis.demo"]
    command = typer.main.get_command(app)
    assert {option for option in start if re.match("--", option)} <= {name for one in command.params for name in one.opts}
