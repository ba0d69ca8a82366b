"""The split into train, validation and hold-out: whole groups, stratified by their labels, made once per run.

The run's table of it is a manifest too: it names every image with the hash of its content, so that what resumes later is verified to
be trained and scored on the same images.
"""

import csv
import hashlib
import io
import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainables.data.groups import first_of_tied
from trainables.data.images import TEST, TRAIN, VALID, DataError, Images, LeftOut
from trainables.data.settings import DataConfig

HOLDOUT = -2
ALWAYS = -3  # as a part: trains whichever fold validates
NO_FOLD = -1  # as the fold that validates: all but the hold-out train
SPECIAL = {HOLDOUT: "holdout", ALWAYS: "train"}
PARTS = ("train", "validation", "test")  # as the data's own split has them, by number
MOST = 10  # names shown of each kind of difference
# The columns of the table, and what a field of each looks like.
COLUMNS = {"photo": "(?s:.+)", "person": "[0-9]+", "class": "(?s:.+)", "part": "holdout|train|fold [0-9]+", "sha256": "[0-9a-f]{16}"}


@dataclass(frozen=True)
class Split:
    """Which part each image belongs to."""

    part: np.ndarray  # (n,) HOLDOUT, ALWAYS or the number of a fold
    fold: int  # the fold that validates, or NO_FOLD
    hash: str  # of images, labels and parts; records with different hashes are never compared
    only: int = NO_FOLD  # the one fold that trains; NO_FOLD: all but the hold-out and the fold that validates

    @property
    def train(self) -> np.ndarray:
        """Indices of the training images."""
        if self.only != NO_FOLD:
            return np.flatnonzero(self.part == self.only)
        return np.flatnonzero((self.part != HOLDOUT) & (self.part != self.fold))

    @property
    def valid(self) -> np.ndarray:
        """Indices of the validation images."""
        return np.flatnonzero(self.part == self.fold)

    @property
    def holdout(self) -> np.ndarray:
        """Indices of the images that the search never sees."""
        return np.flatnonzero(self.part == HOLDOUT)


@dataclass(frozen=True)
class Entry:
    """What must not change about an image of a run."""

    group: int
    label: str  # what is true of it, in words
    sha256: str  # of its file, the first 16 hex digits


def split_groups(images: Images, settings: DataConfig, seed: int) -> Split:
    """Who trains, validates and is held out: as the data itself says, or else a share of the groups is held out and the others are folds.

    A part that the data brings with it is kept to the image. What it lacks is taken from the images that train: the hold-out, and folds, of
    which the settings name the one that validates, or none.

    A group counts for stratification as what is true of most of its images, such as their joint class, so a band of numbers is spread
    evenly, and classes that are single images of every group follow. Kinds with fewer groups than there are parts are spread together.
    Groups that are tied to others go where the first of these goes.

    Raises: DataError when the groups are fewer than the parts, or all that train are of one class.
    """
    if images.given is None:
        if settings.fold >= settings.folds:
            raise DataError(f"data/fold is {settings.fold}, but the folds are 0 to {settings.folds - 1}.")
        part = _parts(images, settings, seed, hold_out=True, fold=True)
    else:
        part = _completed(images, images.given, settings, seed)
    split = _split(images, part, settings.fold)
    classes = images.strata()
    if len(np.unique(classes[split.train])) < 2 <= len(np.unique(classes)):
        groups = len(np.unique(images.groups))
        raise DataError(f"{groups} groups of images are too few: the training part has one class only. {_advice(groups, settings)}.")
    return split


def _completed(images: Images, given: np.ndarray, settings: DataConfig, seed: int) -> np.ndarray:
    """The parts (n,) that the data gives, with those that it lacks cut from the images that train."""
    validates, tests = (given == VALID).any(), (given == TEST).any()
    if validates and settings.fold not in (0, NO_FOLD):
        raise DataError(f"data/fold is {settings.fold}, but the data has a validation part of its own, fold 0. Remove data/fold.")
    if not validates and settings.fold >= settings.folds:
        raise DataError(f"data/fold is {settings.fold}, but the folds are 0 to {settings.folds - 1}.")
    part = np.select([given == TEST, given == VALID], [HOLDOUT, 0], ALWAYS)
    if not (validates and tests):
        rows = np.flatnonzero(given == TRAIN)
        part[rows] = _parts(images.take(rows), settings, seed, hold_out=not tests, fold=not validates)
    return part


def _parts(images: Images, settings: DataConfig, seed: int, *, hold_out: bool, fold: bool) -> np.ndarray:
    """Parts (n,) of images: a share of the groups is held out, the others are in folds or always train."""
    # Imported here: scikit-learn takes longer than many an epoch, and the trials, which import this module, never split.
    from sklearn.model_selection import StratifiedKFold, train_test_split

    classes = images.strata()
    groups, group = np.unique(images.groups, return_inverse=True)
    need = settings.folds * fold + hold_out + (hold_out and not fold)
    if len(groups) < need:
        wanted = " and ".join(filter(None, (f"{settings.folds} folds" if fold else "", "a hold-out" if hold_out else "")))
        raise DataError(f"{len(groups)} groups of images are too few for {wanted}: each needs one. {_advice(len(groups), settings)}.")

    strata = _pooled(_most_frequent(group, classes), least=need, most=math.ceil(settings.holdout * len(groups)))
    part, rest = np.full(len(groups), HOLDOUT), np.arange(len(groups))
    if hold_out:
        rest, _ = train_test_split(rest, test_size=settings.holdout, stratify=strata, random_state=seed)
    part[rest] = ALWAYS
    if fold:
        if np.unique(strata[rest], return_counts=True)[1].max() < settings.folds:
            strata = np.zeros_like(strata)
        with warnings.catch_warnings():
            # A kind that is in fewer groups of the rest than there are folds is spread as far as it goes.
            warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
            folds = StratifiedKFold(settings.folds, shuffle=True, random_state=seed)
            for number, (_, members) in enumerate(folds.split(rest, strata[rest])):
                part[rest[members]] = number
    # Tied groups follow the first of them: so what has no ties is split as if there were none.
    return part[first_of_tied(groups, images.ties)][group]


def _advice(groups: int, settings: DataConfig) -> str:
    fewer = settings.folds > 2 and groups > 2  # two folds and a hold-out take three groups
    return "Add images, or use fewer folds (--set data/folds=2)" if fewer else "Add images"


def shared_by_parts(images: Images) -> tuple[LeftOut, ...]:
    """Groups, and images of one content, that the data's own split has in several parts, with what that does to the score.

    Args:
        images: with the groups of identical images tied.
    """
    if images.given is None:
        return ()
    groups, group = np.unique(images.groups, return_inverse=True)
    home = first_of_tied(groups, images.ties)[group]
    pairs = np.unique(np.stack([home, images.given]), axis=1)
    several = np.flatnonzero(np.bincount(pairs[0], minlength=len(groups)) > 1)
    found = []
    for one in several.tolist():
        rows = np.flatnonzero(home == one)
        first = [rows[images.given[rows] == part][0] for part in np.unique(images.given[rows])]
        found.append(" = ".join(f"{images.ids[row]} ({PARTS[images.given[row]]})" for row in first))
    scored = np.isin(home, several) & (images.given != TRAIN)
    words = (
        f"groups, or images of one content, that the data's own split has in several parts; {int(scored.sum())} images of validation "
        "and test are among them, so the scores are optimistic"
    )
    return (LeftOut(words, tuple(found)),) if found else ()


def split_table(images: Images, split: Split, digests: Mapping[str, str]) -> bytes:
    """The split as a CSV table for people and for `read_split`: photo, person, class, part, sha256.

    Args:
        digests: what `build_views` found the images' files to be.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for (name, entry), side in zip(_entries(images, digests).items(), split.part.tolist(), strict=True):
        table.writerow([name, entry.group, entry.label, part_name(side), entry.sha256])
    return text.getvalue().encode()


def read_split(content: bytes, images: Images, digests: Mapping[str, str], fold: int) -> Split:
    """The split of an earlier run, for the images of today in whichever order they come.

    Its hash equals the one that was noted then, unless a part was changed in the table since.

    Args:
        content: what `split_table` made of it.
        digests: what `build_views` finds the images' files to be today.
        fold: the fold that validates, or NO_FOLD.
    Raises: DataError when the table is damaged, and when the images are not those of the run, naming everything that differs.
    """
    rows = _read_rows(content)
    then = {name: Entry(int(group), label, sha256) for name, group, label, _, sha256 in rows}
    _refuse_differences(then, _entries(images, digests))
    part = {name: _number(side) for name, _, _, side, _ in rows}
    if fold not in (NO_FOLD, *part.values()):
        raise DataError(f"data/fold is {fold}, but the run's split.csv has no image in that fold.")
    return _split(images, np.array([part[name] for name in images.ids]), fold)


def absent_classes(images: Images) -> list[str]:
    """Names of the joint classes that no image has; each counts as 0 in macro F1."""
    scheme = images.scheme.of_kind("classes")
    return scheme.absent(images.truth(scheme)) if scheme.targets else []


def rare_classes(images: Images, parts: int) -> list[str]:
    """Names of the joint classes that fewer groups have than there are parts, with their number: some part has none of them."""
    scheme = images.scheme.of_kind("classes")
    if not scheme.targets:
        return []
    classes = images.truth(scheme)
    pairs = np.unique(np.stack([images.groups, classes]), axis=1)
    found, groups = np.unique(pairs[1], return_counts=True)
    names = scheme.class_names()
    return [f"{names[number]} ({count})" for number, count in zip(found.tolist(), groups.tolist(), strict=True) if count < parts]


def _most_frequent(group: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The class of most images of each group, the lowest of several."""
    pairs, counts = np.unique(np.stack([group, classes]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    _, first = np.unique(pairs[0][order], return_index=True)
    return pairs[1][order][first]


def _pooled(strata: np.ndarray, least: int, most: int) -> np.ndarray:
    """The strata, with those of fewer than `least` members as one, and with the smallest as one where there are more than `most`.

    Where even these together are fewer, they go with the largest.
    """
    kinds, counts = np.unique(strata, return_counts=True)
    by_size = kinds[np.argsort(-counts, kind="stable")]
    rare = set(kinds[counts < least].tolist())
    if len(kinds) - len(rare) + bool(rare) > most:
        rare |= set(by_size[max(0, most - 1) :].tolist())
    if not rare:
        return strata
    pooled = np.isin(strata, list(rare))
    home = by_size[0] if pooled.sum() < least else min(rare)
    return np.where(pooled, home, strata)


def part_name(part: int) -> str:
    """How split.csv calls a part: holdout, train, fold 0, ..."""
    return SPECIAL.get(part) or f"fold {part}"


def _number(word: str) -> int:
    named = {special: part for part, special in SPECIAL.items()}
    return named[word] if word in named else int(word.removeprefix("fold "))


def _split(images: Images, part: np.ndarray, fold: int) -> Split:
    # Sorted, because the order in which images are found says nothing about what is learned from them.
    only_classes = images.scheme.kinds == ("classes",)
    rows = sorted(zip(images.ids, images.strata().tolist() if only_classes else images.described(), part.tolist(), strict=True))
    return Split(part, fold, hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16])


def _entries(images: Images, digests: Mapping[str, str]) -> dict[str, Entry]:
    rows = zip(images.ids, images.groups.tolist(), images.described(), strict=True)
    return {name: Entry(group, label, digests[name]) for name, group, label in rows}


def _read_rows(content: bytes) -> list[list[str]]:
    try:
        header, *rows = list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(f"it is not a table ({error})") from None
    if header != [*COLUMNS]:
        raise _damaged(f"it does not begin with the columns {', '.join(COLUMNS)}")
    broken = [f"row {number}" for number, row in enumerate(rows, 1) if not _is_valid(row)]
    if broken:
        raise _damaged(f"fields of {_some(broken)} are missing or invalid")
    twice = [name for name, count in Counter(row[0] for row in rows).items() if count > 1]
    if twice:
        raise _damaged(f"it has duplicate images, {_some(twice)}")
    return rows


def _is_valid(row: Sequence[str]) -> bool:
    return len(row) == len(COLUMNS) and all(map(re.fullmatch, COLUMNS.values(), row))


def _damaged(why: str) -> DataError:
    return DataError(f"split.csv of the run is damaged: {why}. Restore it from a backup, or start a new run.")


def _refuse_differences(then: Mapping[str, Entry], now: Mapping[str, Entry]) -> None:
    both = sorted(then.keys() & now.keys())
    friend_then, friend_now = _first_of_group(then, both), _first_of_group(now, both)
    kinds = {
        "missing, or cannot be decoded any more": sorted(then.keys() - now.keys()),
        "new": sorted(now.keys() - then.keys()),
        "of another class": [
            f"{name} (was {then[name].label}; is {now[name].label})" for name in both if then[name].label != now[name].label
        ],
        "of another group": [
            f"{name} (was one with {friend_then[name]}; is one with {friend_now[name]})"
            for name in both
            if friend_then[name] != friend_now[name]
        ],
        "of other content": [name for name in both if then[name].sha256 != now[name].sha256],
    }
    differences = [f"  {words}, {len(names)}: {_some(names)}" for words, names in kinds.items() if names]
    if differences:
        lead = "The images differ from those with which the run began:"
        fix = "Restore the old images and labels to resume the run, or start a new one."
        raise DataError("\n".join([lead, *differences, fix]))


def _first_of_group(entries: Mapping[str, Entry], names: Iterable[str]) -> dict[str, str]:
    """For each of the names the first one of the same group; numbers of groups may change from day to day."""
    first: dict[int, str] = {}
    return {name: first.setdefault(entries[name].group, name) for name in names}


def _some(names: Sequence[str]) -> str:
    rest = [f"and {len(names) - MOST} more"] if len(names) > MOST else []
    return "; ".join([*names[:MOST], *rest])


def count_others(split: Split) -> int:
    """How many folds there are beside the one that validates."""
    return len({*split.part.tolist()} - {HOLDOUT, ALWAYS, split.fold})


def count_folds(content: bytes) -> int:
    """How many folds a run's table has; one where the data has a validation part of its own. Raises: DataError for a damaged table."""
    place = [*COLUMNS].index("part")
    return len({row[place] for row in _read_rows(content)} - set(SPECIAL.values()))


def held_out(content: bytes) -> frozenset[str]:
    """The images in the hold-out of a run's table. Raises: DataError for a damaged table."""
    return frozenset(name for name, _, _, part, _ in _read_rows(content) if part == SPECIAL[HOLDOUT])


def same_groups(content: bytes, images: Images) -> bool:
    """Whether the images that a run's table names are in the same groups there and here. Raises: DataError for a damaged table."""
    then = {row[0]: int(row[1]) for row in _read_rows(content)}
    pairs = {(then[name], group) for name, group in zip(images.ids, images.groups.tolist(), strict=True) if name in then}
    return len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})


def in_order_of(content: bytes, images: Images, split: Split) -> tuple[Images, Split]:
    """The images, and the split of them, in the order of a run's table, which names them all.

    Batches are drawn from the images by their place, and that changes when train.csv is sorted.
    """
    place = {name: index for index, name in enumerate(images.ids)}
    names = tuple(row["photo"] for row in csv.DictReader(io.StringIO(content.decode(), newline="")))
    order = np.array([place[name] for name in names])
    ordered = images.take(order)
    return ordered, replace(split, part=split.part[order])
