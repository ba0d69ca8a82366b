"""Answers in the form of a sample_submission.csv: its columns, its rows, their order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.evaluation.submission import misfit, submission_table
from trainables.data.images import DataError, LeftOut, Unlabelled
from trainables.data.layouts.sample_submission import SampleSubmission, read_sample, samples_in
from trainables.data.targets import Scheme
from trainables.storage import write_atomically

CONTEST = "info.csv"  # of the contest's folder eval


def find_sample(root: Path) -> Path | None:
    """The form beside the images of a folder, or beside that folder: the only one, where there are several of none."""
    for folder in (root, root.resolve().parent):
        found = samples_in(folder) or [file for file in [folder / CONTEST] if file.is_file()]
        if len(found) == 1:
            return found[0]
    return None


def wrong_form(sample: SampleSubmission, scheme: Scheme, ids: Sequence[str]) -> str:
    """Why answers for images with these ids cannot be given in a form, in words; empty where they can."""
    names = sample.names
    if sample.nameless:
        return f"{', '.join(sample.nameless)} has no name in its header; give it one, or remove it"
    if problem := misfit(sample.columns, scheme):
        return problem
    if len(set(names)) < len(names):
        return f"{next(name for place, name in enumerate(names) if name in names[:place])} has two rows; keep one"
    return "" if set(ids).intersection(sample.paths) else "none of its rows names one of the images"


@dataclass(frozen=True)
class Form:
    """A form that answers can be given in."""

    sample: SampleSubmission
    without_image: LeftOut  # rows
    without_row: LeftOut  # images

    @classmethod
    def of(cls, sample: SampleSubmission, ids: Sequence[str]) -> "Form":
        """For images with these ids."""
        known, asked = set(ids), set(sample.paths)
        empty = tuple(name for name, path in zip(sample.names, sample.paths, strict=True) if path not in known)
        words = f"rows of {sample.file} have no image that can be used; they stay as they stand there"
        return cls(
            sample, LeftOut(words, empty), LeftOut(f"images have no row in {sample.file}", tuple(one for one in ids if one not in asked))
        )

    def write(self, file: Path, root: Path, ids: Sequence[str], scores: np.ndarray, scheme: Scheme) -> None:
        """Write the answer (images, columns) to images with these ids; rows without one stay as they are. Raises: OSError."""
        import pandas as pd

        sample, place = self.sample, {name: row for row, name in enumerate(ids)}
        rows = [number for number, path in enumerate(sample.paths) if path in place]
        order = [place[path] for path in map(sample.paths.__getitem__, rows) if path]
        asked = Unlabelled(
            root, tuple(ids[row] for row in order), sample.columns, tuple(sample.names[row] for row in rows), sample.by_name(scheme)
        )
        answer = submission_table(asked, scores[order], scheme).astype(object)
        table = pd.DataFrame(sample.rows, columns=list(sample.columns), dtype=object)
        table.iloc[rows] = answer.map(lambda value: f"{value:.6g}" if isinstance(value, float) else value).to_numpy()
        write_atomically(file, table.to_csv(index=False, lineterminator="\n").encode(errors="surrogateescape"))


def read_form(given: Path | None, root: Path, ids: Sequence[str], scheme: Scheme) -> tuple[SampleSubmission | None, str]:
    """The form that is asked for, or the one that is found; and why one that was found is not used.

    Raises: DataError where the one that is asked for cannot be used.
    """
    file = given or find_sample(root)
    if file is None:
        return None, ""
    if not file.is_file():
        raise DataError(f"--sample-submission {file}: there is no such file")
    try:
        sample = read_sample(file, root)
        problem = wrong_form(sample, scheme, ids)
    except DataError as error:
        if given:
            raise
        return None, str(error)
    if problem and given:
        raise DataError(f"--sample-submission {file}: {problem}")
    return (None, f"{file} is no form for these answers: {problem}") if problem else (sample, "")
