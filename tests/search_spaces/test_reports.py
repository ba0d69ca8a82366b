"""The commands in the header of each space in reports/ lead from images to a submission, as they are written there.

Images, networks and epochs are fewer and smaller; the commands are those of the header.
"""

import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.reports import RECIPES, commands_of, header_of, swapped
from tests.test_documents import parsed
from tests.typed import typed
from trainables.record import read_records

# A space of the same name in the current folder, which comes before the shipped one: that one, with less to train.
SMALL = """
extends: {name}
data:   {{holdout: 0.2, folds: 2}}
on_cpu: {{run: {{trials: {trials}, epochs: 2, grace: 1, finalists: {finalists}}}, view: {{size: 32}}, train: {{batch_size: 16}}}}
"""
# What a laptop takes in the place of a word, and what this test does.
SWAPS = {"beit_base_patch16_224": "test_vit", "imagenet": "none", "view/size=384": "view/size=48", "20": "2"}

every_report = pytest.mark.parametrize("name", RECIPES)


@pytest.fixture
def run(tmp_path, demo, cache):
    """Runs all commands of a report's header beside a folder of drawn people, and gives what each printed and the folder."""

    def of(name: str, trials: int, finalists: int = 4) -> tuple[dict[str, str], Path]:
        (tmp_path / "faces").symlink_to(demo)
        (tmp_path / "reports").mkdir()
        (tmp_path / name).write_text(SMALL.format(name=name, trials=trials, finalists=finalists))
        commands = [[swapped(word, SWAPS) for word in words] for words in commands_of(name)]
        heard = {shlex.join(words): typed(tmp_path, words, CUDA_VISIBLE_DEVICES="") for words in commands}
        return heard, tmp_path

    return of


def submission(file: Path, demo: Path) -> pd.DataFrame:
    """A submission that has an answer for each image to predict, in their order."""
    found, asked = pd.read_csv(file), pd.read_csv(demo / "eval" / "info.csv")
    assert list(found) == ["ImageID", "ans"] and found["ImageID"].tolist() == asked["ImageID"].tolist()
    assert found["ans"].between(0, 17).all()
    return found


def scores(run: Path) -> dict:
    return json.loads((run / "ensemble" / "scores.json").read_text())


def values_of(run: Path) -> list[dict]:
    return [record.config.values() for record in read_records(run)]


def test_there_is_a_space_for_each_report():
    assert [f"reports/{number:03}.yaml" for number in range(5)] == [*RECIPES]


@every_report
def test_a_header_begins_with_a_search_of_its_space_and_has_only_options_that_there_are(name):
    first, *others = commands_of(name)
    assert first[:7] == ["python", "-m", "tuner.run", "--space", name, "--data", "faces"] and others
    for words in (first, *others):
        parsed(words)
    assert "submission.csv" in header_of(name)


@pytest.mark.nightly
@pytest.mark.faults
def test_report_000_votes_over_sizes_and_normalisations(run, demo):
    _, folder = run("reports/000.yaml", trials=4)
    runs = [folder / "runs" / name for name in ("small", "small-own", "large")]
    assert [{(values["view"]["size"], values["normalize"]) for values in values_of(one)} for one in runs] == [
        {(32, "imagenet")},
        {(32, "dataset")},
        {(48, "imagenet")},
    ]
    assert {values["task"] for values in values_of(runs[0])} == {"mask", "gender", "age"}
    votes = np.stack([submission(one / "ensemble" / "submission.csv", demo)["ans"] for one in runs])
    last = submission(folder / "submission.csv", demo)["ans"].to_numpy()
    agree = np.array([np.bincount(column, minlength=18).max() > 1 for column in votes.T])
    most = np.array([np.bincount(column, minlength=18).argmax() for column in votes.T])
    assert (last[agree] == most[agree]).all(), "the majority answers"


@pytest.mark.nightly
@pytest.mark.faults
def test_report_001_learns_the_number_pseudo_labels_and_from_further_pre_training_and_stacks(run, demo):
    _, folder = run("reports/001.yaml", trials=7)
    runs = [folder / "runs" / name for name in ("nets", "pseudo", "beit")]
    assert 0.05 in {values["loss"]["regression"] for values in values_of(runs[0]) if values["task"] == "age"}
    assert list((runs[0] / "suspects").iterdir())
    assert len(pd.read_csv(runs[1] / "extra.csv")) == len(pd.read_csv(demo / "eval" / "info.csv"))
    assert {(values["model"]["backbone"], values["model"]["weights"]) for values in values_of(runs[2])} == {
        ("test_vit", "weights/test_vit-pretrained.safetensors")
    }
    found = scores(runs[1])
    assert found["answer"] == "stack" and {Path(one).name for one in found["settings"]["runs"]} == {"pseudo", "beit", "finalists"}
    submission(runs[1] / "ensemble" / "submission.csv", demo)


@pytest.mark.nightly
@pytest.mark.faults
def test_report_002_asks_small_questions_and_serves_a_page(run, demo):
    heard, folder = run("reports/002.yaml", trials=5)
    tried = values_of(folder / "runs" / "questions")
    assert {str(values["task"]) for values in tried} == {"joint", "mask", "[['gender', 'age<30']]", "age>=60"}
    assert "oversample" in {values["sampler"]["name"] for values in tried}
    submission(folder / "runs" / "questions" / "ensemble" / "submission.csv", demo)
    assert len(pd.read_csv(folder / "answers.csv")) == len(pd.read_csv(demo / "eval" / "info.csv"))
    assert "http://" in heard["python -m analysis.demo --ensemble runs/questions/ensemble"]


@pytest.mark.nightly
@pytest.mark.faults
def test_report_003_trains_pairs_of_backbones_again_with_other_seeds(run, demo):
    _, folder = run("reports/003.yaml", trials=9, finalists=0)
    tried = values_of(folder / "runs" / "pairs")
    assert {values["model"]["second"] for values in tried} == {"", "test_resnet"}
    assert "cosine_ce" in {values["loss"]["name"] for values in tried} and "number" in {values["loss"]["ordinal"] for values in tried}
    again = values_of(folder / "runs" / "pairs-refit")
    assert len({values["seed"] for values in again}) == 3 and len(again) == 9
    found = scores(folder / "runs" / "pairs")
    assert not found["left_out"] and any("pairs-refit" in one["name"] for one in found["members"])
    submission(folder / "runs" / "pairs" / "ensemble" / "submission.csv", demo)


@pytest.mark.nightly
@pytest.mark.faults
def test_report_004_cuts_out_faces_and_lets_three_whole_networks_vote(run, demo):
    _, folder = run("reports/004.yaml", trials=4)
    first = values_of(folder / "runs" / "winner")[0]
    assert first["view"]["crop"] == "face" and first["labels"]["remove"] == [[27, 29], [57, 59]]
    assert first["mix"] == {"name": "cutmix_vertical", "prob": 0.7, "low": 0.46, "high": 0.54}
    assert (first["loss"]["name"], first["sampler"]["name"], first["optimizer"]["name"]) == ("soft_f1", "weighted", "adam")
    found = scores(folder / "runs" / "winner")
    assert found["answer"].startswith("hard") and [step["name"] for step in found["steps"] if step["asked"]] == ["top_two"]
    assert 1 < len(found["members"]) <= 3 and all(len(one["trials"]) == 1 for one in found["members"])
    assert list((folder / "runs" / "winner" / "mistakes").iterdir())
    submission(folder / "runs" / "winner" / "ensemble" / "submission.csv", demo)
