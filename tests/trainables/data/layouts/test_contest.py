import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import nightly_after
from tests.messages import missing, mistaken
from trainables.data.images import DataError, Images
from trainables.data.layouts.contest import SHOTS
from trainables.data.layouts.reading import read_images, read_unlabelled
from trainables.data.settings import DataConfig
from trainables.data.splits import split_groups
from tuner.demo.people import PLANTED

GOOD = [("000001", "male", "Asian", "29", "a"), ("000002", "female", "Asian", "30", "b"), ("000003", "female", "Asian", "60", "c")]


@pytest.fixture
def write(tmp_path):
    """A data folder with these rows in train.csv, and the folders a, b, c with all shots."""

    def write(rows=GOOD, header=("id", "gender", "race", "age", "path")) -> Path:
        folder = tmp_path / "data"
        for name in "abc":
            (folder / "train" / "images" / name).mkdir(parents=True)
            for shot in SHOTS:
                Image.new("RGB", (4, 4)).save(folder / "train" / "images" / name / f"{shot}.jpg")
        with (folder / "train" / "train.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return folder

    return write


@pytest.fixture(scope="module")
def quirky(demo) -> Images:
    return read_images(demo, DataConfig())


def names_left_out(images: Images, reason: str) -> tuple[str, ...]:
    return next((item.names for item in images.left_out if item.reason.startswith(reason)), ())


def folder_of(images: Images, quirk: str) -> str:
    (folder,) = {name.split("/")[0] for name in images.ids if name.startswith(PLANTED[quirk] + "_")}
    return folder


def shots_of(images: Images, folder: str) -> list[str]:
    return [name.split("/")[1] for name in images.ids if name.startswith(f"{folder}/")]


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_images(folder, DataConfig())
    return str(caught.value)


def test_labels_follow_shot_gender_and_age(write):
    images = read_images(write(), DataConfig())
    labels = {name: tuple(row) for name, row in zip(images.ids, images.labels.tolist(), strict=True)}
    assert len(labels) == 21 and images.left_out == ()
    assert labels["a/mask3.jpg"] == (0, 0, 0)
    assert labels["b/incorrect_mask.jpg"] == (1, 1, 1)
    assert labels["c/normal.jpg"] == (2, 1, 2)


@pytest.mark.parametrize(
    ("cuts", "ages"), [((30, 60), [0, 1, 2]), ((25, 40), [1, 1, 2]), ((61,), [0, 0, 0]), ((20, 30, 40, 60), [1, 2, 4])]
)
def test_a_cut_is_the_first_year_of_its_age_class(write, cuts, ages):
    images = read_images(write(), DataConfig(cuts=cuts))
    assert [int(images.labels[images.groups == group, 2][0]) for group in range(3)] == ages
    assert images.scheme.sizes[2] == len(cuts) + 1


def test_every_image_of_the_demo_is_read_but_the_missing_one(quirky):
    assert len(quirky) == 60 * 7 - 1
    assert len(set(quirky.groups)) == 60
    assert all((quirky.root / name).is_file() for name in quirky.ids)


def test_extensions_may_be_mixed(quirky):
    assert set(shots_of(quirky, folder_of(quirky, "extensions"))) >= {"mask1.jpeg", "mask2.png", "mask3.jpg"}


def test_hidden_files_and_folders_are_no_images_and_are_named_once(quirky):
    folder = folder_of(quirky, "junk")
    assert len(shots_of(quirky, folder)) == 7
    assert names_left_out(quirky, "hidden") == (f"{folder}/._mask1.jpg", f"._{folder}")
    assert not any("._" in name for name in quirky.ids)


def test_an_id_with_a_suffix_is_an_id(quirky):
    assert len(shots_of(quirky, folder_of(quirky, "suffix"))) == 7


def test_groups_who_share_an_id_are_distinguished_by_folder(quirky):
    twins = {name.split("/")[0]: group for name, group in zip(quirky.ids, quirky.groups, strict=True) if name.startswith(PLANTED["twice"])}
    assert len(twins) == len(set(twins.values())) == 2
    assert names_left_out(quirky, "ids that several folders share") == (f"{PLANTED['twice']} ({', '.join(twins)})",)
    assert quirky.ties == (tuple(twins.values()),)


@pytest.mark.parametrize("seed", nightly_after(4, range(30)))
def test_folders_that_share_an_id_are_in_one_part_whatever_the_seed(quirky, seed):
    parts = split_groups(quirky, DataConfig(folds=2, holdout=0.2), seed).part
    assert len({part for name, part in zip(quirky.ids, parts, strict=True) if name.startswith(PLANTED["twice"])}) == 1


def test_a_missing_shot_is_counted_and_its_group_stays(quirky):
    folder = folder_of(quirky, "missing")
    assert len(shots_of(quirky, folder)) == 6
    assert names_left_out(quirky, "shots missing") == (f"{folder}/mask3",)


def test_a_duplicate_and_an_unknown_shot_are_left_out_and_not_guessed(write):
    folder = write()
    group = folder / "train" / "images" / "a"
    shutil.copy(group / "mask1.jpg", group / "mask1.png")
    for name in ("mask6.jpg", "mask1 (copy).jpg", "Normal.jpg", "normal.gif", "notes.txt"):
        shutil.copy(group / "mask1.jpg", group / name)
    images = read_images(folder, DataConfig())
    assert names_left_out(images, "duplicate files of one shot") == ("a/mask1.jpg", "a/mask1.png")
    assert set(names_left_out(images, "files that are not a known shot")) == {
        f"a/{name}" for name in ("mask6.jpg", "mask1 (copy).jpg", "Normal.jpg", "normal.gif", "notes.txt")
    }
    assert sorted(shots_of(images, "a")) == sorted(f"{shot}.jpg" for shot in SHOTS if shot != "mask1")


def test_a_folder_that_the_table_does_not_list_is_left_out(write):
    images = read_images(write(GOOD[:2]), DataConfig())
    assert names_left_out(images, "folders that train.csv does not list") == ("c",)
    assert not shots_of(images, "c")


def test_missing_columns_are_named_with_those_there_are(write):
    folder = write([("1", "male", "a")], header=("id", "sex", "path"))
    assert not missing(refused(folder), "train.csv: ", "column gender, age", "id, gender, age, path", "id, sex, path")


@pytest.mark.parametrize("content", [b'id,gender\n"1,2\n', b"\xff\xfe\x00"])
def test_a_file_that_is_no_table_is_refused(write, content):
    folder = write()
    (folder / "train" / "train.csv").write_bytes(content)
    assert "not a CSV table" in refused(folder)


def test_an_empty_table_and_rows_of_another_length_are_refused(write):
    folder = write()
    table = folder / "train" / "train.csv"
    table.write_text("")
    assert not missing(refused(folder), f"{table}: ", "id, gender, age, path", "empty")
    table.write_text("id,gender,age,path\n1,male,2,a\n1,male,2,a,b\n\n1,male\n")
    assert not mistaken(refused(folder).splitlines(), [(f"{table}:3: ", "5 fields", "4"), (f"{table}:5: ", "2 fields", "4")])


def test_a_table_of_a_spreadsheet_with_a_byte_order_mark_is_read(write):
    folder = write()
    table = folder / "train" / "train.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert len(read_images(folder, DataConfig())) == 21


def test_years_are_kept_beside_their_classes_and_groups_have_their_folders_names(quirky):
    assert quirky.numbers.dtype == np.float32
    for name, group, number in zip(quirky.ids, quirky.names, quirky.numbers, strict=True):
        assert group == name.split("/")[0] and int(group.split("_")[-1]) == number


def test_every_wrong_row_is_named_at_once_by_its_line(write):
    folder = write(
        [
            ("1", "Male", "Asian", "20", "a"),
            ("2", "female", "Asian", "30.5", "b"),
            ("3", "female", "Asian", "", "c"),
            ("4", "female", "Asian", "121", "c"),
            ("5", "male", "Asian", "20", "d"),
            ("6", "", "Asian", "-3", "../images/a"),
        ]
    )
    table, root = folder / "train" / "train.csv", folder / "train" / "images"
    expected = [
        (f"{table}:2: gender ", "'Male'", "male, female"),
        *((f"{table}:{line}: age ", repr(age), "between 0 and 120") for line, age in ((3, "30.5"), (4, ""), (5, "121"))),
        (f"{table}:6: ", "d", str(root)),
        (f"{table}:7: gender ", "''", "male, female"),
        (f"{table}:7: age ", "'-3'", "between 0 and 120"),
        (f"{table}:7: path ", "'../images/a'", str(root)),
        (f"{table}: ", "folder c"),
    ]
    assert not mistaken(refused(folder).splitlines(), expected)


@pytest.mark.parametrize("path", ["..", "../images/a", "a/../../images/a", "/etc", ".", "", "a/", "./a", "b/../a"])
def test_a_path_out_of_the_root_or_a_second_spelling_of_one_is_refused(write, path):
    assert f"path {path!r} " in refused(write([*GOOD, ("9", "male", "Asian", "20", path)]))


def test_twenty_mistakes_are_shown_and_the_rest_counted(write):
    lines = refused(write([(str(number), "?", "Asian", "20", "a") for number in range(30)])).splitlines()
    assert len(lines) == 21 and lines[-1].endswith("and 11 more.")


def test_folders_without_an_image_are_refused(write):
    folder = write()
    for file in (folder / "train" / "images").rglob("*.jpg"):
        file.unlink()
    assert not missing(refused(folder), f"{folder / 'train' / 'images'}: ", "mask1")


def test_images_to_predict_keep_the_order_of_the_table(demo):
    unlabelled = read_unlabelled(demo, DataConfig())
    with (demo / "eval" / "info.csv").open(newline="") as file:
        assert list(unlabelled.ids) == [row["ImageID"] for row in csv.DictReader(file)]
    assert len(unlabelled.ids) == 4 * 7


def test_data_without_images_to_predict_has_none(write):
    assert read_unlabelled(write(), DataConfig()) is None


@pytest.mark.parametrize("name", ["gone.jpg", "../../train/images/a/normal.jpg", ""])
def test_images_to_predict_that_are_not_in_their_folder_are_named(write, name):
    folder = write()
    (folder / "eval" / "images").mkdir(parents=True)
    (folder / "eval" / "info.csv").write_text(f"ImageID,ans\n{name},0\n")
    with pytest.raises(DataError, match=rf"info.csv: 1 images .*{re.escape(name)}"):
        read_unlabelled(folder, DataConfig())


def test_arrays_of_images_are_parallel(quirky):
    assert len(quirky.ids) == len(quirky.groups) == len(quirky.labels) == len(set(quirky.ids))
