"""Tables of images: what the columns are, where the images are, how the text is encoded, and what is refused with its place."""

import csv
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.data.images import TEST, TRAIN, VALID, DataError, Images
from trainables.data.layouts.reading import read_images, read_scheme, read_unlabelled
from trainables.data.settings import DataConfig
from trainables.data.targets import Classes, Number, Tags


@pytest.fixture
def write(tmp_path):
    """A table with these rows, and the files that its column `image` names, as far as they lie below it; no image is opened to read it."""

    def write(header: str, *rows: str, name: str = "photos.csv", folder: str = "") -> Path:
        table = tmp_path / "data" / name
        table.parent.mkdir(exist_ok=True)
        table.write_text("\n".join([header, *rows]) + "\n")
        for row in csv.DictReader([header, *rows]):
            image = row.get("image") or ""
            if image and not image.startswith(("/", "..", "gone")):
                touch(table.parent / folder / image)
        return table

    return write


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def groups(count: int) -> list[str]:
    """Rows `image,person,size,kind,years` of so many groups with two images each."""
    return [f"{p}/{s}.jpg,person {p},{'SL'[s]},{'xyz'[p % 3]},{p}" for p in range(count) for s in range(2)]


HEADER = "image,person,size,kind,years"


def read(table: Path, target: str = "", **settings) -> Images:
    return read_images(table, DataConfig(target=target, **settings))


def refused(table: Path, target: str = "", **settings) -> list[str]:
    with pytest.raises(DataError) as caught:
        read(table, target, **settings)
    return str(caught.value).splitlines()


def noted(images: Images) -> dict[str, tuple[str, ...]]:
    """What was left out, by the first word of the reason that is not `images` or `columns`."""
    return {item.reason: item.names for item in images.left_out}


# Targets


@pytest.mark.parametrize("name", ["label", "Class", "target", "category", "y", "LABEL"])
def test_the_one_column_that_is_called_like_a_target_is_it_and_the_others_are_named_as_not_used(write, name):
    images = read(write(f"image,person,{name},problem", "a.jpg,ann,cat,dent", "b.jpg,bob,dog,scratch"))
    assert images.scheme.names == (name,)
    assert [names for reason, names in noted(images).items() if "--target" in reason] == [("problem",)]


@pytest.mark.parametrize(("header", "offered"), [("image,breed,size", "breed"), ("image,label,class", "label")])
def test_where_no_name_or_more_than_one_says_it_the_line_to_type_is_shown(write, header, offered):
    rows = [f"{index}.jpg,{'xyz'[index % 3]},{'SL'[index % 2]}" for index in range(60)]
    lines = refused(write(header, *rows))
    assert lines[0].startswith(f"{write(header, *rows)}: ") and f"  --target {offered}" in lines


def test_named_targets_are_classes_in_the_order_of_their_names(write):
    images = read(write(HEADER, *groups(60)), "size,kind,years", ordinal="years", cuts=(20, 40))
    size, kind, years = images.scheme.targets
    assert (size, kind) == (Classes("size", ("L", "S")), Classes("kind", ("x", "y", "z")))
    assert years == Classes("years", ("<20", "20-39", ">=40"), (20, 40))
    for name, group, label, number in zip(images.ids, images.names, images.labels, images.numbers, strict=True):
        p, s = map(int, name.removesuffix(".jpg").split("/"))
        assert group == f"person {p}" and number == p
        assert label.tolist() == [1 - s, p % 3, (p >= 20) + (p >= 40)]


@pytest.mark.parametrize("target", ["*", "a,b", ["a", "b"], "A , b", ["a,b"]])
def test_targets_are_a_list_or_names_with_commas_or_all_columns(write, target):
    table = write("image,person,a,b", "0.jpg,ann,x,1", "1.jpg,bob,y,2", "2.jpg,cid,y,2")
    assert read(table, target).scheme.names == ("a", "b")


def test_a_name_with_a_comma_is_one_column_where_there_is_such_a_column(write):
    table = write('image,"a, b",a,b', "0.jpg,x,1,1", "1.jpg,y,2,2")
    assert read(table, "a, b").scheme.names == ("a, b",)


def test_images_without_a_value_of_the_target_are_left_out_and_named(write):
    images = read(write("image,label", "a.jpg,x", "b.jpg,", "c.jpg,y", "d.jpg, "))
    assert images.ids == ("a.jpg", "c.jpg")
    assert [names for reason, names in noted(images).items() if "label" in reason] == [("b.jpg", "d.jpg")]


@pytest.mark.parametrize("words", [["NA", "nan", "None", "true", "01", "1"], ["a/b", "it's", 'say "x"', "🐈", "a, b"]])
def test_words_stay_what_they_are(tmp_path, words):
    table = tmp_path / "photos.csv"
    with table.open("w", newline="") as text:
        csv.writer(text).writerows([("image", "label"), *((f"{index}.jpg", words[index % len(words)]) for index in range(20))])
    touch(*(tmp_path / f"{index}.jpg" for index in range(20)))
    assert set(read(table).scheme.targets[0].values) == set(words)


@pytest.mark.parametrize("end", [" ", "\u00a0", "\u200b", ".0"])
def test_classes_and_groups_that_only_look_different_are_one_and_it_is_shown(write, end):
    rows = [f"{index}.jpg,{7 + index % 3}{end if index % 2 else ''},{index % 4}{end if index < 10 else ''}" for index in range(20)]
    images = read(write("image,label,patient", *rows), group="patient")
    assert images.scheme.targets[0].values == ("7", "8", "9")
    assert len(set(images.groups.tolist())) == 4
    assert sum("look alike" in reason for reason in noted(images)) == 2


def test_groups_that_differ_in_capitals_are_one(write):
    images = read(write("image,label,patient", "a.jpg,x,Ann", "b.jpg,y,ann", "c.jpg,y,Bob"), group="patient")
    assert images.groups.tolist() == [0, 0, 1]


def test_many_joint_classes_of_few_images_refuse_nothing(write):
    images = read(write(HEADER, *groups(12)), "size,kind,years", ordinal="years", cuts=(3, 6))
    assert images.scheme.classes == 18 > len(set(images.groups.tolist()))


def test_one_column_of_many_classes_is_a_task_like_any_other(write):
    assert read(write("image,breed", *(f"{index}.jpg,breed {index % 120}" for index in range(240))), "breed").scheme.classes == 120


@pytest.mark.parametrize("seed", range(5))
def test_labels_equal_a_slow_look_up_in_any_table(write, seed):
    rng = np.random.default_rng(seed)
    values = [[f"{name}{value}" for value in rng.permutation(rng.integers(2, 4))] for name in "abc"[: rng.integers(1, 4)]]
    cells = [[str(rng.choice(one)) for one in values] for _ in range(60)]
    header = ",".join(["image", *(f"column{index}" for index in range(len(values)))])
    images = read(write(header, *(",".join([f"{index}.jpg", *row]) for index, row in enumerate(cells))), "*")
    for row, label in zip(cells, images.labels, strict=True):
        assert row == [attribute.values[value] for attribute, value in zip(images.scheme.targets, label, strict=True)]


def test_a_number_of_the_ordinal_column_is_classed_by_the_cuts(write):
    rows = [f"{index}.jpg,p{index},{years}" for index, years in enumerate(("-1", "29.9", "30", "59", "6e1", "1000"))]
    images = read(write("image,person,years", *rows), "years", ordinal="years", cuts=(30, 60))
    assert images.labels[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert images.numbers.tolist() == pytest.approx([-1, 29.9, 30, 59, 60, 1000])


def test_a_number_is_cut_only_where_it_is_asked_for_and_the_cuts_offered_are_thirds_of_the_data(write):
    (line,) = refused(write(HEADER, *groups(60)), "years", ordinal="years")
    assert line.endswith("--set data/cuts=[20, 39].")
    assert read(write(HEADER, *groups(60)), "years", ordinal="years", cuts=(20, 39)).scheme.cut.cuts == (20, 39)


# Tags and numbers


def test_a_column_of_0_and_1_for_each_tag(write):
    images = read(write("image,sea,sky,label", "a.jpg,1,0,x", "b.jpg,1.0,True,y", "c.jpg,0,no,y", "d.jpg,-1,yes,x"), tags="sea,sky")
    assert images.scheme.targets == (Tags("tags", ("sea", "sky")),)
    assert images.tags.tolist() == [[True, False], [True, True], [False, False], [False, True]]


@pytest.mark.parametrize("separator", [", ", ",", ";", " | "])
def test_one_column_with_the_words_of_all_tags_and_an_image_without_a_tag_is_an_image(write, separator):
    cells = [separator.join(words) for words in (["red dress", "long"], ["long"], [], ["blue"])]
    images = read(write("image,what", *(f'{index}.jpg,"{cell}"' for index, cell in enumerate(cells))), tags="what")
    assert images.scheme.targets == (Tags("what", ("blue", "long", "red dress")),)
    assert images.tags.tolist() == [[False, True, True], [False, True, False], [False, False, False], [True, False, False]]


def test_a_number_beside_classes_and_tags(write):
    images = read(write("image,sex,age,a,b", "a.jpg,f,3.5,0,1", "b.jpg,m,70,1,1", "c.jpg,m,,1,0"), "sex", number="age", tags=["a", "b"])
    assert images.scheme.targets == (Classes("sex", ("f", "m")), Tags("tags", ("a", "b")), Number("age"))
    assert (
        images.numbers.tolist() == [3.5, 70]
        and images.labels.tolist() == [[0], [1]]
        and images.tags.tolist() == [[False, True], [True, True]]
    )
    assert any(names == ("c.jpg",) for names in noted(images).values())


@pytest.mark.parametrize("settings", [{"number": "age"}, {"tags": "a,b"}])
def test_a_number_that_is_text_and_a_tag_that_is_neither_0_nor_1_are_named_by_their_lines(write, settings):
    table = write("image,age,a,b", "a.jpg,3,0,1", "b.jpg,old,1,2")
    (line,) = refused(table, **settings)
    assert line.startswith(f"{table}:3: ") and ("'old'" in line or "'2'" in line)


@pytest.mark.parametrize("settings", [{"tags": "a", "number": "a"}, {"target": "a", "tags": "a,b"}, {"target": "a", "group": "a"}])
def test_a_column_is_one_thing(write, settings):
    (line,) = refused(write("image,a,b", "a.jpg,0,1", "b.jpg,1,0"), **settings)
    assert ": a is " in line


def test_where_nothing_says_what_the_target_is_tags_and_numbers_are_offered_too(write):
    rows = [f"{index}.jpg,{index % 2},{index % 3 // 2},{index}.5" for index in range(60)]
    lines = refused(write("image,sea,sky,age", *rows))
    assert any(line.startswith("  --tags sea,sky ") for line in lines) and any(line.startswith("  --number age ") for line in lines)


# Groups


def test_groups_are_those_of_the_column_group_or_of_data_group(write):
    table = write("image,person,household,label", "a.jpg,ann,1,x", "b.jpg,bob,1,y", "c.jpg,ann,2,x", "d.jpg,dan,2,y", "e.jpg,eve,2,y")
    by_group, by_household = read(table), read(table, group="household")
    assert by_group.names == ("ann", "bob", "ann", "dan", "eve") and by_group.groups.tolist() == [0, 1, 0, 2, 3]
    assert by_household.names == ("1", "1", "2", "2", "2") and by_household.groups.tolist() == [0, 0, 1, 1, 1]


def test_without_such_a_column_every_image_is_a_group_of_its_own_and_the_option_is_named(write):
    images = read(write("image,label,patientid", "a.jpg,x,1", "b.jpg,y,1", "c.jpg,y,2"))
    assert images.groups.tolist() == [0, 1, 2] and images.names == ()
    assert any("--group patientid" in reason for reason in noted(images))


def test_an_image_without_a_group_is_one_of_its_own_and_named(write):
    images = read(write("image,person,label", "a.jpg,ann,x", "b.jpg,,y", "c.jpg,,y"))
    assert len(set(images.groups.tolist())) == 3
    assert ("b.jpg", "c.jpg") in noted(images).values()


# Where images are


@pytest.mark.parametrize(
    ("named", "file"),
    [
        ("a", "a.jpg"),
        ("a.jpg", "images/a.jpg"),
        ("a", "deep/train_images/a.png"),
        ("cat\\a.jpg", "cat/a.jpg"),
        ("./cat/a.jpg", "cat/a.jpg"),
        ("CAT/A.JPG", "cat/a.jpg"),
        ("\u00e9/a.jpg", unicodedata.normalize("NFD", "\u00e9") + "/a.jpg"),
        ("a", "a.jfif"),
    ],
)
def test_an_image_is_found_as_groups_name_it(tmp_path, named, file):
    table = tmp_path / "photos.csv"
    table.write_text("\n".join(["image,label", f"{named},x", f"{named.replace('a', 'b').replace('A', 'B').replace('cbt', 'cat')},y"]))
    if "CAT" in named:
        table.write_text("image,label\nCAT/A.JPG,x\nCAT/B.JPG,y\n")
    other = Path(file).with_name(f"b{Path(file).suffix}").as_posix()
    touch(tmp_path / file, tmp_path / other)
    assert read(table).ids == (file, other)


@pytest.mark.parametrize("column", ["Filenames", "image_id", "file_name", "path"])
def test_the_column_of_the_images_is_found_by_its_name_and_its_files(write, tmp_path, column):
    table = write(f"id,{column},label", "1,a.jpg,x", "2,b.jpg,y")
    touch(*(table.parent / "images" / name for name in ("a.jpg", "b.jpg")))
    assert read(table).ids == ("images/a.jpg", "images/b.jpg")


def test_column_and_folder_can_be_named_and_the_folder_may_be_elsewhere(write, tmp_path):
    table = write("image,scan,label", "a.jpg,c.jpg,x", "b.jpg,d.jpg,y")
    touch(*(tmp_path / "scans" / name for name in ("c.jpg", "d.jpg")))
    images = read(table, image="scan", images="../scans")
    assert images.ids == ("c.jpg", "d.jpg") and images.root.resolve() == (tmp_path / "scans").resolve()


def test_absolute_paths_of_another_machine_are_read_from_where_they_differ(write):
    table = write("image,label", "/home/ann/set/cat/a.jpg,x", "/home/ann/set/dog/b.jpg,y")
    touch(table.parent / "photos" / "cat" / "a.jpg", table.parent / "photos" / "dog" / "b.jpg")
    assert read(table).ids == ("photos/cat/a.jpg", "photos/dog/b.jpg")


def test_images_keep_the_order_of_the_table_and_names_of_every_kind(write):
    rows = ['"z, and more.jpg",x', "홍/길동.JPG,y", "a b.png,x"]
    assert read(write("image,label", *rows)).ids == ("z, and more.jpg", "홍/길동.JPG", "a b.png")


def test_a_few_missing_images_are_left_out_and_more_are_refused_with_the_first_five(write):
    rows = [f"{index}.jpg,{'xy'[index % 2]}" for index in range(100)]
    table = write("image,label", *rows, *(f"gone{index}.jpg,x" for index in range(5)))
    images = read(table)
    assert len(images) == 100 and [len(names) for names in noted(images).values() if "gone0" in names[0]] == [5]
    (line,) = refused(write("image,label", *rows, *(f"gone{index}.jpg,x" for index in range(20))))
    assert "20 of 120" in line and all(f"gone{index}.jpg" in line for index in range(5)) and "gone5.jpg" not in line


def test_a_table_whose_images_are_all_elsewhere_is_refused_with_how_to_say_where(write):
    (line,) = refused(write("image,label", "gone/a.jpg,x", "gone/b.jpg,y"))
    assert "--set data/images=" in line and "gone/a.jpg" in line


def test_an_image_outside_of_the_folder_is_not_read(write):
    rows = [f"{index}.jpg,{'xy'[index % 2]}" for index in range(100)]
    touch(write("image,label", "a.jpg,x").parent.parent / "secret.jpg")
    images = read(write("image,label", *rows, "../secret.jpg,x"))
    assert len(images) == 100


# How it is written


@pytest.mark.parametrize(
    ("encoding", "separator"),
    [("utf-8", ","), ("utf-8-sig", ";"), ("utf-16", "\t"), ("utf-16-le", ";"), ("cp1252", ","), ("utf-8", "|"), ("utf-8", "\t")],
)
def test_tables_as_other_programs_save_them(write, encoding, separator):
    table = write("image,person,label", *(f"{index}.jpg,u{index},{('cat', 'ému', 'dog')[index % 3]}" for index in range(30)))
    table.write_bytes(table.read_text().replace(",", separator).replace("\n", "\r\n").encode(encoding))
    images = read(table)
    assert images.scheme.targets == (Classes("label", ("cat", "dog", "ému")),)
    assert any("Windows-1252" in reason for reason in noted(images)) == (encoding == "cp1252")


def test_commas_within_semicolons_and_semicolons_within_commas_are_text(write):
    table = write("image,label,note", 'a.jpg,x,"one; two; three; four"', 'b.jpg,y,"five; six"')
    assert read(table).scheme.names == ("label",)
    table.write_text('image;label;note\na.jpg;x;one, two, three, four\nb.jpg;y;"five, six"\n')
    assert read(table).scheme.targets[0].values == ("x", "y")


def test_empty_rows_at_the_end_are_one_line(write):
    images = read(write("image,label", "a.jpg,x", "b.jpg,y", *[","] * 30))
    assert [len(names) for reason, names in noted(images).items() if "empty rows" in reason] == [30]


@pytest.mark.parametrize("name", ["", " ", "Unnamed: 0"])
def test_a_column_without_a_name_is_no_target_and_is_named_by_its_place(write, name):
    rows = [f"{index},{row}" for index, row in enumerate(groups(30))]
    images = read(write(f"{name},image,person,size,kind,", *[f"{row.rpartition(',')[0]}," for row in rows]), "*")
    assert images.scheme.names == ("size", "kind")
    assert ("column 1", "column 6") in noted(images).values()


def test_names_of_columns_are_meant_without_spaces_at_their_ends(write):
    table = write("image,label", "a.jpg,x", "b.jpg,y")
    table.write_text(table.read_text().replace("image,label", " image , label\u00a0"))
    assert read(table).scheme.names == ("label",)


def test_the_scheme_is_read_without_an_image_being_opened(write):
    table = write(HEADER, *groups(60))
    assert all(file.stat().st_size == 0 for file in table.parent.rglob("*.jpg"))
    assert read_scheme(table, DataConfig(target="kind,years", ordinal="years", cuts=(20, 40))).names == ("kind", "years")


# What is refused


def test_every_wrong_number_is_named_at_once_by_its_line(write):
    table = write("image,label,years", "a.jpg,x,30", "b.jpg,y,thirty", "c.jpg,y,nan")
    lines = refused(table, "label,years", ordinal="years", cuts=(30, 60))
    assert [line.split(": ")[0] for line in lines] == [f"{table}:3", f"{table}:4"] and "'thirty'" in lines[0]


def test_two_labels_of_one_image_are_refused_with_both_places(write):
    table = write("image,label", "a.jpg,x", "b.jpg,y", "a.jpg,y", "b.jpg,y")
    lines = refused(table)
    assert [line.split(": ")[0] for line in lines] == [f"{table}:4", f"{table}:5"]
    assert f"{table}:2" in lines[0] and "'y'" in lines[0] and "'x'" in lines[0]


@pytest.mark.parametrize("field", ["target", "group", "ordinal", "split", "image"])
def test_a_column_that_is_not_there_is_named_with_those_there_are(write, field):
    lines = refused(write("image,label", "a.jpg,x", "b.jpg,y"), **{field: "colour"})
    assert f"data/{field} is colour" in lines[0] and "label" in lines[0]


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("shot,kind", "a.jpg,x", "no column names the images"),
        ("image,kind,kind", "a.jpg,x,x", "column 'kind' is a duplicate"),
        ("image,person", "a.jpg,ann", "no column says what is on the images"),
        ("image,label", "a.jpg,x", "label is x for every image"),
        ("image,label", "a.jpg,x,z", "has 3 fields, the header has 2"),
    ],
)
def test_a_table_without_what_it_needs_is_refused(write, header, row, words):
    table = write("image,kind", "a.jpg,x")
    (table.parent / "a.jpg").unlink(missing_ok="shot" in header)
    if "shot" not in header:
        touch(table.parent / "a.jpg")
    table.write_text(f"{header}\n{row}\n")
    assert any(line.startswith(str(table)) and words in line for line in refused(table))


@pytest.mark.parametrize("content", ["", "image,label\n", "image,label\n,\n,\n"])
def test_an_empty_table_is_refused(write, content):
    table = write("image,label", "a.jpg,x")
    table.write_text(content)
    assert refused(table)[0].startswith(f"{table}: ")


def test_a_target_with_another_value_for_every_image_is_refused(write):
    (line,) = refused(write("image,label,code", *(f"{index}.jpg,{'xy'[index % 2]},c{index}" for index in range(9))), "label,code")
    assert "code" in line and "data/ordinal" in line


# Splits of one's own


def test_a_column_split_says_which_part_an_image_is_in(write):
    words = ["train", "Training", "val", "valid", "dev", "validation", "test", "holdout"]
    images = read(write("image,label,split", *(f"{index}.jpg,{'xy'[index % 2]},{word}" for index, word in enumerate(words))))
    assert images.given.tolist() == [TRAIN] * 2 + [VALID] * 4 + [TEST] * 2 and images.scheme.names == ("label",)
    assert images.take(np.array([6, 0])).given.tolist() == [TEST, TRAIN]


def test_words_that_stand_for_no_part_are_refused_until_it_is_given_what_they_mean(write):
    table = write("image,label,fold", *(f"{index}.jpg,{'xy'[index % 2]},{'ab'[index % 3 == 0]}" for index in range(9)))
    (line,) = refused(table, split="fold")
    assert "'a'" in line and "--set data/split=fold,b=train" in line
    assert set(read(table, split="fold,a=train,b=test").given.tolist()) == {TRAIN, TEST}
    assert read(table, split="none").given is None
    with pytest.raises(ValueError, match="half"):
        DataConfig(split="fold,a=half")


def test_no_part_that_trains_is_refused(write):
    (line,) = refused(write("image,label,split", "a.jpg,x,test", "b.jpg,y,val"))
    assert "=train" in line


# Folders with a table, and tables of other parts


def kaggle(root: Path, test_header: str = "id", sample: str = "") -> Path:
    """train.csv, train_images/, test.csv, test_images/ and perhaps sample_submission.csv; both folders have files of the same names."""
    names = [f"{index:02d}" for index in range(12)]
    touch(*(root / "train_images" / f"{name}.png" for name in names), *(root / "test_images" / f"{name}.png" for name in names[:3]))
    root.joinpath("train.csv").write_text("id,label\n" + "".join(f"{name},{'xy'[index % 2]}\n" for index, name in enumerate(names)))
    root.joinpath("test.csv").write_text(test_header + "\n" + "".join(f"{name}{',x' * test_header.count(',')}\n" for name in names[:3]))
    if sample:
        root.joinpath("sample_submission.csv").write_text(sample)
    return root


def test_a_folder_with_train_csv_is_that_table_and_test_csv_names_what_to_answer(tmp_path):
    root = kaggle(tmp_path)
    images, unlabelled = read(root), read_unlabelled(root, DataConfig())
    assert images.ids[0] == "train_images/00.png" and len(images) == 12 and images.given is None
    assert unlabelled.ids == tuple(f"test_images/0{index}.png" for index in range(3)) and unlabelled.by_name


def test_the_answer_has_the_header_and_order_of_the_sample(tmp_path):
    root = kaggle(tmp_path, sample="id_code,diagnosis\n02,0\n00,0\n01,0\n")
    unlabelled = read_unlabelled(root, DataConfig())
    assert unlabelled.columns == ("id_code", "diagnosis") and unlabelled.names == ("02", "00", "01")
    assert unlabelled.ids == ("test_images/02.png", "test_images/00.png", "test_images/01.png")


def test_a_test_table_with_labels_is_the_test_part(tmp_path):
    root = kaggle(tmp_path, test_header="id,label")
    images = read(root)
    assert (images.given == TEST).sum() == 3 and images.ids[-1] == "test_images/02.png"
    assert read_unlabelled(root, DataConfig()) is None


def test_rows_of_the_test_part_without_a_label_are_to_be_answered(write):
    rows = [f"{index}.jpg,{'xy'[index % 2]},train" for index in range(6)]
    table = write("image,label,split", *rows, "t1.jpg,,test", "t2.jpg,,test")
    assert len(read(table)) == 6 and read(table).given is None
    assert read_unlabelled(table, DataConfig()).ids == ("t1.jpg", "t2.jpg")


def test_a_folder_test_that_the_table_does_not_name_is_to_be_answered(write):
    table = write("image,label", "a.jpg,x", "b.jpg,y", folder="images")
    touch(*(table.parent / "test" / f"t{index}.jpg" for index in range(3)))
    for source in (table, table.parent):
        assert read(source).ids == ("images/a.jpg", "images/b.jpg")
        assert read_unlabelled(source, DataConfig()).ids == ("test/t0.jpg", "test/t1.jpg", "test/t2.jpg")
    assert read_unlabelled(table, DataConfig(split="none")) is None


@pytest.mark.parametrize("folder", ["images", "photos", "train_photos", "pictures", "data"])
def test_a_folder_of_a_tables_images_is_no_class_whatever_it_is_called(write, folder):
    table = write("image,label", "a.jpg,x", "b.jpg,y", folder=folder)
    assert read(table.parent).ids == (f"{folder}/a.jpg", f"{folder}/b.jpg")


def test_of_several_tables_in_a_folder_one_has_to_be_named(write):
    table = write("image,label", "a.jpg,x", "b.jpg,y")
    write("image,label", "a.jpg,x", "b.jpg,y", name="other.csv")
    assert "--data" in refused(table.parent)[0]


# Lists


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", "])
def test_a_list_has_a_path_and_a_label_in_each_line(tmp_path, separator):
    lines = [f"cat/my image {index}.jpg{separator}{'cd'[index % 2]}" for index in range(4)]
    (tmp_path / "list.txt").write_text("# made by hand\n" + "\n".join(lines) + "\n")
    touch(*(tmp_path / "cat" / f"my image {index}.jpg" for index in range(4)))
    images = read(tmp_path / "list.txt")
    assert images.scheme.targets == (Classes("label", ("c", "d")),) and images.ids[0] == "cat/my image 0.jpg"


def test_lists_of_parts_belong_together_and_files_are_found_in_any_folder(tmp_path):
    for part, names in (("train", "abcd"), ("val", "ef")):
        (tmp_path / f"files_{part}.txt").write_text("".join(f"{name}.jpg {index % 2}\n" for index, name in enumerate(names)))
    touch(*(tmp_path / "all" / ("one", "two")[index % 2] / f"{name}.jpg" for index, name in enumerate("abcdef")))
    images = read(tmp_path / "files_train.txt")
    assert images.given.tolist() == [TRAIN] * 4 + [VALID] * 2 and images.ids[1] == "all/two/b.jpg"


def test_a_list_with_several_labels_asks_which_is_the_target(tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"a{index}.jpg {index % 2} {index % 3}\n" for index in range(9)))
    touch(*(tmp_path / f"a{index}.jpg" for index in range(9)))
    assert any("--target 'column 2'" in line for line in refused(tmp_path / "list.txt"))
    assert read(tmp_path / "list.txt", "column 3").scheme.classes == 3


# Labels in names of files


def test_labels_are_read_from_names_of_files_by_a_pattern(tmp_path):
    touch(*(tmp_path / "deep" / f"{breed}_{index}.jpg" for breed in ("beagle", "great_dane") for index in range(3)), tmp_path / "else.jpg")
    images = read(tmp_path, label_pattern="{label}_{n}")
    assert images.scheme.targets == (Classes("label", ("beagle", "great_dane")),) and len(images) == 6
    assert ("else.jpg",) in noted(images).values()


def test_a_pattern_may_name_groups_parts_and_several_targets(tmp_path):
    touch(
        *(
            tmp_path / f"{part}/ann{index}-{'xy'[index % 2]}-{index % 3}-{shot}.jpg"
            for part in ("train", "test")
            for index in range(6)
            for shot in (1, 2)
        )
    )
    images = read(tmp_path, "kind,size", label_pattern="{split}/{group}-{kind}-{size}-{n}")
    assert images.scheme.names == ("kind", "size") and set(images.names) == {f"ann{index}" for index in range(6)}
    assert set(images.given.tolist()) == {TRAIN, TEST}


@pytest.mark.parametrize("pattern", ["label", "{label}_{label}", "{}", "{label}~{n}"])
def test_a_pattern_that_says_nothing_or_fits_nothing_is_refused(tmp_path, pattern):
    touch(tmp_path / "cat_1.jpg", tmp_path / "dog_2.jpg")
    assert "data/label_pattern" in refused(tmp_path, label_pattern=pattern)[0]


# Parquet


def parquet(file: Path, *, names: bool = False, kind: str = "struct", labels: tuple = ("cat", "dog"), count: int = 8) -> Path:
    """A Parquet file of small images: structs of bytes and path as Hugging Face writes them, or plain bytes."""
    import io
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    contents = []
    for index in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (30 * index, 0, 0)).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    held = [{"bytes": one, "path": f"p{index}.png"} for index, one in enumerate(contents)] if kind == "struct" else contents
    values = [index % 2 if names else labels[index % 2] for index in range(count)] if labels else [-1] * count
    table = pa.table({"image": held, "label": values})
    if names:
        features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


@pytest.mark.parametrize("kind", ["struct", "binary"])
@pytest.mark.parametrize("names", [False, True])
def test_images_in_a_parquet_file_are_files_with_its_labels(tmp_path, kind, names):
    images = read(parquet(tmp_path / "set.parquet", names=names, kind=kind))
    assert images.scheme.targets == (Classes("label", ("cat", "dog")),) and len(images) == 8
    assert [Image.open(images.root / name).getpixel((0, 0))[0] for name in images.ids] == [30 * index for index in range(8)]
    again = read(tmp_path / "set.parquet")
    assert again.ids == images.ids and again.root == images.root


def test_parquet_files_of_parts_belong_together_and_one_without_classes_is_to_be_answered(tmp_path):
    parquet(tmp_path / "data" / "train-00000-of-00001.parquet", names=True)
    parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", names=True, count=4)
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", names=True, labels=(), count=3)
    images = read(tmp_path)
    assert np.bincount(images.given, minlength=3).tolist() == [8, 4, 0]
    assert len(read_unlabelled(tmp_path, DataConfig()).ids) == 3


def test_a_parquet_file_without_images_is_a_table(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": ["a.jpg", "b.jpg"], "label": [True, False]}), tmp_path / "photos.parquet")
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert read(tmp_path / "photos.parquet").scheme.targets[0].values == ("False", "True")


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "set.parquet").write_text("no")
    assert str(tmp_path / "set.parquet") in refused(tmp_path / "set.parquet")[0]
