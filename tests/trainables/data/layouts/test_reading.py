import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import nightly_after
from tests.messages import missing, mistaken
from trainables.data.images import DataError, Images, LeftOut
from trainables.data.layouts.contest import contest_scheme
from trainables.data.layouts.reading import read_images, read_joining, read_scheme, read_unlabelled, refuse_odd_names
from trainables.data.settings import DataConfig
from trainables.data.targets import Classes, Scheme


@pytest.fixture
def tree(tmp_path):
    """A folder with two images of each of two classes."""
    for name in ("cat", "dog"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (4, 4)).save(tmp_path / "tree" / name / f"{number}.png")
    return tmp_path / "tree"


@pytest.fixture
def table(tree):
    """A table of the same images, whose classes are called alike."""
    rows = ["image,class", *(f"{name}/{number}.png,{name}" for name in ("dog", "cat") for number in range(2))]
    (tree / "photos.csv").write_text("\n".join(rows))
    return tree / "photos.csv"


@pytest.fixture(scope="module")
def quirky(demo) -> Images:
    return read_images(demo, DataConfig())


def reading(source, scheme=None) -> Images:
    return read_joining(source, DataConfig(), scheme, scheme.names) if scheme else read_images(source, DataConfig())


def test_one_door_reads_every_layout(demo, tree, table):
    assert reading(demo).scheme == contest_scheme((30, 60))
    for images in (reading(tree), reading(table)):
        assert images.scheme == Scheme((Classes("class", ("cat", "dog")),))
        labels = dict(zip(images.ids, images.labels[:, 0].tolist(), strict=True))
        assert labels == {"cat/0.png": 0, "cat/1.png": 0, "dog/0.png": 1, "dog/1.png": 1}


def test_the_scheme_alone_is_that_of_the_images(demo, tree, table):
    for source in (demo, tree, table):
        assert read_scheme(source, DataConfig(cuts=(25, 40))) == read_images(source, DataConfig(cuts=(25, 40))).scheme


@pytest.mark.parametrize("name", ["nowhere", "folder", "photo.jpg", "notes.md"])
def test_a_source_of_no_layout_is_refused_with_its_path(tmp_path, name):
    (tmp_path / "folder").mkdir()
    for file in ("photo.jpg", "notes.md", "folder/beside.jpg"):
        (tmp_path / file).touch()
    for read in (read_images, read_scheme):
        with pytest.raises(DataError) as caught:
            read(tmp_path / name, DataConfig())
        assert str(caught.value).startswith(f"{tmp_path / name}: ") and "--data" in str(caught.value)


def test_where_several_layouts_fit_one_can_be_chosen(tree, table):
    assert read_images(tree, DataConfig()).root == tree
    (tree / "photos.csv").write_text("image,label\ncat/0.png,x\ndog/0.png,y\n")
    assert read_images(tree, DataConfig()).scheme.names == ("class",)
    assert read_images(tree, DataConfig(layout="table")).scheme.names == ("label",)
    with pytest.raises(DataError, match="data/layout is 'rows'.*class_folders"):
        read_images(tree, DataConfig(layout="rows"))


def test_images_to_predict_are_those_of_the_test_part_without_labels(demo, tree, table):
    assert len(read_unlabelled(demo, DataConfig()).ids) == 4 * 7
    assert read_unlabelled(tree, DataConfig()) is read_unlabelled(table, DataConfig()) is None


# Names


def renamed(folder: Path, name: str | bytes) -> None:
    folder.rename(os.fsdecode(os.path.join(os.fsencode(folder.parent), os.fsencode(name))))


def test_files_whose_names_are_no_utf_8_are_refused_by_name_whatever_reads_them(tree):
    renamed(tree / "cat" / "0.png", b"caf\xe9.png")
    for scheme in (None, Scheme((Classes("class", ("cat", "dog")),))):
        with pytest.raises(DataError) as caught:
            reading(tree, scheme)
        assert str(caught.value).startswith(f"{tree}: 1 names ") and not missing(str(caught.value), "UTF-8", r"cat/caf\xe9.png")


def test_a_folder_whose_own_name_is_no_utf_8_is_refused(tree):
    renamed(tree, b"images \xe9")
    with pytest.raises(DataError, match=r"images \\xe9: .*UTF-8"):
        reading(tree.parent / os.fsdecode(b"images \xe9"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ca\nt", r"control characters: ca\nt."),
        ("ca\x1b[31mt", r"control characters: ca\x1b[31mt."),
        ("Dog", "'Dog', 'dog'"),
    ],
)
def test_class_names_that_a_new_run_should_not_begin_with(tree, name, words):
    renamed(tree / "cat", name)
    images = reading(tree)
    with pytest.raises(DataError) as caught:
        refuse_odd_names(tree, images)
    assert str(caught.value).startswith(f"{tree}: ") and not missing(str(caught.value), "classes of class", words)


def test_single_letters_may_differ_in_capitals_alone(tree):
    renamed(tree / "cat", "A")
    renamed(tree / "dog", "a")
    refuse_odd_names(tree, reading(tree))


def test_joint_classes_that_would_have_one_name_are_refused(tree):
    rows = ['cat/0.png,"a, b",c', 'cat/1.png,a,"b, c"', 'dog/0.png,a,"b, c"', 'dog/1.png,"a, b",c']
    (tree / "photos.csv").write_text("\n".join(["image,one,two", *rows]))
    images = read_images(tree / "photos.csv", DataConfig(target="one,two"))
    with pytest.raises(DataError, match="joint classes .*'a, b, c'"):
        refuse_odd_names(tree / "photos.csv", images)


def test_names_of_every_script_are_fine(tree):
    renamed(tree / "cat", "고양이, œ‘ (x)")
    refuse_odd_names(tree, reading(tree))


# Images that join others


def test_labels_are_numbered_by_the_scheme_that_the_images_join(table):
    scheme = Scheme((Classes("class", ("dog", "bird", "cat")),))
    joining = reading(table, scheme)
    assert joining.scheme == scheme
    assert dict(zip(joining.ids, joining.labels[:, 0].tolist(), strict=True)) == {
        "dog/0.png": 0, "dog/1.png": 0, "cat/0.png": 2, "cat/1.png": 2
    }  # fmt: skip


def test_attributes_may_stand_in_another_order_and_others_are_passed_over(demo, quirky, tmp_path):
    rows = ["image,person,age,colour,mask,gender"]
    for name, number, label in zip(quirky.ids, quirky.numbers, quirky.labels, strict=True):
        mask, gender, _ = (attribute.values[value] for attribute, value in zip(quirky.scheme.targets, label, strict=True))
        rows.append(f"people/{name},{name.split('/')[0]},{number:g},red,{mask},{gender}")
    (tmp_path / "people").symlink_to(demo / "train" / "images")
    (tmp_path / "joining.csv").write_text("\n".join(rows))
    joining = read_joining(tmp_path / "joining.csv", DataConfig(ordinal="age"), quirky.scheme, quirky.scheme.names)
    assert joining.scheme == quirky.scheme
    np.testing.assert_array_equal(joining.labels, quirky.labels)
    np.testing.assert_array_equal(joining.numbers, quirky.numbers)
    assert joining.names == quirky.names


def test_what_keeps_images_from_joining_is_reported_at_once(table):
    scheme = Scheme((Classes("size", ("small", "large")), Classes("class", ("dog", "bird"))))
    with pytest.raises(DataError) as caught:
        reading(table, scheme)
    expected = [(f"{table}: ", "no target size", "class"), (f"{table}: class ", "cat", "dog, bird")]
    assert not mistaken(str(caught.value).splitlines(), expected)


def test_only_needed_targets_must_be_there_and_of_known_values_and_others_stay_where_they_are(table):
    kind, size = Classes("class", ("dog", "cat")), Classes("size", ("small", "large"))
    years = Classes.banded("years", (30,))
    scheme = Scheme((size, kind, years))
    joining = read_joining(table, DataConfig(ordinal="years"), scheme, {"class"})
    assert joining.scheme == Scheme((kind,)) and joining.labels[:, 0].tolist() == [0, 0, 1, 1] and joining.numbers is None
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},size,years", *(f"{row},small,{25 + 5 * number}" for number, row in enumerate(rows))]))
    whole = read_joining(table, DataConfig(ordinal="years"), scheme, {"class"})
    assert whole.scheme == scheme and whole.labels[:, 2].tolist() == [0, 1, 1, 1]
    table.write_text(table.read_text().replace("small", "tiny"))
    assert read_joining(table, DataConfig(ordinal="years"), scheme, {"class"}).scheme == Scheme((kind, years))
    with pytest.raises(DataError, match="size is tiny"):
        read_joining(table, DataConfig(ordinal="years"), scheme, {"size"})


def test_images_of_one_class_alone_may_join_but_not_stand_alone(tree):
    for image in (tree / "dog").iterdir():
        image.unlink()
    scheme = Scheme((Classes("class", ("cat", "dog")),))
    assert reading(tree, scheme).labels.tolist() == [[0], [0]]
    with pytest.raises(DataError, match="cat for every image"):
        reading(tree)


# The record itself


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_taken_images_keep_all_that_is_known_of_them(quirky, seed):
    positions = np.random.default_rng(seed).permutation(len(quirky))[:50]
    taken = quirky.take(positions)
    for place, position in enumerate(positions):
        assert taken.ids[place] == quirky.ids[position]
        for name in ("groups", "labels", "numbers", "names"):
            assert np.array_equal(getattr(taken, name)[place], getattr(quirky, name)[position])
    assert len(taken) == 50


def names_left_out(images: Images, reason: str) -> tuple[str, ...]:
    return next((item.names for item in images.left_out if item.reason.startswith(reason)), ())


def test_undecodable_images_leave_with_their_rows_untouched(quirky):
    worst = quirky.ids[5]
    left = quirky.without({worst: "truncated"})
    assert worst not in left.ids and len(left) == len(left.groups) == len(left.labels) == len(quirky) - 1
    assert list(left.ids) == [name for name in quirky.ids if name != worst]
    assert names_left_out(left, "images cannot be decoded") == (f"{worst} (truncated)",)
    assert quirky.without({}) is quirky


def test_reasons_are_shown_with_the_number_and_the_first_names(quirky):
    many = quirky.without({name: "grey" for name in quirky.ids[:7]}).left_out[-1]
    assert str(many).startswith("7 images ") and f": {quirky.ids[0]} (grey), " in str(many) and str(many).endswith(" and 2 more")


def test_a_few_names_are_all_shown():
    assert str(LeftOut("shots missing", ("a", "b"))) == "2 shots missing: a, b"
