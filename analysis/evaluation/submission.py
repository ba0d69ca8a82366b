"""Answers under the columns in which somebody asks for them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.evaluation.scoring import tag_words
from trainables.data.images import Unlabelled
from trainables.data.targets import Scheme

if TYPE_CHECKING:
    import pandas as pd

SUBMISSION = ("submission.csv", "probabilities.csv")  # beside their ensemble
CORRECTED = "corrected.csv"  # likewise, where class priors differ


def answer_columns(scheme: Scheme) -> list[tuple[str, ...]]:
    """The sets of columns, beside the image's, that can be filled in whatever they are called: one for each class or tag, or target."""
    found = [tuple(scheme.class_names())] if scheme.kind != "number" else []
    return [*found, scheme.names] if scheme.kind == "classes" and len(scheme.names) > 1 else found


def misfit(columns: tuple[str, ...], scheme: Scheme) -> str:
    """Why answers cannot be given under these columns, the first of which is the image's; empty where they can."""
    others = columns[1:]
    if len(others) == 1 or any(set(others) == set(one) for one in answer_columns(scheme)):
        return ""
    wanted = " or ".join(["one for the answer", *(", ".join(one) for one in answer_columns(scheme))])
    return f"its columns are {', '.join(columns)}; beside the image's there have to be: {wanted}"


def submission_table(images: Unlabelled, answer: np.ndarray, scheme: Scheme) -> "pd.DataFrame":
    """What every image is, in the images' order, under the columns that are asked for: the name or number of its most probable class, the
    names of its tags, or its number.

    Where the columns are one for each class or tag, they hold the probabilities; one for each target, its most probable value.
    """
    import pandas as pd

    first, *others = images.columns
    if len(others) > 1 and set(others) == set(scheme.class_names()):
        table = pd.DataFrame(answer, columns=scheme.class_names())[others]
    elif len(others) > 1 and set(others) == set(scheme.names):
        values = zip(scheme.targets, scheme.split(answer.argmax(axis=1)).T, strict=True)
        table = pd.DataFrame({target.name: np.array(target.values, dtype=object)[own] for target, own in values})[others]
    else:
        table = pd.DataFrame({others[0] if others else "answer": _answer_column(answer, scheme, by_name=images.by_name)})
    table.insert(0, first, images.names or images.ids)
    return table


def _answer_column(answer: np.ndarray, scheme: Scheme, *, by_name: bool) -> Any:
    if scheme.kind == "tags":
        return tag_words(answer, scheme)
    if scheme.kind == "number":
        return answer[:, 0]
    classes = answer.argmax(axis=1)
    return np.array(scheme.class_names(), dtype=object)[classes] if by_name else classes
