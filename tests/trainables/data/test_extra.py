import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.ensemble.files import write_submission
from tests.messages import missing, mistaken
from trainables.data.extra import Completed, complete, extra_table, refuse_other_extra
from trainables.data.images import DataError, Images
from trainables.data.layouts.reading import read_images, read_unlabelled
from trainables.data.settings import DataConfig, LabelsConfig
from trainables.data.splits import NO_FOLD
from trainables.data.targets import read_task
from trainables.data.training import Data, training_images, unlabelled_images
from trainables.data.views import View, ViewConfig, ViewFiles, build_views, open_view
from trainables.record import RunError
from trainables.restore_data import EXTRA, verify_extra

VIEW = View.of(ViewConfig(size=32))


@pytest.fixture
def decode(cache) -> Callable[[Images], tuple[Images, ViewFiles]]:
    def decode(images: Images) -> tuple[Images, ViewFiles]:
        files = build_views(images, [VIEW], cache)
        return images.without(files.bad), files

    return decode


@pytest.fixture
def completed(demo, data, cache, decode) -> Callable[..., Completed]:
    """The demo's data with all that these settings add to it."""
    digests = build_views(read_images(demo, DataConfig()), [VIEW], cache).digests

    def completed(relabels=(), data=data, tasks=("joint",), **settings) -> Completed:
        return complete(data, demo, DataConfig(**settings), tasks, relabels, digests, decode)

    return completed


@pytest.fixture
def refused(completed) -> Callable[..., list[str]]:
    def refused(**settings) -> list[str]:
        with pytest.raises(DataError) as caught:
            completed(**settings)
        return str(caught.value).splitlines()

    return refused


@pytest.fixture
def strangers(tmp_path) -> Path:
    """A table of three plain images of groups who are not in the demo."""
    rows = ["image,person,age,gender,mask"]
    for number, (years, gender, mask) in enumerate([(70, "male", "worn"), (20, "female", "absent"), (45, "female", "worn")]):
        Image.new("RGB", (40, 40), (50 * number, 90, 20)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,stranger {number},{years},{gender},{mask}")
    (tmp_path / "strangers.csv").write_text("\n".join(rows))
    return tmp_path / "strangers.csv"


@pytest.fixture
def probabilities(demo, data, tmp_path) -> Path:
    """What an ensemble wrote about the demo's images to predict."""
    answer = np.random.default_rng(0).dirichlet(np.full(18, 0.05), size=28)
    (tmp_path / "ensemble").mkdir()
    return write_submission(tmp_path / "ensemble", read_unlabelled(demo, DataConfig()), answer, data.images.scheme)[1]


def test_without_settings_nothing_is_added(completed, data):
    whole = completed()
    assert (whole.found, whole.table, whole.left_out) == ((), b"", ())
    assert (whole.data.extra, whole.data.relabelled, whole.data.weights) == ((), {}, None)
    assert whole.data.images is data.images and whole.data.split is data.split


@pytest.mark.parametrize("ordinal", ["age", ""], ids=["a column that is named", "a column of numbers"])
def test_labelled_images_of_another_layout_train_with_the_labels_of_the_data(completed, data, strangers, ordinal):
    whole = completed(extra=(str(strangers),), ordinal=ordinal)
    (extra,) = whole.data.extra
    assert extra.soft is None and extra.images.scheme == data.images.scheme
    assert extra.images.labels.tolist() == [[0, 0, 2], [2, 1, 0], [0, 1, 1]] and extra.images.numbers.tolist() == [70, 20, 45]
    view = open_view(extra.views[VIEW])
    for row, colour in zip(view.rows(extra.images.ids), ((0, 90, 20), (50, 90, 20), (100, 90, 20)), strict=True):
        assert (view.images[row] == colour).all()
    found = training_images(LabelsConfig(), whole.data, read_task("joint", data.images.scheme))
    assert found.ids[found.source == 1].tolist() == ["0.png", "1.png", "2.png"]


def test_several_sources_keep_their_order_and_those_of_an_ensemble_come_last(completed, strangers, probabilities, tmp_path):
    more = tmp_path / "more.csv"
    more.write_text("\n".join(strangers.read_text().splitlines()[:2]))
    whole = completed(extra=(str(strangers), str(more)), pseudo=str(probabilities), ordinal="age")
    assert [one.source for one in whole.found] == [str(strangers), str(more), str(probabilities)]
    assert [len(extra.images) for extra in whole.data.extra] == [3, 1, 28]


def test_images_that_cannot_be_decoded_do_not_train_and_are_named(completed, strangers):
    (strangers.parent / "1.png").write_bytes(b"no image")
    whole = completed(extra=(str(strangers),), ordinal="age")
    assert whole.data.extra[0].images.ids == ("0.png", "2.png")
    (item,) = whole.left_out
    assert not missing(str(item), "1 images", "1.png (")


def test_a_source_that_does_not_fit_the_data_is_refused_as_one_of_data_extra(refused, strangers, tmp_path):
    assert refused(extra=(str(tmp_path / "nowhere"),))[0].startswith(f"data/extra: {tmp_path / 'nowhere'}: ")
    expected = [(f"data/extra: {strangers}: ", "no target gender", "age, sex, mask"), (f"{strangers}: age ", "young", "30-59")]
    strangers.write_text(strangers.read_text().replace("gender", "sex").replace(",20,", ",young,"))
    assert not mistaken(refused(extra=(str(strangers),)), expected)
    strangers.write_text(strangers.read_text().replace("young", "20"))
    assert not mistaken(refused(extra=(str(strangers),), ordinal="age"), expected[:1])


def test_images_without_labels_are_read_from_folders_of_any_depth_and_noted_without_a_class(completed, strangers):
    (strangers.parent / "deep").mkdir()
    (strangers.parent / "2.png").rename(strangers.parent / "deep" / "2.png")
    whole = completed(unlabelled=(str(strangers.parent),))
    (extra,) = whole.data.extra
    assert extra.unlabelled and extra.images.ids == ("0.png", "1.png", "deep/2.png")
    assert [row["class"] for row in csv.DictReader(io.StringIO(whole.table.decode()))] == ["", "", ""]
    task = read_task("joint", whole.data.images.scheme)
    assert not training_images(LabelsConfig(), whole.data, task).source.any(), "none trains as a labelled one"
    found = unlabelled_images(whole.data)
    assert found.ids.tolist() == list(extra.images.ids) and set(found.source) == {1}


def test_images_without_labels_that_are_held_out_are_refused_and_those_that_validate_stay_apart(completed, refused, data, demo, tmp_path):
    assert not mistaken(refused(unlabelled=("nowhere",)), [("data/unlabelled: nowhere: ", "no such folder")])
    (tmp_path / "none").mkdir()
    assert not mistaken(refused(unlabelled=(str(tmp_path / "none"),)), [("data/unlabelled: ", "no images")])
    (tmp_path / "some").mkdir()
    names = [data.images.ids[rows[0]] for rows in (data.split.valid, data.split.train)]
    for number, name in enumerate(names):
        shutil.copy(data.images.root / name, tmp_path / "some" / f"{number}.jpg")
    assert unlabelled_images(completed(unlabelled=(str(tmp_path / "some"),)).data).ids.tolist() == ["1.jpg"]
    shutil.copy(data.images.root / data.images.ids[data.split.holdout[0]], tmp_path / "some" / "2.jpg")
    assert not missing("\n".join(refused(unlabelled=(str(tmp_path / "some"),))), "1 images of hold-out groups", "2.jpg")


def test_only_what_some_trial_predicts_must_be_labelled_in_extra_images(completed, refused, data, strangers):
    strangers.write_text(strangers.read_text().replace("gender", "sex"))
    whole = completed(extra=(str(strangers),), ordinal="age", tasks=["mask", "age"])
    assert whole.data.extra[0].images.scheme.names == ("mask", "age")
    found = training_images(LabelsConfig(), whole.data, read_task("mask", data.images.scheme))
    assert found.classes[found.source == 1].tolist() == [0, 2, 0]
    (line,) = refused(extra=(str(strangers),), ordinal="age", tasks=["mask", "gender"])
    assert "has no target gender" in line


@pytest.mark.parametrize("extra", [(), ("",)])
def test_an_empty_setting_names_no_source(completed, extra):
    assert completed(extra=extra, pseudo="", weights="").found == ()


# Who is scored must not train


def part(data: Data, name: str) -> list[int]:
    return {"train": data.split.train, "valid": data.split.valid, "holdout": data.split.holdout}[name].tolist()


def extras(whole: Completed, data: Data, fold: int) -> list[str]:
    """The extra images that train while a fold validates."""
    at = replace(whole.data, split=replace(data.split, fold=fold))
    found = training_images(LabelsConfig(), at, read_task("joint", data.images.scheme))
    return found.ids[found.source == 1].tolist()


def named(strangers: Path, group: str) -> None:
    strangers.write_text(strangers.read_text().replace("stranger 1", group))


def test_a_group_that_is_held_out_is_refused_by_name(refused, data, strangers):
    group = sorted({data.images.names[index] for index in part(data, "holdout")})[0]
    named(strangers, group)
    (line,) = refused(extra=(str(strangers),), ordinal="age")
    assert not mistaken([line], [(f"{strangers}: 1 images ", "hold-out", f"1.png ({group})")])


def test_a_copy_of_an_image_that_is_held_out_is_refused_whatever_its_name(refused, data, strangers):
    shutil.copy(data.images.root / data.images.ids[part(data, "holdout")[3]], strangers.parent / "1.png")
    (line,) = refused(extra=(str(strangers),), ordinal="age")
    assert not mistaken([line], [(f"{strangers}: 1 images ", "hold-out", "1.png (stranger 1)")])


def test_every_source_that_leaks_is_named(refused, demo):
    lines = refused(extra=(str(demo), str(demo)))
    assert len(lines) == 2 and all(line.startswith(f"{demo}: ") and "hold-out groups would train" in line for line in lines)


@pytest.mark.parametrize("name", ["train", "valid"])
@pytest.mark.parametrize("copy", [False, True], ids=["its name", "a copy"])
def test_a_group_of_the_run_trains_only_in_folds_where_it_does_not_validate(completed, data, strangers, name, copy):
    index = part(data, name)[0]
    if copy:
        shutil.copy(data.images.root / data.images.ids[index], strangers.parent / "1.png")
    else:
        named(strangers, data.images.names[index])
    whole = completed(extra=(str(strangers),), ordinal="age")
    its = int(data.split.part[index])
    assert (its == data.split.fold) == (name == "valid")
    assert extras(whole, data, its) == ["0.png", "2.png"]
    assert extras(whole, data, 1 - its) == extras(whole, data, NO_FOLD) == ["0.png", "1.png", "2.png"]
    apart = [item.names for item in whole.left_out if "validate" in item.reason]
    assert len(apart) == (name == "valid") and all(names[0].startswith("1.png (") for names in apart)


def test_what_is_decided_of_extra_images_is_the_same_for_every_fold(completed, data, strangers):
    """Search and refit look at other folds, and agree."""
    named(strangers, data.images.names[part(data, "train")[0]])
    of_fold = [replace(data, split=replace(data.split, fold=fold)) for fold in (0, 1, NO_FOLD)]
    wholes = [completed(extra=(str(strangers),), ordinal="age", data=one) for one in of_fold]
    assert len({whole.table for whole in wholes}) == 1
    assert len({whole.data.extra[0].validates.tobytes() for whole in wholes}) == 1


def test_a_copy_of_one_image_ties_all_images_of_its_group(completed, data, strangers):
    index = part(data, "valid")[0]
    shutil.copy(data.images.root / data.images.ids[index], strangers.parent / "1.png")
    strangers.write_text(strangers.read_text().replace("stranger 2", "stranger 1"))
    whole = completed(extra=(str(strangers),), ordinal="age")
    assert extras(whole, data, data.split.fold) == ["0.png"]


@pytest.mark.parametrize("name", ["valid", "holdout", "train"])
def test_an_image_that_was_encoded_again_and_is_scored_is_named(completed, data, strangers, name):
    copied = data.images.ids[part(data, name)[0]]
    Image.open(data.images.root / copied).convert("RGB").save(strangers.parent / "1.png")
    whole = completed(extra=(str(strangers),), ordinal="age")
    found = [item.names for item in whole.left_out if "resemble" in item.reason]
    if name == "train":
        assert not any(copied in names for (names,) in found)
    else:
        ((words,),) = found
        assert words == f"1.png (like {copied})"


# Soft labels of an ensemble


def test_images_of_an_ensemble_train_with_its_probabilities(completed, demo, data, probabilities):
    extra = completed(pseudo=str(probabilities)).data.extra[0]
    with probabilities.open(newline="") as file:
        rows = {row.pop("ImageID"): np.array([float(field) for field in row.values()]) for row in csv.DictReader(file)}
    assert extra.images.ids == read_unlabelled(demo, DataConfig()).ids and extra.images.root == demo / "eval" / "images"
    for name, soft, label in zip(extra.images.ids, extra.soft, data.images.scheme.joint(extra.images.labels), strict=True):
        np.testing.assert_allclose(soft, rows[name] / rows[name].sum(), rtol=1e-6, atol=1e-12)
        assert label == rows[name].argmax()
    assert extra.soft.dtype == np.float32 and extra.images.numbers is None


def test_a_table_may_name_some_of_the_images_in_any_order(completed, probabilities):
    whole = completed(pseudo=str(probabilities)).data.extra[0]
    header, *rows = probabilities.read_text().splitlines()
    probabilities.write_text("\n".join([header, *rows[20:10:-1]]))
    extra = completed(pseudo=str(probabilities)).data.extra[0]
    assert extra.images.ids == whole.images.ids[11:21] and extra.views == whole.views
    np.testing.assert_array_equal(extra.soft, whole.soft[11:21])


def test_columns_that_are_not_the_classes_are_refused(refused, probabilities):
    probabilities.write_text(probabilities.read_text().replace("<30", "<25"))
    (line,) = refused(pseudo=str(probabilities))
    assert line.startswith(f"{probabilities}: ") and "worn, male, <30, " in line and "worn, male, <25, " in line and "data/cuts" in line


def test_every_wrong_row_of_probabilities_is_named_by_its_line(refused, probabilities):
    header, *rows = probabilities.read_text().splitlines()
    rows = [row.split(",") for row in rows]
    rows[1][0] = rows[0][0]
    rows[2][0] = "gone.jpg"
    rows[3][1] = "-0.5"
    rows[4][1] = "high"
    rows[5][1:] = ["0.1"] * 18
    probabilities.write_text("\n".join([header, *(",".join(row) for row in rows)]))
    expected = [
        (f"{probabilities}:3: ", rows[0][0]),
        (f"{probabilities}:4: ", "'gone.jpg'", "eval/info.csv"),
        *((f"{probabilities}:{line}: ", "probabilities", "sum to 1") for line in (5, 6, 7)),
    ]
    assert not mistaken(refused(pseudo=str(probabilities)), expected)


def test_data_without_images_to_predict_has_no_use_for_probabilities(data, probabilities, decode, tmp_path):
    for name in ("cat/1.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"data/pseudo: {tmp_path} "):
        complete(data, tmp_path, DataConfig(pseudo=str(probabilities)), ("joint",), (), {}, decode)


# Corrections and weights


def test_labels_are_there_for_every_correction_that_a_trial_may_ask_for(completed, data, tmp_path):
    group = data.images.names[0]
    (tmp_path / "mine.csv").write_text(f"photo,attribute,value\n{group},age,>=60\n")
    whole = completed(relabels=["none", "consensus", str(tmp_path / "mine.csv")])
    assert set(whole.data.relabelled) == {"consensus", str(tmp_path / "mine.csv")}
    labels = whole.data.relabelled[str(tmp_path / "mine.csv")]
    mine = data.images.groups == data.images.groups[0]
    assert (labels[mine, 2] == 2).all() and (labels[~mine] == data.images.labels[~mine]).all()
    assert sum("consensus" in item.reason for item in whole.left_out) == 1


def test_weights_are_those_of_the_table(completed, data, tmp_path):
    (tmp_path / "weights.csv").write_text(f"photo,weight\n{data.images.ids[3]},4\nnobody,1\n")
    whole = completed(weights=str(tmp_path / "weights.csv"))
    assert whole.data.weights.tolist() == [4.0 if index == 3 else 1.0 for index in range(len(data.images))]
    assert [item.names for item in whole.left_out] == [("nobody",)]


# The table, by which a run resumes with the same


def test_the_table_names_every_image_with_its_class_and_content(completed, strangers, probabilities, tmp_path):
    (tmp_path / "weights.csv").write_text("photo,weight\nnobody,1\n")
    whole = completed(extra=(str(strangers),), pseudo=str(probabilities), weights=str(tmp_path / "weights.csv"), ordinal="age")
    rows = list(csv.DictReader(io.StringIO(whole.table.decode())))
    assert list(rows[0]) == ["source", "photo", "class", "sha256"] and len(rows) == 3 + 28 + 1
    assert [row["class"] for row in rows[:3]] == ["worn, male, >=60", "absent, female, <30", "worn, female, 30-59"]
    assert all(row["class"].startswith("soft ") for row in rows[3:31]) and len({row["class"] for row in rows[3:31]}) == 28
    assert rows[31]["source"] == str(tmp_path / "weights.csv") and rows[31]["class"] == "weights"
    assert all(len(row["sha256"]) == 16 for row in rows)
    assert whole.table == extra_table(whole.found, str(tmp_path / "weights.csv"))


@pytest.mark.parametrize("change", ["photo", "label", "row", "probability", "weight"])
def test_whatever_changed_since_is_a_difference(completed, strangers, probabilities, tmp_path, change):
    weights = tmp_path / "weights.csv"
    weights.write_text("photo,weight\nnobody,1\n")
    settings = {"extra": (str(strangers),), "pseudo": str(probabilities), "weights": str(weights), "ordinal": "age"}
    then = completed(**settings).table
    refuse_other_extra(then, completed(**settings).table)
    if change == "photo":
        Image.new("RGB", (41, 40)).save(strangers.parent / "1.png")
    elif change == "label":
        strangers.write_text(strangers.read_text().replace("20,female,absent", "20,female,worn"))
    elif change == "row":
        strangers.write_text("\n".join(strangers.read_text().splitlines()[:-1]))
    elif change == "probability":
        header, first, second, *rows = probabilities.read_text().splitlines()
        one, other = first.split(","), second.split(",")
        probabilities.write_text("\n".join([header, ",".join([one[0], *other[1:]]), second, *rows]))
    else:
        weights.write_text("photo,weight\nnobody,2\n")
    with pytest.raises(DataError) as caught:
        refuse_other_extra(then, completed(**settings).table)
    lines = str(caught.value).splitlines()
    assert not missing(lines[0], "data/extra, data/pseudo, data/weights")
    assert lines[1].startswith("  only then, 1: ") and (change == "row" or lines[2].startswith("  only now, 1: "))


def test_a_run_resumes_with_the_same_table_alone(tmp_path):
    verify_extra(tmp_path, b"")
    with pytest.raises(RunError, match="only now"):
        verify_extra(tmp_path, b"source,photo,class,sha256\na,b,c,d\n")
    (tmp_path / EXTRA).write_bytes(b"source,photo,class,sha256\na,b,c,d\n")
    verify_extra(tmp_path, b"source,photo,class,sha256\na,b,c,d\n")
    with pytest.raises(RunError, match="only then, 2: a,b,c,d, source,photo"):
        verify_extra(tmp_path, b"")


@pytest.mark.parametrize("held_out", [True, False])
def test_soft_labels_by_models_that_have_seen_the_holdout_are_refused_with_its_images(
    completed, refused, data, demo, probabilities, tmp_path, held_out
):
    folder = tmp_path / "other" / "ensemble"
    folder.mkdir(parents=True)
    shutil.copy(probabilities, folder / "probabilities.csv")
    digests = build_views(read_images(demo, DataConfig()), [VIEW], tmp_path).digests
    name = data.images.ids[data.split.holdout[0]]
    part = "holdout" if held_out else "fold 1"
    (folder.parent / "split.csv").write_text(f"photo,person,class,part,sha256\n{name},0,x,{part},{digests[name]}\n")
    if held_out:
        assert len(completed(pseudo=str(folder / "probabilities.csv")).found) == 1
    else:
        (line,) = refused(pseudo=str(folder / "probabilities.csv"))
        assert name in line and "data/pseudo" in line


def test_corrections_of_the_holdout_are_named_and_change_no_label_there(completed, data, tmp_path):
    held, trained = (data.images.ids[rows[0]] for rows in (data.split.holdout, data.split.train))
    table = tmp_path / "relabel.csv"
    genders = data.images.scheme.targets[1].values
    rows = []
    for name in (held, trained):
        given = data.images.labels[data.images.ids.index(name), 1]
        rows.append(f"{name},gender,{genders[1 - given]}\n")
    table.write_text("photo,attribute,value\n" + "".join(rows))
    named = [item.names for item in completed(relabels=(str(table),)).left_out if str(table) in item.reason]
    assert named == [(held,)]
