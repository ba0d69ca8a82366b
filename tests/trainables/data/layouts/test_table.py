import csv
from pathlib import Path

import numpy as np
import pytest

from trainables.data.images import DataError, Images
from trainables.data.layouts.reading import read_images, read_scheme
from trainables.data.layouts.table import read_listed
from trainables.data.settings import DataConfig
from trainables.data.targets import Classes


@pytest.fixture
def write(tmp_path):
    """A table with these rows, and the files that its column `image` names, as far as they lie below it; no image is opened to read it."""

    def write(header: str, *rows: str) -> Path:
        table = tmp_path / "data" / "photos.csv"
        table.parent.mkdir(exist_ok=True)
        table.write_text("\n".join([header, *rows]) + "\n")
        for row in csv.DictReader([header, *rows]):
            name = row.get("image") or ""
            if name and not name.startswith(("/", "..", "gone")):
                (table.parent / name).parent.mkdir(parents=True, exist_ok=True)
                (table.parent / name).touch()
        return table

    return write


def groups(count: int) -> list[str]:
    """Rows `image,person,size,kind,years` of so many groups with two images each."""
    return [f"{p}/{s}.jpg,group {p},{'SL'[s]},{'xyz'[p % 3]},{p}" for p in range(count) for s in range(2)]


HEADER = "image,person,size,kind,years"


def read(table: Path, **settings) -> Images:
    return read_images(table, DataConfig(**settings))


def refused(table: Path, **settings) -> list[str]:
    with pytest.raises(DataError) as caught:
        read(table, **settings)
    return str(caught.value).splitlines()


def test_every_other_column_is_an_attribute_whose_values_are_classes_in_the_order_of_their_names(write):
    images = read(write(HEADER, *groups(60)), ordinal="years", cuts=(20, 40))
    size, kind, years = images.scheme.targets
    assert (size, kind) == (Classes("size", ("L", "S")), Classes("kind", ("x", "y", "z")))
    assert years == Classes("years", ("<20", "20-39", ">=40"), (20, 40))
    for name, group, label, number in zip(images.ids, images.names, images.labels, images.numbers, strict=True):
        p, s = map(int, name.removesuffix(".jpg").split("/"))
        assert group == f"group {p}" and number == p
        assert label.tolist() == [1 - s, p % 3, (p >= 20) + (p >= 40)]


def test_a_number_of_the_ordinal_column_is_classed_by_the_cuts(write):
    rows = [f"{index}.jpg,p{index},{years}" for index, years in enumerate(("-1", "29.9", "30", "59", "6e1", "1000"))]
    images = read(write("image,person,years", *rows), ordinal="years", cuts=(30, 60))
    assert images.labels[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert images.numbers.tolist() == pytest.approx([-1, 29.9, 30, 59, 60, 1000])


def test_groups_are_those_of_the_column_group_or_of_data_group(write):
    table = write("image,person,household,kind", "a.jpg,ann,1,x", "b.jpg,bob,1,y", "c.jpg,ann,2,x", "d.jpg,dan,2,y", "e.jpg,eve,2,y")
    by_group, by_household = read(table), read_listed(table, DataConfig(group="household"))
    assert by_group.names == ("ann", "bob", "ann", "dan", "eve") and by_group.groups.tolist() == [0, 1, 0, 2, 3]
    assert by_group.scheme.names == ("household", "kind") and by_group.left_out == ()
    assert by_household.names == ("1", "1", "2", "2", "2") and by_household.groups.tolist() == [0, 0, 1, 1, 1]
    assert by_household.scheme.names == ("person", "kind")


def test_without_such_a_column_every_image_is_a_group_of_its_own_and_that_is_noted(write):
    images = read(write("image,kind", "a.jpg,x", "b.jpg,y", "c.jpg,y"))
    assert images.groups.tolist() == [0, 1, 2] and images.names == ()
    note = "images, each taken for a group of its own; a column person, or data/group, would say who is on them"
    assert [(item.reason, item.names) for item in images.left_out] == [(note, ("a.jpg", "b.jpg", "c.jpg"))]


def test_images_keep_the_order_of_the_table_and_names_of_every_kind(write):
    rows = ['"z, and more.jpg",x', "홍/길동.JPG,y", "a b.png,x"]
    assert read(write("image,kind", *rows)).ids == ("z, and more.jpg", "홍/길동.JPG", "a b.png")


def test_the_scheme_is_read_without_an_image_being_opened(write):
    table = write(HEADER, *groups(60))
    assert all(file.stat().st_size == 0 for file in table.parent.rglob("*.jpg"))
    assert read_scheme(table, DataConfig(ordinal="years", cuts=(20, 40))).names == ("size", "kind", "years")


def test_every_wrong_row_is_named_at_once_by_its_line(write):
    table = write(
        "image,person,kind,years",
        "a.jpg,ann,x,30",
        "a.jpg,ann,x,30",
        "gone.jpg,bob,x,30",
        "../photos.csv,bob,x,30",
        "./a.jpg,bob,x,30",
        "b.jpg,,x,30",
        "c.jpg,cid,,thirty",
        "d.jpg,dan,y,nan",
    )
    folder = table.parent
    assert refused(table, ordinal="years", cuts=(30, 60)) == [
        f"{table}:3: image a.jpg is in line 2 already; keep one row.",
        f"{table}:4: image gone.jpg is not in {folder}. Put it there or take the row out.",
        f"{table}:5: image '../photos.csv' is not the plain path of a file below {folder}; write one, without dots.",
        f"{table}:6: image './a.jpg' is not the plain path of a file below {folder}; write one, without dots.",
        f"{table}:7: person is empty; write it, or take the row out.",
        f"{table}:8: kind is empty; write it, or take the row out.",
        f"{table}:8: years is 'thirty'; write a number.",
        f"{table}:9: years is 'nan'; write a number.",
    ]


def test_columns_that_are_not_there_are_named_together_with_wrong_rows(write):
    table = write("image,kind", "a.jpg,x", "gone.jpg,y")
    there = "and there is no such column; there are image, kind."
    assert refused(table, group="subject", ordinal="age") == [
        f"{table}: data/group is subject, {there}",
        f"{table}: data/ordinal is age, {there}",
        f"{table}:3: image gone.jpg is not in {table.parent}. Put it there or take the row out.",
    ]


@pytest.mark.parametrize(
    ("header", "row", "settings", "words"),
    [
        ("picture,kind", "a.jpg,x", {}, "column image is missing; it needs image and has picture, kind."),
        ("image,kind,kind", "a.jpg,x,x", {}, "column 'kind' stands twice; keep one."),
        ("image,person", "a.jpg,ann", {}, "no column says what is on the images. Add one for each target to predict."),
        (
            "image,person,kind",
            "a.jpg,ann,x",
            {"ordinal": "person"},
            "data/ordinal is person, which is no attribute. Name a column of numbers.",
        ),
    ],
)
def test_a_table_without_the_columns_it_needs_is_refused(write, header, row, settings, words):
    table = write(header, row)
    assert refused(table, **settings) == [f"{table}: {words}"]


def test_a_table_without_rows_is_refused(write):
    table = write("image,kind")
    assert refused(table) == [f"{table}: no row below the header. Write one for each image."]


def test_columns_that_can_be_no_classes_are_refused_with_the_mend(write):
    rows = [f"{row},{index},Asia" for index, row in enumerate(groups(60))]
    table = write(HEADER + ",code,continent", *rows)
    mend = "A number is cut into classes by --set data/ordinal={} and data/cuts; what nobody is to predict is taken out."
    assert refused(table) == [
        f"{table}: column years has 60 different values. {mend.format('years')}",
        f"{table}: column code has another value for every image. {mend.format('code')}",
        f"{table}: column continent is Asia for every image; take it out.",
    ]


def test_one_column_of_many_classes_is_a_task_like_any_other(write):
    images = read(write("image,breed", *(f"{index}.jpg,breed {index % 120}" for index in range(240))))
    assert images.scheme.classes == 120


def test_more_joint_classes_than_groups_are_refused(write):
    table = write(HEADER, *groups(12))
    words = "18 joint classes (2 of size x 3 of kind x 3 of years) are more than the 12 groups. Take columns out."
    assert refused(table, ordinal="years", cuts=(3, 6)) == [f"{table}: {words}"]


@pytest.mark.parametrize("fields", [{}, {"group": "", "ordinal": ""}], ids=["not given", "empty"])
@pytest.mark.parametrize("name", ["", " ", "Unnamed: 0"])
def test_a_column_without_a_name_is_no_target_and_no_number_and_is_named_by_its_place(write, name, fields):
    rows = [f"{index},{row}" for index, row in enumerate(groups(30))]
    images = read(write(f"{name},image,person,size,kind,", *[f"{row.rpartition(',')[0]}," for row in rows]), **fields)
    assert images.scheme.names == ("size", "kind")
    assert [(item.reason, item.names) for item in images.left_out] == [("columns without a name, ignored", ("column 1", "column 6"))]


def test_a_target_that_lost_its_name_is_asked_for(write):
    (line,) = refused(write("image,person,", "a.jpg,ann,cat", "b.jpg,bob,dog"))
    assert "no column says what is on the images" in line and "column 3" in line


def test_a_number_is_cut_only_where_somebody_says_so_and_the_cuts_offered_are_thirds_of_the_data(write):
    (line,) = refused(write(HEADER, *groups(60)), ordinal="years")
    assert line.startswith(f"{write(HEADER, *groups(60))}: data/ordinal is years") and line.endswith("--set data/cuts=[20, 39].")
    assert read(write(HEADER, *groups(60)), ordinal="years", cuts=(20, 39)).scheme.targets[2].cuts == (20, 39)


@pytest.mark.parametrize("seed", range(20))
def test_labels_equal_a_slow_look_up_in_any_table(write, seed):
    rng = np.random.default_rng(seed)
    values = [[f"{name}{value}" for value in rng.permutation(rng.integers(2, 4))] for name in "abc"[: rng.integers(1, 4)]]
    cells = [[str(rng.choice(one)) for one in values] for _ in range(60)]
    header = ",".join(["image", *(f"column{index}" for index in range(len(values)))])
    images = read(write(header, *(",".join([f"{index}.jpg", *row]) for index, row in enumerate(cells))))
    for row, label in zip(cells, images.labels, strict=True):
        assert row == [attribute.values[value] for attribute, value in zip(images.scheme.targets, label, strict=True)]
    assert all(attribute.values == tuple(sorted(attribute.values)) for attribute in images.scheme.targets)
