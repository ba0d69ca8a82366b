"""Each command of README and docs runs, as it is written, in a folder that has what its page speaks of."""

import re
import shlex
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from tests.conftest import TINY_SPACE
from tests.faults.commands import Command, start
from tests.test_documents import commands
from tests.typed import typed
from trainables.record import read_records

pytestmark = [pytest.mark.nightly, pytest.mark.faults]

# What takes minutes to hours to measure: each benchmark is run in small by tests/test_benchmarks.py.
MEASURED = re.compile(r"python -m benchmarks\.")
# Commands that speak to a server of somebody else's: tests/analysis/export_mlflow starts a real one.
ELSEWHERE = re.compile(r"sweepvote export-mlflow")
# Named in a sentence, with what it needs left out.
NAMED = {"sweepvote search", "sweepvote vote", "sweepvote export", "python -m tuner.run", "python -m analysis.ensemble"}
# No hub is asked in a test.
HUB = {"model/weights=imagenet": "model/weights=none"}
# Ask something of a search that runs.
LIVE = re.compile(r"sweepvote (stop|spare|enqueue)\b")
# Spaces of the shipped ones' names, with two tiny trials in them: what lies in the current folder comes first.
SMALL = """
run:       {trials: 2, epochs: 2, grace: 1, finalists: 2}
data:      {holdout: 0.2, folds: 2}
view:      {size: 32}
model:     {backbone: test_efficientnet, weights: test_efficientnet.safetensors, dropout: 0.1}
loss:      {name: {choice: [cross_entropy, focal]}}
optimizer: {lr: {float: [1.0e-3, 1.0e-2], log: true}}
train:     {batch_size: 16}
"""


def shown(pages: Callable[[str], bool]) -> list[list[str]]:
    """The commands of some pages, each once, in the order of the pages."""
    lines = {shlex.join(words): words for page, words in commands() if pages(page)}
    kept = [words for line, words in lines.items() if line not in NAMED and not MEASURED.match(line) and not ELSEWHERE.match(line)]
    assert kept
    return kept


def draw(file: Path, colour: int, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 60, (40, 40, 3))
    noise[..., colour] += 150
    Image.fromarray(noise.astype(np.uint8)).save(file)


def write_spaces(folder: Path) -> None:
    weights = timm.create_model("test_efficientnet", num_classes=0).state_dict()
    save_file(weights, folder / "test_efficientnet.safetensors")
    for name in ("effnet", "resnet", "vit", "mobilenet", "quickstart", "trash"):
        (folder / f"{name}.yaml").write_text(
            SMALL.replace("focal]", "asymmetric]").replace("cross_entropy", "bce") if name == "vit" else SMALL
        )


def write_flowers(folder: Path) -> None:
    for name in ("flowers", "trashnet"):
        for number in range(60):
            draw(folder / name / ("rose", "tulip")[number % 2] / f"{number}.png", number % 2, number)
    for number in range(3):
        draw(folder / "new" / f"{number}.png", number % 2, 100 + number)


@pytest.fixture
def run_in(tmp_path, cache) -> Callable[[list[str]], str]:
    """Runs a command in the folder, and gives what it printed."""
    return partial(typed, tmp_path)


def test_those_of_the_readme(tmp_path, run_in):
    write_spaces(tmp_path)
    write_flowers(tmp_path)
    rows = [(f"pictures/{number}.png", ("ant", "bee")[number % 2], number // 2) for number in range(60)]
    for number, (name, *_) in enumerate(rows):
        draw(tmp_path / name, number % 2, number)
    pd.DataFrame(rows, columns=["image", "species", "patient"]).to_csv(tmp_path / "labels.csv", index=False)
    tags = [(f"{number}.png", number % 2, number % 3 // 2) for number in range(60)]
    for number, (name, *_) in enumerate(tags):
        draw(tmp_path / "photos" / name, number % 2, number)
    pd.DataFrame(tags, columns=["image", "sea", "sky"]).to_csv(tmp_path / "photos" / "labels.csv", index=False)

    for words in shown(lambda page: page == "README.md"):
        run_in(words)
    assert (tmp_path / "runs" / "quickstart-1" / "report" / "index.html").is_file()
    assert len(pd.read_csv(tmp_path / "answers.csv")) == 3
    assert list((tmp_path / "onnx").rglob("*.onnx"))


def write_what_pages_speak_of(folder: Path, run_in: Callable[[list[str]], str], demo: Path) -> None:
    write_spaces(folder)
    write_flowers(folder)
    shutil.copytree(demo, folder / "photos")
    for number in range(20):
        draw(folder / "more_photos" / f"{number}.png", number % 2, 200 + number)
    faces = SMALL.replace("trials: 2, epochs: 2", "trials: 14, keep: 99, epochs: 3").replace("finalists: 2", "finalists: 0")
    (folder / "faces.yaml").write_text(faces)
    (folder / "edited.yaml").write_text(faces.replace("1.0e-3, 1.0e-2", "2.0e-3, 1.0e-2"))
    run_in(shlex.split("sweepvote search --space faces.yaml --data photos --name faces"))
    run_in(shlex.split("sweepvote vote --run faces"))


def write_tables(folder: Path, run_in: Callable[[list[str]], str]) -> None:
    """Three tables of answers, one of the class of each image, and one of other things on images."""
    for name in "abc":
        run_in(shlex.split(f"sweepvote predict --ensemble runs/faces/ensemble --photos photos/eval/images --out {name}.csv"))
    answers = pd.read_csv(folder / "a.csv")
    classes = answers.filter(regex=r"^P\(").idxmax(axis=1).str[2:-1]
    pd.DataFrame({"image": answers["image"], "class": classes}).to_csv(folder / "truth.csv", index=False)
    number = np.arange(60)
    for one in number:
        draw(folder / "pictures" / f"{one}.png", one % 2, one)
    kinds = {"view": np.where(number % 2, "left", "right"), "sex": np.where(number % 3, "f", "m"), "age": 20 + number, "patientid": number}
    pd.DataFrame({"image": [f"pictures/{one}.png" for one in number]} | kinds).to_csv(folder / "labels.csv", index=False)


def test_those_of_the_pages(tmp_path, run_in, demo):
    write_what_pages_speak_of(tmp_path, run_in, demo)
    for target in ("mask", "gender"):
        run_in(shlex.split(f"sweepvote search --space effnet.yaml --data photos --set task={target} --name {target}s"))
    ages = [words for words in shown(lambda page: page == "searching.md") if "ages" in words]
    for words in ages:
        run_in(words)
    write_tables(tmp_path, run_in)

    for words in shown(lambda page: page != "README.md"):
        if words not in ages and not LIVE.match(shlex.join(words)):
            run_in([HUB.get(word, word) for word in words])
    assert list(pd.read_csv(tmp_path / "vote.csv"))[0] == "image"
    assert (tmp_path / "runs" / "faces-student" / "kept.json").is_file() and list((tmp_path / "exported").glob("*int8.onnx"))


def test_those_that_ask_something_of_a_search(tmp_path, run_in, demo):
    (tmp_path / "photos").symlink_to(demo)
    (tmp_path / "faces.yaml").write_text(TINY_SPACE.replace("trials: 4, epochs: 4", "pruner: none, trials: 40, epochs: 400"))
    search: Command = start(tmp_path, "tuner.run", "--space", "faces.yaml", "--data", "photos", "--name", "faces")
    run = tmp_path / "runs" / "faces"

    def at_work() -> set[int]:
        return {record.number for record in read_records(run) if record.reports and record.result.state == "interrupted"}

    def taken(words: list[str]) -> bool:
        """Whether it is; a moment after a trial has begun it is not known to run yet."""
        try:
            run_in(words)
        except AssertionError:
            return False
        return True

    try:
        search.wait_for(lambda: at_work() == {0, 1})
        for number in range(7):
            search.wait_for(lambda number=number: taken(["sweepvote", "stop", "faces", "--trial", str(number)]))
        search.wait_for(lambda: at_work() >= {7, 8})
        asked = sorted(shown(lambda page: page != "README.md"), key=lambda words: words[1:] == ["stop", "faces"])
        for words in asked:
            if LIVE.match(shlex.join(words)):
                search.wait_for(lambda words=words: taken(words))
        code, heard = search.end()
        assert code == 143, heard  # as it was asked to stop
    finally:
        search.kill()
