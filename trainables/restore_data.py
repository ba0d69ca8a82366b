"""The images of an earlier run and what trains beside them, verified to be the same, with its split."""

import hashlib
from collections.abc import Mapping

from trainables.data.extra import refuse_other_extra
from trainables.data.groups import merge_tied, tie_copies
from trainables.data.images import DataError, Images
from trainables.data.splits import Split, count_folds, held_out, in_order_of, read_split, same_groups
from trainables.data.teacher import Teacher
from trainables.record import DAMAGE, SPLIT, TEACHER, RunCard, RunError
from trainables.storage import Folder

EXTRA = "extra.csv"


def restore_split(run: Folder, card: RunCard, images: Images, digests: Mapping[str, str], fold: int) -> tuple[Images, Split]:
    """The images in the order of the run's table, which verifies them to be the same, and the run's split of them.

    Groups are those of the table: a run that began before copies were looked for has kept them apart, and nothing is regrouped.

    Args:
        digests: of every image's content, as the views were made of it.
    Raises: RunError saying what differs.
    """
    table = run / SPLIT
    content = _read(table)
    try:
        if not same_groups(content, images):
            images = merge_tied(tie_copies(images, digests))
        split = read_split(content, images, digests, fold)
    except DataError as error:
        raise RunError(f"{images.root} does not hold the data of run {card.name}. {error}") from None
    if split.hash != card.split:
        raise RunError(f"{table} has the hash {split.hash}, and {run}/run.json says {card.split}; restore both from a backup")
    return in_order_of(content, images, split)


def read_folds(run: Folder) -> int:
    """How many folds the split of a run has; one where the data has a validation part of its own. Raises: RunError."""
    try:
        return count_folds(_read(run / SPLIT))
    except DataError as error:
        raise RunError(f"{run}: {error}") from None


def read_held_out(run: Folder) -> frozenset[str]:
    """Ids of the images in the hold-out of a run. Raises: RunError."""
    try:
        return held_out(_read(run / SPLIT))
    except DataError as error:
        raise RunError(f"{run}: {error}") from None


def _read(table: Folder) -> bytes:
    try:
        return table.read_bytes()
    except OSError as error:
        raise RunError(f"{table} cannot be read ({error.strerror or error}); restore it from a backup") from None


def verify_extra(run: Folder, table: bytes) -> None:
    """Compare what trains beside the images with the run's table of it.

    Args:
        table: of today; empty where nothing is added to the images.
    Raises: RunError saying what differs.
    """
    file = run / EXTRA
    try:
        refuse_other_extra(file.read_bytes() if file.is_file() else b"", table)
    except OSError as error:
        raise RunError(f"{file} cannot be read ({error.strerror or error}); restore it from a backup") from None
    except DataError as error:
        raise RunError(str(error)) from None


def teacher_hash(content: bytes) -> str:
    """What a run's card notes of its teacher's file."""
    return hashlib.sha256(content).hexdigest()[:16]


def read_teacher(run: Folder, card: RunCard) -> Teacher | None:
    """What teaches the trials of a run; None where only labels do.

    Raises: RunError where its file is gone, is not the one that the run began with, or cannot be read.
    """
    if not card.teacher:
        return None
    file, fix = run / TEACHER, f"restore it from a backup, or distil {card.student_of} again into a new run"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(f"{file}, which the trials of {card.name} learn from, cannot be read ({error.strerror or error}); {fix}") from None
    if (found := teacher_hash(content)) != card.teacher:
        raise RunError(f"{file} has the hash {found}, and {run}/run.json says {card.teacher}; {fix}")
    try:
        return Teacher.read(content)
    except DAMAGE as error:
        raise RunError(f"{file} is damaged ({type(error).__name__}: {error}); {fix}") from None
