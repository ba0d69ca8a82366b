"""Answers in the form in which somebody asks for them."""

import pandas as pd
import pytest

from analysis.evaluation.elsewhere import source_of
from tests.analysis.predict.test_predict import call, here, images, refused, table  # noqa: F401
from tests.messages import missing


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(name, dtype=str, keep_default_na=False)


@pytest.fixture
def names(images):  # noqa: F811
    return sorted(file.relative_to(images).as_posix() for file in images.rglob("*.*"))


def test_the_form_beside_the_folder_of_images_keeps_its_columns_rows_and_order(here, images, names):  # noqa: F811
    rows = [names[3], "gone.jpg", names[0]]
    (here / "sample_submission.csv").write_text("ImageID,ans\n" + "".join(f"{row},7\n" for row in rows))
    result = call("--photos", "photos")
    assert result.exit_code == 0, result.output
    assert not missing(result.stdout, "1 rows", "gone.jpg", "4 images", "sample_submission.csv", "answers_submission.csv")
    found, answers = read("answers_submission.csv"), table().set_index("image")
    assert list(found.columns) == ["ImageID", "ans"] and found["ImageID"].tolist() == rows
    assert found["ans"].tolist() == [str(answers.loc[names[3], "joint class"]), "7", str(answers.loc[names[0], "joint class"])]
    assert source_of(here / "answers_submission.csv").ensemble == str(here / "runs/faces/ensemble")


@pytest.mark.parametrize("columns", ["age,mask,gender", "answer"])
def test_values_are_given_by_name_under_a_column_for_each_target_or_one_for_all(here, images, names, columns):  # noqa: F811
    blank = "," * columns.count(",")
    (here / "form.csv").write_text(f"image,{columns}\n" + "".join(f"{name.rpartition('/')[2]},{blank}\n" for name in names))
    result = call("--photos", "photos", "--sample-submission", "form.csv")
    assert result.exit_code == 0, result.output
    found, answers = read("answers_submission.csv"), table()
    assert list(found.columns) == ["image", *columns.split(",")]
    for row, answer in zip(found.to_dict("records"), answers.to_dict("records"), strict=True):
        parts = [answer[name] for name in ("mask", "gender", "age")]
        assert [row["answer"]] == [", ".join(parts)] if columns == "answer" else [row[name] for name in ("mask", "gender", "age")] == parts


@pytest.mark.parametrize(
    "text, told",
    [
        ("image,left,right\n{0},,\n", ("left", "mask, gender, age")),
        ("image\n{0}\n", ("image",)),
        ("image,ans\nelsewhere.jpg,0\n", ("none",)),
        ("image,ans\n{0},0\n{0},0\n", ("{0}",)),
        (",image,ans\n0,{0},0\n", ("column 1",)),
    ],
)
def test_a_form_that_does_not_fit_is_refused_where_it_was_asked_for_and_named_where_it_was_found(here, images, names, text, told):  # noqa: F811
    (here / "sample_submission.csv").write_text(text.format(names[0]))
    message = refused(call("--photos", "photos", "--sample-submission", "sample_submission.csv"))
    assert not missing(message, "--sample-submission sample_submission.csv", *(word.format(names[0]) for word in told))
    result = call("--photos", "photos")
    assert result.exit_code == 0 and not missing(result.stdout, "sample_submission.csv")
    assert not (here / "answers_submission.csv").exists()


def test_a_form_that_is_not_there_is_refused(here, images):  # noqa: F811
    assert not missing(refused(call("--photos", "photos", "--sample-submission", "no.csv")), "--sample-submission no.csv")
