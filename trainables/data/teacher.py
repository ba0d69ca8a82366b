"""What a vote, the teacher, answers for the images that a student learns from: a file in the student's run.

The student needs nothing else of its teacher, so it resumes, is refitted and is replayed wherever its run lies.
Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from trainables.data.images import DataError, Images
from trainables.data.names import some
from trainables.data.targets import Scheme, read_target
from trainables.data.training import Extra, Taught
from trainables.data.views import ViewFiles
from trainables.metrics.metric import TAGGED


@dataclass(frozen=True, eq=False)
class Unseen:
    """What the teacher answers for images without labels."""

    root: Path = Path()  # ids are paths below this folder
    ids: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()  # of each file's content
    answers: np.ndarray | None = None  # (n, columns) float32


@dataclass(frozen=True, eq=False)
class Teacher:
    """The teacher's answers."""

    scheme: Scheme  # the targets that it answers for, which are of one kind
    ids: tuple[str, ...]  # of images of the run, none of them held out
    answers: np.ndarray  # (n, columns) float32
    out_of_fold: np.ndarray  # (n,) bool: whether no model that answered had trained on the image
    unseen: Unseen = Unseen()

    def pack(self) -> bytes:
        """The bytes of the file."""
        unseen, buffer = self.unseen, io.BytesIO()
        np.savez_compressed(
            buffer,
            scheme=np.array(json.dumps([target.plain() for target in self.scheme.targets])),
            ids=np.array(self.ids, dtype=str),
            answers=self.answers.astype(np.float32),
            out_of_fold=self.out_of_fold,
            root=np.array(str(unseen.root)),
            unseen_ids=np.array(unseen.ids, dtype=str),
            unseen_digests=np.array(unseen.digests, dtype=str),
            unseen_answers=np.zeros((0, self.scheme.classes), np.float32) if unseen.answers is None else unseen.answers.astype(np.float32),
        )
        return buffer.getvalue()

    @classmethod
    def read(cls, content: bytes) -> Self:
        """The inverse of `pack`. Raises: one of what reading a damaged file raises."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        scheme = Scheme(tuple(map(read_target, json.loads(str(found["scheme"])))))
        ids, unseen = tuple(found["ids"].tolist()), tuple(found["unseen_ids"].tolist())
        for names, answers in ((ids, found["answers"]), (unseen, found["unseen_answers"])):
            if answers.shape != (len(names), scheme.classes) or not np.isfinite(answers).all():
                raise ValueError(f"its answers are no finite numbers of the shape {(len(names), scheme.classes)}")
        digests = tuple(found["unseen_digests"].tolist())
        return cls(
            scheme, ids, found["answers"], found["out_of_fold"], Unseen(Path(str(found["root"])), unseen, digests, found["unseen_answers"])
        )

    def of(self, images: Images) -> Taught:
        """The answers in the order of the images of a run; NaN for those that it does not answer for."""
        row = {name: index for index, name in enumerate(self.ids)}
        places = np.array([row.get(name, -1) for name in images.ids])
        answers = np.full((len(images), self.scheme.classes), np.nan, dtype=np.float32)
        answers[places >= 0] = self.answers[places[places >= 0]]
        return Taught(self.scheme, answers)

    def unlabelled(self, scheme: Scheme) -> Images:
        """The images without labels, with what the teacher holds for most probable in place of labels.

        Args:
            scheme: of the run.
        """
        unseen, count = self.unseen, len(self.unseen.ids)
        soft = np.zeros((0, scheme.classes)) if unseen.answers is None else unseen.answers
        labels = scheme.split(soft.argmax(axis=1)) if scheme.kind == "classes" else np.zeros((count, 0), dtype=np.int64)
        images = Images(unseen.root, unseen.ids, np.arange(count), labels, scheme)
        if scheme.kind == "tags":
            return replace(images, tags=soft >= TAGGED)
        return replace(images, numbers=soft[:, 0]) if scheme.kind == "number" else images

    def extra(self, images: Images, files: ViewFiles) -> Extra:
        """The decoded images without labels, as images that only train. Raises: DataError where some are other ones than were answered."""
        row = {name: index for index, name in enumerate(self.unseen.ids)}
        then: Mapping[str, str] = dict(zip(self.unseen.ids, self.unseen.digests, strict=True))
        if changed := [name for name in images.ids if files.digests[name] != then[name]]:
            raise DataError(
                f"{self.unseen.root}: {len(changed)} images are others than the teacher answered: {some(changed)}. Restore them."
            )
        if gone := [name for name in self.unseen.ids if name not in set(images.ids)]:
            raise DataError(f"{self.unseen.root}: {len(gone)} images that the teacher answered are gone: {some(gone)}. Put them back.")
        assert self.unseen.answers is not None
        return Extra(images, files.files, self.unseen.answers[[row[name] for name in images.ids]])
