"""A search is prepared from every layout of images, with what trains beside them."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from analysis.ensemble.files import write_submission
from search_spaces.read import read_space
from search_spaces.schema import SpaceError
from tests.messages import missing, mistaken
from tests.s3 import BUCKET, s3_server
from trainables.data.images import DataError
from trainables.data.layouts.contest import contest_scheme
from trainables.data.layouts.reading import read_unlabelled
from trainables.data.settings import DataConfig
from trainables.mirror import original
from trainables.storage import open_folder, write_atomically
from tuner.cli import Options
from tuner.preflight import valid_splits
from tuner.prepare import Material, Plan, prepare
from tuner.searching import check


@pytest.fixture
def prepared(tiny_space, tmp_path) -> Callable[..., tuple[Plan, Material, str]]:
    """The plan of a search over these images, what they are decoded to, and what the user was told."""

    def prepared(data: Path | str, *changes: str) -> tuple[Plan, Material, str]:
        console = Console(file=StringIO(), width=10_000)
        options = Options(space=str(tiny_space), data=data, storage=str(tmp_path / "runs"), changes=changes)
        with ExitStack() as stack:
            plan = check(options, None, 0, stack, console)
            return plan, prepare(plan, allow_bad=False, console=console), console.file.getvalue()

    return prepared


@pytest.fixture
def table(tmp_path) -> Path:
    """Two images of each of forty people, in a table that stands beside a folder for each class of them."""
    rows = ["image,person,years"]
    for person in range(40):
        for shot in range(2):
            name = f"{'even' if person % 2 else 'odd'}/{person}-{shot}.png"
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.new("RGB", (32, 32), (6 * person, 90, 200 * shot)).save(tmp_path / name)
            rows.append(f"{name},person {person},{person}")
    (tmp_path / "photos.csv").write_text("\n".join(rows))
    return tmp_path / "photos.csv"


def test_a_search_over_images_in_an_object_store_copies_them_once_and_resumes_by_their_address(prepared, table, monkeypatch, tmp_path):
    monkeypatch.setenv("SWEEPVOTE_CACHE", str(tmp_path / "cache"))
    with s3_server() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        address = f"s3://{BUCKET}/photos"
        for file in [*table.parent.glob("*/*.png"), table]:
            write_atomically(open_folder(f"{address}/{file.relative_to(table.parent)}"), file.read_bytes())
        plan, material, _ = prepared(f"{address}/photos.csv", "data/cuts=[20]", "data/ordinal=years")
        alone = prepared(table, "data/cuts=[20]", "data/ordinal=years")[1]
    assert original(plan.folder) == f"{address}/photos.csv"
    assert material.digests == alone.digests and material.data.split.hash == alone.data.split.hash


def test_a_search_over_class_folders_is_prepared(prepared, table):
    (table.parent / "runs").mkdir()
    plan, material, said = prepared(table.parent)
    assert plan.targets == ("class",) and material.data.images.scheme.classes == 2 and material.extra == b""
    assert "80 images of 80 groups" in said and "every image a group of its own" in said


def test_a_search_over_a_table_is_prepared_with_all_images_of_a_person_in_one_part(prepared, table):
    plan, material, said = prepared(table, "data/ordinal=years", "data/cuts=[20]", "task=years")
    assert plan.targets == ("years",) and material.data.images.scheme.class_names() == ["<20", ">=20"]
    assert "80 images of 40 groups" in said


def test_a_number_without_cuts_is_refused_with_cuts_that_fit_it_and_never_cut_as_the_contest_cuts(prepared, table):
    with pytest.raises(DataError, match=r"photos.csv: data/ordinal is years, .* --set data/cuts=\[13, 26\]"):
        prepared(table, "data/ordinal=years")


def test_lists_of_the_contest_are_refused_for_other_data(prepared, table):
    for data, *changes in ((table, "data/ordinal=years", "data/cuts=[20]"), (table.parent,)):
        with pytest.raises(SpaceError, match="--set: labels/relabel: 'consensus' .*contest"):
            prepared(data, "labels/relabel=consensus", *changes)


@pytest.mark.parametrize("name", [b"ev\xe9n", b"ev\nen"], ids=["no UTF-8", "line break"])
def test_names_that_would_not_survive_are_refused_before_anything_is_decoded(prepared, table, name):
    (table.parent / "even").rename(os.fsdecode(os.path.join(os.fsencode(table.parent), name)))
    with pytest.raises(DataError) as caught:
        prepared(table.parent)
    assert ascii(os.fsdecode(name))[1:-1].replace("udc", "x") in str(caught.value)


def test_a_task_is_checked_against_the_targets_of_the_data_together_with_all_else(prepared, table):
    with pytest.raises(SpaceError) as caught:
        prepared(table, "data/target=years", "data/ordinal=years", "data/cuts=[20, 10]", "task=height", "labels/relabel=consensuss")
    expected = [("--set: data/cuts: ", "[20, 10]"), ("--set: task: ", "'height'"), ("--set: labels/relabel: ", "'consensuss'")]
    assert not mistaken(caught.value.mistakes, expected)


def test_invalid_splits_are_left_out_of_the_valid_ones(tiny_space):
    space = read_space(str(tiny_space), changes=["data/cuts=[5, 3]", "data/fold=-7", "data/group=family", "data/bold=1"])
    assert valid_splits(space) == DataConfig(holdout=0.2, folds=2, group="family")


@pytest.mark.parametrize("change", ["labels/extra={choice: [true, false]}", "labels/confidence={float: [0.5, 0.9]}"])
def test_a_space_that_searches_settings_of_extra_images_without_any_is_refused(prepared, demo, change):
    path = change.split("=")[0]
    with pytest.raises(SpaceError, match=f"{path}: .* without data/"):
        prepared(demo, change)


def test_extra_images_are_shown_with_the_confidence_at_which_they_train(prepared, demo, tmp_path):
    answer = np.full((28, 18), 0.4 / 17)
    answer[:, 0] = 0.6
    answer[:10] = np.eye(18)[3]
    file = write_submission(tmp_path, read_unlabelled(demo, DataConfig()), answer, contest_scheme((30, 60)))[1]
    searched = "labels/confidence={choice: [0.5, 0.9]}"
    plan, material, said = prepared(demo, f"data/pseudo={file}", searched, "labels/relabel=consensus")
    assert not missing(said, "28 additional training images", str(file), "28 of them at labels/confidence 0.5", "10 of them at")
    assert not missing(said, "labels/confidence 0.9", "corrections of consensus")
    assert len(material.data.extra) == 1 and material.extra.count(b"\n") == 29
    assert material.data.extra[0].views.keys() == material.data.views.keys()
    assert set(material.data.relabelled) == {"consensus"}


def test_images_that_evaluate_are_refused_before_the_search(prepared, demo):
    with pytest.raises(DataError, match="hold-out groups would train"):
        prepared(demo, f"data/extra=[{demo}]")
