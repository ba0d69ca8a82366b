"""The contest's layout: `train/train.csv`, `train/images/<folder of a group>/<shot>`, `eval/info.csv`."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from trainables.data.images import DataError, Images, LeftOut, Unlabelled
from trainables.data.layouts.layout import Layout
from trainables.data.names import some
from trainables.data.rows import Rows, is_inside, read_rows, refuse
from trainables.data.settings import DataConfig
from trainables.data.targets import Classes, Scheme

SHOTS = {**{f"mask{number}": "worn" for number in range(1, 6)}, "incorrect_mask": "incorrect", "normal": "absent"}
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
COLUMNS = ("id", "gender", "age", "path")
CUTS = (30, 60)  # years, by the contest's rules
OLDEST = 120  # years; anything above is a typing error


def contest_scheme(cuts: tuple[int, ...]) -> Scheme:
    """Mask, gender and age band; `cuts` are the first years of all bands but the youngest."""
    mask = Classes("mask", ("worn", "incorrect", "absent"))
    return Scheme((mask, Classes("gender", ("male", "female")), Classes.banded("age", cuts)))


def read_contest(folder: Path, settings: DataConfig) -> Images:
    """The labelled images below `folder`. Raises: DataError naming everything that is wrong with the table."""
    table_file, root = folder / "train" / "train.csv", folder / "train" / "images"
    cuts = settings.cuts or CUTS
    scheme = contest_scheme(cuts)
    table = read_rows(table_file, COLUMNS)
    refuse(table_file, _mistakes(table, table_file, root, scheme))

    mask_of = {name: scheme.targets[0].values.index(value) for name, value in SHOTS.items()}
    gender_of = {value: index for index, value in enumerate(scheme.targets[1].values)}
    ids, groups, labels, numbers, names = [], [], [], [], []
    hidden, strange, double, missing = [], [], [], []
    for group, (_, row) in enumerate(table):
        path, age = row["path"], int(row["age"])
        entries = sorted((root / path).iterdir())
        files = [file for file in entries if not file.name.startswith(".")]
        hidden += [f"{path}/{file.name}" for file in entries if file not in files]
        known = [file for file in files if file.stem in SHOTS and file.suffix.lower() in SUFFIXES]
        strange += [f"{path}/{file.name}" for file in files if file not in known]
        stems = [file.stem for file in known]
        double += [f"{path}/{file.name}" for file in known if stems.count(file.stem) > 1]
        missing += [f"{path}/{shot}" for shot in SHOTS if shot not in stems]
        for file in known:
            if stems.count(file.stem) == 1:
                ids.append(f"{path}/{file.name}")
                groups.append(group)
                names.append(path)
                numbers.append(age)
                labels.append((mask_of[file.stem], gender_of[row["gender"]], int(np.digitize(age, cuts))))
    if not ids:
        raise DataError(f"{root}: no images. Each group's folder holds {', '.join(SHOTS)} as .jpg, .jpeg, .png, .webp or .bmp.")

    paths = [row["path"] for _, row in table]
    groups_of_id = defaultdict(list)
    for group, (_, row) in enumerate(table):
        groups_of_id[row["id"]].append(group)
    shared = {id: several for id, several in groups_of_id.items() if len(several) > 1}
    beside = sorted(entry.name for entry in root.iterdir() if entry.name not in set(paths))
    hidden += [name for name in beside if name.startswith(".")]
    unlisted = [name for name in beside if not name.startswith(".") and (root / name).is_dir()]
    found = [
        LeftOut("shots missing", tuple(missing)),
        LeftOut("hidden files and folders, ignored", tuple(hidden)),
        LeftOut("files that are not a known shot, ignored", tuple(strange)),
        LeftOut("duplicate files of one shot, ignored", tuple(double)),
        LeftOut("folders that train.csv does not list, ignored", tuple(unlisted)),
        LeftOut(
            "ids that several folders share; no split separates such folders",
            tuple(f"{id} ({', '.join(paths[group] for group in several)})" for id, several in sorted(shared.items())),
        ),
    ]
    return Images(
        root=root,
        ids=tuple(ids),
        groups=np.array(groups),
        labels=np.array(labels),
        scheme=scheme,
        left_out=tuple(item for item in found if item.names),
        numbers=np.array(numbers, dtype=np.float32),
        names=tuple(names),
        ties=tuple(map(tuple, shared.values())),
    )


def read_unlabelled(folder: Path, settings: DataConfig) -> Unlabelled | None:
    """The images of `folder/eval` in info.csv's order, or None where the data has none. Raises: DataError."""
    table_file = folder / "eval" / "info.csv"
    if not table_file.is_file():
        return None
    names = tuple(row["ImageID"] for _, row in read_rows(table_file, ("ImageID",)))
    root = folder / "eval" / "images"
    absent = [name for name in names if not is_inside(name) or not (root / name).is_file()]
    if absent:
        raise DataError(f"{table_file}: {len(absent)} images are not in {root}: {some(absent)}. Put them there or remove their rows.")
    return Unlabelled(root, names)


def _mistakes(table: Rows, file: Path, root: Path, scheme: Scheme) -> list[str]:
    genders = scheme.targets[1].values
    mistakes = []
    for line, row in table:
        gender, age, path = row["gender"], row["age"], row["path"]
        if gender not in genders:
            mistakes.append(f"{file}:{line}: gender is {gender!r}; write one of {', '.join(genders)}.")
        if not (age.isascii() and age.isdigit() and int(age) <= OLDEST):
            mistakes.append(f"{file}:{line}: age is {age!r}; write an integer of years between 0 and {OLDEST}.")
        if not is_inside(path):
            mistakes.append(
                f"{file}:{line}: path {path!r} is not the plain name of a folder in {root}; write one, without dots or slashes."
            )
        elif not (root / path).is_dir():
            mistakes.append(f"{file}:{line}: folder {path} is not in {root}. Put it there or remove the row.")
    return mistakes + [f"{file}: folder {path} is listed twice; keep one row." for path in _repeated([row["path"] for _, row in table])]


def _repeated(names: list[str]) -> list[str]:
    seen: set[str] = set()
    return sorted({name for name in names if name in seen or seen.add(name)})


# The corrections are what participants agreed on: labels named wrong in at least 5 of 20 public lists, and with those in 2 or more.
LAYOUT = Layout(
    name="contest",
    title="the contest's folder, with train/train.csv",
    fits=lambda source, settings: (source / "train" / "train.csv").is_file(),
    read=read_contest,
    scheme=lambda source, settings: contest_scheme(settings.cuts or CUTS),
    unlabelled=read_unlabelled,
    any_column=False,
    corrections={name: Path(__file__).with_name(f"contest_{name}.csv") for name in ("consensus", "extended")},
)
