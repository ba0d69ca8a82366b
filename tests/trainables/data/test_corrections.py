import csv
from pathlib import Path

import numpy as np
import pytest

from tests.messages import missing, mistaken
from trainables.data import corrections
from trainables.data.corrections import Corrected, check_relabel, read_weights
from trainables.data.images import DataError, Images
from trainables.data.layouts.contest import LAYOUT, contest_scheme
from trainables.registry import ConfigError

SHOTS = ("mask1", "incorrect_mask", "normal")
SCHEME = contest_scheme((30, 60))
GENDERS = SCHEME.targets[1].values


def faces_of(*folders: str) -> Images:
    """Three shots of each group, whose folder says gender and years."""
    labels, numbers = [], []
    for folder in folders:
        _, gender, _, years = folder.split("_")
        numbers += [int(years)] * 3
        labels += [(mask, GENDERS.index(gender), int(np.digitize(int(years), (30, 60)))) for mask in range(3)]
    ids = tuple(f"{folder}/{shot}.{'png' if shot == 'normal' else 'jpg'}" for folder in folders for shot in SHOTS)
    index = np.arange(len(ids))
    names = tuple(folder for folder in folders for _ in SHOTS)
    return Images(Path("root"), ids, index // 3, np.array(labels), SCHEME, numbers=np.array(numbers), names=names)


IMAGES = faces_of("000001_male_Asian_20", "000002_female_Asian_45", "000003-1_female_Asian_60")


@pytest.fixture
def write(tmp_path):
    """A table of the user's with these rows."""

    def write(*rows: str, header: str = "photo,attribute,value,was") -> str:
        file = tmp_path / "mine.csv"
        file.write_text("\n".join([header, *rows]))
        return str(file)

    return write


def correct(relabel: str, images: Images) -> Corrected:
    """Of the contest's data, which brings lists."""
    return corrections.correct(relabel, images, LAYOUT.corrections)


def changes(before: Images, labels: np.ndarray) -> dict[str, str]:
    """What the labels say otherwise, by image."""
    return {
        before.ids[index]: SCHEME.targets[column].values[labels[index, column]]
        for index, column in np.argwhere(before.labels != labels).tolist()
    }


def refused(relabel: str, images: Images = IMAGES) -> list[str]:
    with pytest.raises(DataError) as caught:
        correct(relabel, images)
    return str(caught.value).splitlines()


def test_none_changes_nothing():
    assert changes(IMAGES, correct("none", IMAGES).labels) == {}


@pytest.mark.parametrize(
    ("name", "hit"),
    [
        ("000001_male_Asian_20/normal.png", [2]),
        ("000001_male_Asian_20/normal", [2]),
        ("000001/normal", [2]),
        ("000001_male_Asian_20", [0, 1, 2]),
        ("000001", [0, 1, 2]),
        ("000003-1", [6, 7, 8]),
        ("000003-1/mask1", [6]),
    ],
)
def test_an_image_or_group_may_be_called_in_several_ways(write, name, hit):
    gender = GENDERS[1 - IMAGES.labels[hit[0], 1]]
    corrected = correct(write(f"{name},gender,{gender},"), IMAGES)
    assert changes(IMAGES, corrected.labels) == {IMAGES.ids[index]: gender for index in hit}
    assert corrected.left_out == ()


@pytest.mark.parametrize("name", ["000003", "00001", "1", "000001/mask2", "normal"])
def test_nothing_else_is_a_name(write, name):
    (words,) = refused(write(f"{name},gender,male,"))
    assert "000001_male_Asian_20/mask1.jpg" in words


def test_what_two_groups_begin_with_names_neither(write):
    twins = faces_of("000001_male_Asian_20", "000001_male_Asian_45")
    assert "no row fits" in refused(write("000001,gender,female,"), twins)[0]
    assert len(changes(twins, correct(write("000001_male_Asian_45,gender,female,"), twins).labels)) == 3


def test_two_rows_swap_two_shots(write):
    rows = ("000002/incorrect_mask,mask,absent,incorrect", "000002/normal,mask,incorrect,absent")
    expected = {"000002_female_Asian_45/incorrect_mask.jpg": "absent", "000002_female_Asian_45/normal.png": "incorrect"}
    for order in (rows, rows[::-1]):
        assert changes(IMAGES, correct(write(*order), IMAGES).labels) == expected


def test_a_row_says_what_a_value_was_and_changes_no_other(write):
    corrected = correct(write("000001,mask,absent,worn", "000002,gender,female,male", "000002,age,<30,"), IMAGES)
    assert changes(IMAGES, corrected.labels) == {
        "000001_male_Asian_20/mask1.jpg": "absent",
        **{f"000002_female_Asian_45/{shot}": "<30" for shot in ("mask1.jpg", "incorrect_mask.jpg", "normal.png")},
    }
    (item,) = corrected.left_out
    assert item.names == ("000002",)


def test_the_column_was_may_be_missing(write):
    assert len(changes(IMAGES, correct(write("000001,gender,female", header="photo,attribute,value"), IMAGES).labels)) == 3


def test_the_images_themselves_stay_as_they_are(write):
    before = IMAGES.labels.copy()
    correct(write("000001,gender,female,"), IMAGES)
    np.testing.assert_array_equal(IMAGES.labels, before)


def test_every_wrong_row_is_named_by_its_line(write):
    file = write("000001,hat,on,", "000001,gender,woman,", "000001,gender,female,man", "000002,age,<30,", "000002/normal,age,>=60,")
    expected = [
        (f"{file}:2: attribute ", "'hat'", "mask, gender, age"),
        (f"{file}:3: value ", "'woman'", "male, female"),
        (f"{file}:4: was ", "'man'", "male, female"),
        (f"{file}:6: ", "000002_female_Asian_45/normal.png", "age", "line 5"),
    ]
    assert not mistaken(refused(file), expected)


def test_what_is_no_list_and_no_file_is_refused_with_the_lists_there_are(write):
    for name in ("none", "consensus", "extended", write("000001,gender,female,")):
        check_relabel(name, LAYOUT.corrections)
    with pytest.raises(ConfigError) as caught:
        check_relabel("consensuss", LAYOUT.corrections)
    assert str(caught.value).startswith("labels/relabel: 'consensuss' ")
    assert not missing(str(caught.value), "did you mean consensus?", "none, consensus, extended")


# The shipped lists, on groups whose folders are those of the contest as far as the lists say


WRONG = (
    *(f"{number:06d}_female_Asian_18" for number in range(6359, 6365)),
    "001498-1_male_Asian_23",
    "004432_male_Asian_43",
    *(f"{number:06d}_female_Asian_40" for number in (20, 4418, 5227)),
    "005223_male_Asian_22",
    "001720_female_Asian_18",
)
FURTHER = (
    *(f"{number:06d}_male_Asian_50" for number in (645, 3574, 70)),
    *(f"{number:06d}_male_Asian_35" for number in (1009, 1064, 1637, 1666, 1852)),
)


@pytest.mark.parametrize("name", LAYOUT.corrections)
def test_a_list_of_the_contest_is_refused_for_other_data_before_and_while_it_is_read(name):
    for use in (lambda: check_relabel(name, ()), lambda: corrections.correct(name, IMAGES, {})):
        with pytest.raises(ConfigError) as caught:
            use()
        (mistake,) = caught.value.mistakes
        assert mistake.path == "labels/relabel" and repr(name) in mistake.message and "contest" in mistake.message
        assert "none" in mistake.message


def test_the_consensus_corrects_what_most_lists_agree_on():
    images = faces_of(*WRONG, *FURTHER)
    corrected = correct("consensus", images)
    assert corrected.left_out == ()
    found = changes(images, corrected.labels)
    genders = {image: value for image, value in found.items() if value in GENDERS}
    assert {image.split("_")[0]: value for image, value in genders.items()} == {
        **{f"{number:06d}": "male" for number in range(6359, 6365)},
        "001498-1": "female",
        "004432": "female",
        "005223": "female",
        "001720": "male",
    }
    assert len(genders) == 3 * 10
    swapped = {image: value for image, value in found.items() if image not in genders}
    assert swapped == {
        f"{number:06d}_female_Asian_40/{shot}": value
        for number in (20, 4418, 5227)
        for shot, value in (("incorrect_mask.jpg", "absent"), ("normal.png", "incorrect"))
    }


def test_the_extended_list_corrects_that_and_more():
    images = faces_of(*WRONG, *FURTHER)
    consensus, extended = correct("consensus", images), correct("extended", images)
    assert extended.left_out == ()
    further = changes(images, np.where(consensus.labels == images.labels, extended.labels, images.labels))
    assert (extended.labels[consensus.labels != images.labels] == consensus.labels[consensus.labels != images.labels]).all()
    assert further == {
        **{f"{number:06d}_male_Asian_50/incorrect_mask.jpg": "worn" for number in (645, 3574, 70)},
        **{
            f"{number:06d}_male_Asian_35/{shot}": "<30"
            for number in (1009, 1064, 1637, 1666, 1852)
            for shot in ("mask1.jpg", "incorrect_mask.jpg", "normal.png")
        },
    }


@pytest.mark.parametrize("name", LAYOUT.corrections)
def test_a_shipped_list_on_other_images_changes_nothing_and_says_so_once(name):
    corrected = correct(name, IMAGES)
    with LAYOUT.corrections[name].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert changes(IMAGES, corrected.labels) == {}
    (item,) = corrected.left_out
    assert name in item.reason and len(item.names) == len(rows)


def test_a_shipped_list_does_not_correct_what_is_right_already():
    right = faces_of("006359_male_Asian_18")
    assert changes(right, correct("consensus", right).labels) == {}


# Weights


def test_an_image_weighs_what_the_table_says_and_others_1(write):
    weights, left_out = read_weights(Path(write("000001,2.5", "000002/normal,0", "nobody,3", header="photo,weight")), IMAGES, np.arange(9))
    assert weights.tolist() == [2.5, 2.5, 2.5, 1, 1, 0, 1, 1, 1]
    (item,) = left_out
    assert "data/weights" in item.reason and item.names == ("nobody",)


def test_wrong_weights_are_named_by_their_lines(write):
    file = write("000001,-1", "000002,heavy", "000002,inf", "000003-1,2", "000003-1/normal,2", header="photo,weight")
    with pytest.raises(DataError) as caught:
        read_weights(Path(file), IMAGES, np.arange(9))
    expected = [(f"{file}:{line}: weight ", repr(weight), ">= 0") for line, weight in ((2, "-1"), (3, "heavy"), (4, "inf"))]
    repeated = (f"{file}:6: ", "000003-1_female_Asian_60/normal.png", "line 5")
    assert not mistaken(str(caught.value).splitlines(), [*expected, repeated])


def test_weights_that_leave_no_training_image_to_show_are_refused(write):
    file = Path(write("000001,0", "000002,0", header="photo,weight"))
    assert read_weights(file, IMAGES, np.arange(9))[0].sum() == 3
    with pytest.raises(DataError, match=f"{file}: .*weight 0"):
        read_weights(file, IMAGES, np.arange(6))
