"""Many classes of few images each: every command that looks at a search's trials answers, however few there are to fit on."""

import json
from itertools import product

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from analysis.ensemble.__main__ import app as ensemble
from analysis.leaks.__main__ import app as leaks
from analysis.mistakes.__main__ import app as mistakes
from analysis.suspects.__main__ import app as suspects

CLASSES, IMAGES = 12, 5


@pytest.fixture(scope="module")
def species(tmp_path_factory):
    """A folder of images for each of twelve classes; each image is a group of its own."""
    root = tmp_path_factory.mktemp("data") / "species"
    for kind, number in product(range(CLASSES), range(IMAGES)):
        pixels = np.random.default_rng((kind, number)).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        file = root / f"species{kind:02d}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return root


@pytest.fixture
def fine(species, make_run, tmp_path, monkeypatch):
    """A search whose validation split has at most four images of a class, and a refit of it on every fold."""
    monkeypatch.chdir(tmp_path)
    trials = [{"task": "joint", "seed": seed} for seed in range(3)]
    make_run(tmp_path / "runs", "fine", trials, data=species, cuts=())
    make_run(tmp_path / "runs", "fine-folds", trials, data=species, cuts=(), refit_of="fine")
    return tmp_path / "runs"


QUIET = pytest.mark.filterwarnings("error::UserWarning:sklearn")


@pytest.mark.parametrize("words", [(), ("--vote", "best", "--step", "none"), pytest.param(("--vote", "stack"), marks=QUIET)])
def test_the_ensemble_of_classes_with_fewer_images_than_inner_folds_answers(fine, words):
    result = CliRunner().invoke(ensemble, ["--run", "fine", *words])
    assert result.exit_code == 0, result.output
    found = json.loads((fine / "fine" / "ensemble" / "scores.json").read_text())
    assert 0 <= found["answers"][found["answer"]]["score"] <= 1


@pytest.mark.parametrize(
    ("command", "runs"),
    [(suspects, ("fine", "fine-folds")), (mistakes, ("fine", "fine-folds")), (leaks, ("fine", "fine-folds")), (ensemble, ("fine-folds",))],
    ids=["suspects", "mistakes", "leaks", "ensemble"],
)
def test_so_do_the_other_commands_on_one_fold_and_on_every_fold(fine, command, runs):
    for run in runs:
        result = CliRunner().invoke(command, ["--run", run])
        assert result.exit_code == 0, result.output


def test_one_group_that_validates_is_refused_with_the_command_that_helps_and_every_fold_answers(tmp_path, make_run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ["image,person,label"]
    for group, number in product(range(3), range(6)):
        pixels = np.random.default_rng((group, number)).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{group}-{number}.png")
        rows.append(f"{group}-{number}.png,{group},{'ab'[number % 2]}")
    data = tmp_path / "images.csv"
    data.write_text("\n".join(rows))
    trials = [{"task": "joint", "seed": seed} for seed in range(3)]
    make_run(tmp_path / "runs", "tiny", trials, data=data, cuts=())
    make_run(tmp_path / "runs", "tiny-folds", trials, data=data, cuts=(), refit_of="tiny")
    result = CliRunner().invoke(ensemble, ["--run", "tiny"])
    assert result.exit_code == 2 and "tuner.refit --run tiny --top 3 --folds 2" in result.stderr
    result = CliRunner().invoke(ensemble, ["--run", "tiny-folds"])
    assert result.exit_code == 0, result.output
