import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from trainables.cache import app
from trainables.data.images import Unlabelled
from trainables.data.view_store import features_folder, view_cache
from trainables.data.views import View, build_views, open_view

SQUARE, WIDE = View("none", 1.0, 16, 16), View("none", 1.0, 16, 32)


@pytest.fixture
def images(tmp_path, monkeypatch) -> Unlabelled:
    """Two images, and a cache of their own."""
    monkeypatch.setenv("SWEEPVOTE_CACHE", str(tmp_path / "cache"))
    for number in range(2):
        Image.new("RGB", (20, 20), (number + 1, 2, 3)).save(tmp_path / f"{number}.png")
    return Unlabelled(tmp_path, ("0.png", "1.png"))


def call(*words: str):
    return CliRunner().invoke(app, list(words))


def told(*words: str) -> dict:
    result = call("--json", *words)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def old(folder: Path) -> list[Path]:
    files = [folder / name for name in ("1a2b.npy", "1a2b.json")]
    for file in files:
        file.write_bytes(bytes(1000))
    return files


def test_features_are_listed_and_removed_with_the_rest(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPVOTE_CACHE", str(tmp_path))
    features_folder().mkdir()
    (features_folder() / "0.npz").write_bytes(bytes(7))
    assert told()["features"] == {"files": 1, "bytes": 7}
    assert told("--older", "1d")["features"]["files"] == 1
    assert told("--empty")["freed"] == 7 and not any(features_folder().iterdir())


def test_an_empty_cache_is_listed(images):
    assert call().exit_code == 0 and told()["views"] == [] and call("--empty").exit_code == 0


def test_views_are_listed_with_images_bytes_and_use(images):
    built = build_views(images, [SQUARE, WIDE], view_cache())
    listed = {one["view"]: one for one in told()["views"]}
    assert {name: (one["images"], one["in_use"]) for name, one in listed.items()} == {"16x16": (2, True), "16x32": (2, True)}
    assert all(one["bytes"] > 2 * 16 * 16 * 3 and one["last_used"] for one in listed.values())
    output = call().output
    assert str(view_cache()) in output and "16x32" in output
    assert built


def test_emptying_removes_all_but_what_is_in_use_and_what_is_in_use_resumes(images):
    built = build_views(images, [SQUARE], view_cache())
    seen = open_view(built.files[SQUARE])
    build_views(images, [WIDE], view_cache())
    files = old(view_cache())
    before = told()
    assert before["earlier_versions"] == {"files": 2, "bytes": 2000} and before["freed"] is None and len(before["views"]) == 2
    after = told("--empty")
    assert [one["view"] for one in after["views"]] == ["16x16"] and after["freed"] > 2000
    assert not any(file.exists() for file in files) and seen.images[1].any()
    del built, seen
    assert told("--empty")["views"] == []
    assert open_view(build_views(images, [SQUARE], view_cache()).files[SQUARE]).images[1].any()


def test_what_was_used_lately_stays(images):
    build_views(images, [SQUARE], view_cache())
    old_ones = old(view_cache())
    assert len(told("--older", "1d")["views"]) == 1 and all(file.exists() for file in old_ones)
    assert told("--older", "0m")["views"] == [] or told("--older", "0.0001m")["views"] == []


@pytest.mark.parametrize("words", [("--older", "long"), ("--older", "30"), ("--older", "-1d"), ("--empty", "--older", "30d")])
def test_a_wrong_option_is_refused_and_nothing_is_removed(images, words):
    build_views(images, [SQUARE], view_cache())
    result = call(*words)
    assert result.exit_code == 2 and "--older" in result.output
    assert len(told()["views"]) == 1


def test_a_wrong_limit_is_refused(images, monkeypatch):
    monkeypatch.setenv("SWEEPVOTE_CACHE_LIMIT", "much")
    result = call()
    assert result.exit_code == 2 and "SWEEPVOTE_CACHE_LIMIT" in result.output and "much" in result.output
