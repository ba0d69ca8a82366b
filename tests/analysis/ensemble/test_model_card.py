import json
import re
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.ensemble.__main__ import app
from analysis.mistakes import files
from analysis.mistakes.__main__ import app as mistakes
from analysis.pages.model_card import CARD, cell, model_card, write_card
from tests.analysis.model_cards import HEADINGS
from tests.messages import missing
from trainables.record import read_json, write_json

QUICK = ("--members", "faces/0", "--whole", "--vote", "best", "--step", "none")


def call(app, *words):
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == 0, result.output + result.stderr


@pytest.fixture(scope="module")
def voted(faces, tmp_path_factory):
    """A folder with a run whose best trials voted. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("voted")
    shutil.copytree(faces.folder, folder / "runs" / "faces")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call(app, "--top", "2", "--vote", "soft", "--step", "none")
    return folder / "runs" / "faces"


def test_the_card_has_the_headings_of_the_source_and_the_numbers_of_the_scores(voted):
    text = (voted / "ensemble" / CARD).read_text()
    scores = json.loads((voted / "ensemble" / "scores.json").read_text())
    assert re.findall("^## .*", text, re.MULTILINE) == list(HEADINGS)
    answer = scores["answers"]["soft"]
    told = [f"{number:.3f}" for number in (answer["score"], *answer["interval"])]
    told += [f"{one['score']:.3f}" for part in ("targets", "values") for one in scores[part]]
    told += [f"{one['target']}: {one['value']}" for one in scores["values"][1:]]
    told += [f"{1000 * scores['seconds_per_photo']:.3g} ms", scores["measured_on"], f"{100 * scores['calibration']['expected']:.1f}"]
    for model in scores["models"]:
        told += [model["name"], model["backbone"], model["view"], f"{model['bytes'] / 1e6:.3g}", *model["settings"]]
    assert not missing(text, *told, *(f"{name} {version}" for name, version in scores["versions"].items()))
    weights = [
        voted.parent / file for one in read_json(voted / "ensemble" / "ensemble.json", "ensemble")["models"].values() for file in one
    ]
    assert sum(model["bytes"] for model in scores["models"]) == sum(file.stat().st_size for file in weights)


def test_the_card_counts_every_class_in_every_part(voted, faces):
    counts = json.loads((voted / "ensemble" / "scores.json").read_text())["counts"]
    text, images, split = (voted / "ensemble" / CARD).read_text(), faces.images, faces.split
    for column, target in enumerate(images.scheme.targets):
        for value, name in enumerate(target.values):
            own = images.labels[:, column] == value
            expected = [(own & (split.part >= 0)).sum(), own[split.valid].sum(), (own & (split.part < 0)).sum()]
            assert counts[target.name][name] == expected
            assert f"| {' | '.join([cell(name), *map(str, expected)])} |" in text


def test_every_row_of_a_table_has_the_columns_of_its_head_whatever_names_hold(voted, tmp_path):
    run = shutil.copytree(voted, tmp_path / "faces")
    scores = read_json(run / "ensemble" / "scores.json", "scores")
    evil = "a|b](http://x) <script>*_`\n# c"
    scores["counts"]["mask"][evil] = [1, 2, 3]
    scores["left_out"], scores["models"][0]["settings"]["data/group"] = [evil], evil
    write_json(run / "ensemble" / "scores.json", scores)
    text = model_card(run)
    heads = re.findall(r"(?:^\|.*\|$\n)+", text, re.MULTILINE)
    assert len(heads) > 8
    for table in heads:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
    assert "<script>" not in text.replace("\\<script>", "") and "\n# c" not in text


def test_the_card_says_the_errors_of_its_own_ensemble_and_of_no_other(here, monkeypatch):
    for name in ("draw_sheet", "_confusion_picture"):
        monkeypatch.setattr(files, name, lambda *words: b"")
    call(app, *QUICK)
    card, run = here / "runs/faces/ensemble" / CARD, here / "runs/faces"
    assert not missing(card.read_text(), "mistakes --run faces")
    call(mistakes)
    found, wrong = json.loads((run / "mistakes/mistakes.json").read_text()), pd.read_csv(run / "mistakes/confident.csv")
    pairs = (wrong["true"] + " → " + wrong["predicted"]).value_counts()
    assert not missing(card.read_text(), f"{found['errors']} of {found['images']}", f"{cell(pairs.index[0])} | {pairs.iloc[0]} |")
    assert "mistakes --run faces" not in card.read_text()
    ensemble = run / "ensemble/ensemble.json"
    ensemble.write_text(ensemble.read_text() + "\n")
    write_card(run)
    assert "mistakes --run faces" in card.read_text()
