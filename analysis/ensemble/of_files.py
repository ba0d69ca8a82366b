"""A vote over finished files: submissions (an image and its class) or probabilities (an image and one column a class)."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.evaluation.answer_files import read_answers, unlike, wrong_out
from analysis.votes.voting import Mean, Votes
from trainables.registry import ConfigError, Mistake
from trainables.storage import write_atomically

KINDS = {"hard": "labels", "soft": "probabilities"}  # what each vote takes; hard takes probabilities, too


@dataclass(frozen=True, eq=False)
class Voted:
    """What files answer together, image by image in the order of the first one."""

    vote: str  # in KINDS
    table: pd.DataFrame  # as the files are
    disputed: int  # images on which the files' classes differ


def vote_over(files: Sequence[Path], vote: str, out: Path) -> Voted:
    """Let files vote: hard for labels, soft for probabilities, or what is asked for.

    Images are matched by the first column. A tie of labels goes to the file that comes first, one of probabilities to the higher sum.
    Raises: ConfigError naming everything that is wrong with the files, the vote and `out`.
    """
    mistakes = [] if len(files) > 1 else [Mistake("--csv", "give two files or more")]
    if vote not in ("auto", *KINDS):
        mistakes.append(Mistake("--vote", f"{vote!r} has to be fitted on images with labels; files vote hard or soft"))
    mistakes += wrong_out(out, files, "vote")
    tables = {}
    for file in files:
        table, wrong = read_answers(file)
        mistakes += [Mistake(str(file), words) for words in wrong]
        if table is not None:
            tables[file] = table
    mistakes += unlike(tables)
    if mistakes:
        raise ConfigError(mistakes)
    first, *_ = tables.values()
    ids = first.iloc[:, 0]
    aligned = [table.set_index(table.columns[0]).loc[ids] for table in tables.values()]
    if len(first.columns) == 2:
        if vote == "soft":
            raise ConfigError([Mistake("--vote", "soft takes probabilities, and these files hold labels; leave it out, or take hard")])
        labels = np.stack([one.iloc[:, 0].to_numpy() for one in aligned])
        answer = pd.DataFrame({first.columns[0]: ids, first.columns[1]: [_most(column) for column in labels.T]})
        return Voted("hard", answer, int((labels != labels[0]).any(axis=0).sum()))
    vote = "soft" if vote == "auto" else vote
    shares = np.stack([one[first.columns[1:]].to_numpy(dtype=float) for one in aligned])
    combine = Votes() if vote == "hard" else Mean((1 / len(shares),) * len(shares))
    answer = pd.DataFrame(combine(shares), columns=first.columns[1:])
    answer.insert(0, first.columns[0], ids)
    labels = shares.argmax(axis=2)
    return Voted(vote, answer, int((labels != labels[0]).any(axis=0).sum()))


def write_vote(out: Path, voted: Voted) -> None:
    """Write the table, completely or not at all."""
    buffer = io.StringIO()
    voted.table.to_csv(buffer, index=False, float_format="%.6g")
    write_atomically(out, buffer.getvalue().encode())


def _most(labels: np.ndarray) -> object:
    """The label that most files have; of several the one that comes first."""
    found, first, counts = np.unique(labels, return_index=True, return_counts=True)
    return found[np.lexsort((first, -counts))[0]]
