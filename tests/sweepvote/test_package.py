"""The wheel: what a user installs who never saw the repository."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.conftest import ROOT

PACKAGES = ("sweepvote", "tuner", "analysis", "trainables", "search_spaces")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", folder, ROOT], check=True)
    (file,) = folder.glob("*.whl")
    return file


def test_it_holds_every_file_of_the_packages_and_nothing_else(wheel):
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held >= set(tracked), "a page without its template, a space that is missing"
    assert {name.partition("/")[0] for name in held} == set(PACKAGES)


def test_installed_elsewhere_it_runs_outside_the_clone(wheel, tmp_path):
    """With the libraries of this environment: the set-up of an empty one takes a minute, and is a nightly test."""
    place = tmp_path / "environment"
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, place], check=True)
    subprocess.run(["uv", "pip", "install", "--quiet", "--no-deps", "--python", place / "bin" / "python", wheel], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert "quickstart" in run(place, tmp_path, place / "bin" / "sweepvote", "spaces")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    code = "import sweepvote, tuner, trainables.versions as own\nprint(sweepvote.__file__, tuner.__file__, own.code_version())"
    (tmp_path / "where.py").write_text(code)
    *found, of_records = run(place, tmp_path, place / "bin" / "python", "where.py").split()
    assert all(Path(file).is_relative_to(site) for file in found)
    assert of_records == wheel.name.split("-")[1], "the version, not the commit of a repository around the environment"


@pytest.mark.nightly
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_pip_sets_it_up_in_an_empty_environment(wheel, tmp_path, version):
    python = subprocess.run(["uv", "python", "find", version], capture_output=True, text=True, cwd=tmp_path)
    if python.returncode:
        pytest.skip(f"no Python {version} here")
    place = tmp_path / "environment"
    subprocess.run(["uv", "venv", "--quiet", "--python", python.stdout.strip(), place], check=True)
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", place / "bin" / "python", wheel], check=True)
    size = ("--trials", "2", "--set", "run/epochs=1", "--set", "run/grace=1", "--finalists", "0", "--name", "first", "--no-answer")
    run(place, tmp_path, place / "bin" / "sweepvote", "search", "--space", "quickstart", *size)
    assert "hold-out" in run(place, tmp_path, place / "bin" / "sweepvote", "vote", "--run", "first", "--top", "2")


def run(place: Path, folder: Path, *words: str | Path) -> str:
    settings = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(list(map(str, words)), cwd=folder, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
