"""Reading labelled photos in the contest's layout: `train/train.csv`, `train/images/<folder of a person>/<shot>`, `eval/info.csv`.

What cannot be used is counted and named in `left_out`; nothing is guessed.
"""

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from trainables.data.labels import Scheme, contest_scheme

SHOTS = {**{f"mask{number}": "worn" for number in range(1, 6)}, "incorrect_mask": "incorrect", "normal": "absent"}
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
COLUMNS = ("id", "gender", "age", "path")
OLDEST = 120  # years; anything above is a typing error


class DataError(ValueError):
    """Data that cannot be used; the text names every reason found and how to mend it."""


@dataclass(frozen=True)
class LeftOut:
    """One kind of thing that was not used, and its names."""

    reason: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.names)} {self.reason}: {_some(self.names)}"


@dataclass(frozen=True)
class Photos:
    """Labelled photos; arrays are parallel, one entry a photo."""

    root: Path  # ids are paths below this folder
    ids: tuple[str, ...]
    rows: np.ndarray  # (n,) the photo's row in every view file of this data set
    people: np.ndarray  # (n,) index of the person: the group that no split parts
    labels: np.ndarray  # (n, attributes) class ids in the scheme's order
    scheme: Scheme
    left_out: tuple[LeftOut, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def without(self, bad: dict[str, str]) -> "Photos":
        """The photos but those in `bad` (id -> why), which join `left_out`."""
        if not bad:
            return self
        keep = np.array([name not in bad for name in self.ids])
        return replace(
            self,
            ids=tuple(name for name in self.ids if name not in bad),
            rows=self.rows[keep],
            people=self.people[keep],
            labels=self.labels[keep],
            left_out=(*self.left_out, LeftOut("photos cannot be decoded", tuple(f"{name} ({why})" for name, why in bad.items()))),
        )


@dataclass(frozen=True)
class Unlabelled:
    """Photos to predict, in the order in which the answer must be written."""

    root: Path
    ids: tuple[str, ...]


def read_photos(folder: Path, cuts: tuple[int, ...]) -> Photos:
    """The labelled photos below `folder` (which holds `train/`).

    Args:
        cuts: first year of every age class but the youngest.
    Raises: DataError naming everything that is wrong with the folder and its table.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give --data the folder that holds train/train.csv.")
    table_file = folder / "train" / "train.csv"
    if not table_file.is_file():
        raise DataError(f"{folder}: no train/train.csv in it. Give --data the folder that holds train/train.csv and train/images/.")
    table = _read_table(table_file, COLUMNS)
    scheme = contest_scheme(cuts)
    root = folder / "train" / "images"
    mistakes = _table_mistakes(table, table_file, root, scheme)
    if mistakes:
        raise DataError("\n".join(mistakes))

    mask_of = {name: scheme.attributes[0].values.index(value) for name, value in SHOTS.items()}
    gender_of = {value: index for index, value in enumerate(scheme.attributes[1].values)}
    ids, people, labels = [], [], []
    hidden, strange, double, missing = [], [], [], []
    for person, row in enumerate(table.itertuples()):
        entries = sorted((root / row.path).iterdir())
        files = [file for file in entries if not file.name.startswith(".")]
        hidden += [f"{row.path}/{file.name}" for file in entries if file not in files]
        known = [file for file in files if file.stem in SHOTS and file.suffix.lower() in SUFFIXES]
        strange += [f"{row.path}/{file.name}" for file in files if file not in known]
        stems = [file.stem for file in known]
        double += [f"{row.path}/{file.name}" for file in known if stems.count(file.stem) > 1]
        missing += [f"{row.path}/{shot}" for shot in SHOTS if shot not in stems]
        for file in known:
            if stems.count(file.stem) == 1:
                ids.append(f"{row.path}/{file.name}")
                people.append(person)
                labels.append((mask_of[file.stem], gender_of[row.gender], int(np.digitize(int(row.age), cuts))))
    if not ids:
        raise DataError(f"{root}: no photos. Each person's folder holds {', '.join(SHOTS)} as .jpg, .jpeg, .png, .webp or .bmp.")

    listed = set(table["path"])
    beside = sorted(entry.name for entry in root.iterdir() if entry.name not in listed)
    hidden += [name for name in beside if name.startswith(".")]
    unlisted = [name for name in beside if not name.startswith(".") and (root / name).is_dir()]
    shared_ids = sorted(table["id"][table["id"].duplicated()].unique())
    found = [
        LeftOut("shots missing", tuple(missing)),
        LeftOut("hidden files and folders, ignored", tuple(hidden)),
        LeftOut("files that are no known shot, ignored", tuple(strange)),
        LeftOut("files that stand twice for one shot, ignored", tuple(double)),
        LeftOut("folders that train.csv does not list, ignored", tuple(unlisted)),
        LeftOut("ids that several folders share; people are told apart by folder", tuple(shared_ids)),
    ]
    return Photos(
        root=root,
        ids=tuple(ids),
        rows=np.arange(len(ids)),
        people=np.array(people),
        labels=np.array(labels),
        scheme=scheme,
        left_out=tuple(item for item in found if item.names),
    )


def read_unlabelled(folder: Path) -> Unlabelled | None:
    """The photos of `folder/eval` in info.csv's order, or None where the data has none. Raises: DataError."""
    table_file = folder / "eval" / "info.csv"
    if not table_file.is_file():
        return None
    names = tuple(_read_table(table_file, ("ImageID",))["ImageID"])
    root = folder / "eval" / "images"
    absent = [name for name in names if not _inside(name) or not (root / name).is_file()]
    if absent:
        raise DataError(f"{table_file}: {len(absent)} photos are not in {root}: {_some(absent)}. Put them there or take their rows out.")
    return Unlabelled(root, names)


def _read_table(file: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, index_col=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a CSV table ({error}).") from None
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise DataError(
            f"{file}: column {', '.join(missing)} is missing; it needs {', '.join(columns)} and has {', '.join(table.columns)}."
        )
    return table


def _table_mistakes(table: pd.DataFrame, file: Path, root: Path, scheme: Scheme) -> list[str]:
    """Everything wrong with the rows, one line each; rows are numbered as an editor shows them."""
    genders = scheme.attributes[1].values
    mistakes = []
    for line, row in enumerate(table.itertuples(), start=2):
        if row.gender not in genders:
            mistakes.append(f"{file}:{line}: gender is {row.gender!r}; write one of {', '.join(genders)}.")
        if not (row.age.isascii() and row.age.isdigit() and int(row.age) <= OLDEST):
            mistakes.append(f"{file}:{line}: age is {row.age!r}; write whole years from 0 to {OLDEST}.")
        if not _inside(row.path):
            mistakes.append(
                f"{file}:{line}: path {row.path!r} is not the plain name of a folder in {root}; write one, without dots or slashes."
            )
        elif not (root / row.path).is_dir():
            mistakes.append(f"{file}:{line}: folder {row.path} is not in {root}. Put it there or take the row out.")
    twice = table["path"][table["path"].duplicated()].unique()
    mistakes += [f"{file}: folder {path} is listed twice; keep one row." for path in twice]
    if len(mistakes) > 20:
        mistakes = [*mistakes[:20], f"{file}: and {len(mistakes) - 20} more."]
    return mistakes


def _inside(path: str) -> bool:
    """Whether this is the plain spelling of a path below a folder; another one would make two people of one."""
    plain = PurePosixPath(path)
    return bool(plain.parts) and ".." not in plain.parts and not plain.is_absolute() and str(plain) == path


def _some(names: list[str] | tuple[str, ...], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
