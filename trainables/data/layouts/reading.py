"""The one door through which images are read, however they lie on disk."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainables.data.images import DataError, Images, Unlabelled
from trainables.data.layouts import class_folders, contest, file_names, parquet, table
from trainables.data.layouts.image_files import folders_below, look_into
from trainables.data.layouts.labelling import refuse_odd_classes
from trainables.data.layouts.layout import Layout
from trainables.data.names import look_alikes, no_text, shown, some, with_control_characters
from trainables.data.rows import read_number, refuse
from trainables.data.settings import ALL, DataConfig
from trainables.data.targets import Scheme
from trainables.registry import Registry

# The first that fits is taken, unless data/layout names one.
OWN = (contest.LAYOUT, file_names.LAYOUT, parquet.LAYOUT, table.LAYOUT, class_folders.LAYOUT)
LAYOUTS: Registry[Layout] = Registry({one.name: one for one in OWN}, Layout)


def read_images(source: Path, settings: DataConfig) -> Images:
    """The labelled images of a folder or table, in whichever layout it is.

    Raises: DataError naming everything that is wrong with the source.
    """
    layout = find_layout(source, settings)
    images = layout.read(source, settings)
    refuse(source, _text_mistakes(source, images.ids))
    refuse_odd_classes(source, images, any_column=layout.any_column)
    return images


def read_joining(source: Path, settings: DataConfig, scheme: Scheme, needed: Collection[str]) -> Images:
    """Labelled images that are to join others, with labels of the part of their scheme that these have.

    Args:
        scheme: of the others; all that is needed and all else that is there, with values that it knows, is numbered by it.
        needed: targets that the images must have.
    Raises: DataError naming everything that is wrong with the source.
    """
    update = {"cuts": scheme.cut.cuts if scheme.cut else settings.cuts, "target": (ALL,)}
    # What the run's own data is made of says nothing about how these lie on disk.
    own = ("layout", "image", "images", "label_pattern", "split")
    update |= {name: DataConfig.model_fields[name].default for name in own}
    settings = settings.model_copy(update=update)
    layout = find_layout(source, settings)
    if settings.ordinal not in needed and (settings.ordinal or scheme.cut):
        plain = settings.model_copy(update={"ordinal": ""})
        there = layout.scheme(source, plain)
        # Others may have the bands where these have the numbers.
        ordinal = settings.ordinal or (scheme.cut.name if scheme.cut and holds_numbers(there, scheme.cut.name) else "")
        settings = plain.model_copy(update={"ordinal": ordinal}) if ordinal in there.names else plain
    images = layout.read(source, settings)
    refuse(source, _text_mistakes(source, images.ids))
    return _renumbered(source, images, scheme, needed)


def holds_numbers(scheme: Scheme, name: str) -> bool:
    """Whether a target of a scheme has classes whose names are all numbers."""
    values = next((target.values for target in scheme.targets if target.name == name), ())
    return bool(values) and all(read_number(value) is not None for value in values)


def read_scheme(source: Path, settings: DataConfig) -> Scheme:
    """The labels of a folder or table, found without opening an image. Raises: DataError."""
    return find_layout(source, settings).scheme(source, settings)


def read_unlabelled(source: Path, settings: DataConfig) -> Unlabelled | None:
    """The images of the data's test part that have no labels, or None where the data has none. Raises: DataError."""
    unlabelled = find_layout(source, settings).unlabelled(source, settings)
    if unlabelled:
        refuse(source, _text_mistakes(source, unlabelled.ids))
    return unlabelled


def read_folder(source: Path) -> tuple[str, ...]:
    """The names of all images below a folder, whatever they show. Raises: DataError where there are none."""
    if not source.is_dir():
        raise DataError(f"{source}: there is no such folder. Give a folder of images.")
    folders = ("", *folders_below(source))
    ids = tuple(f"{folder}/{name}" if folder else name for folder in folders for name in look_into(source / folder).images)
    if not ids:
        raise DataError(f"{source}: the folder holds no images. Give a folder of images.")
    refuse(source, _text_mistakes(source, ids))
    return ids


def refuse_odd_names(source: Path, images: Images) -> None:
    """Refuse names that a new run should not begin with; one that there is resumes with them.

    Raises: DataError for control characters in names, for names that look alike, and for joint classes of one name.
    """
    classes = {f"{target.kind} of {target.name}": target.values for target in images.scheme.targets if target.kind != "number"}
    groups = {"groups": tuple(dict.fromkeys(images.names))}
    mistakes = []
    for kind, names in ({"files": images.ids, "targets": images.scheme.names} | groups | classes).items():
        if odd := with_control_characters(names):
            fix = "Rename them without line breaks, tabs and the like"
            mistakes.append(f"{source}: {len(odd)} names of {shown(kind)} hold control characters: {some(odd)}. {fix}.")
    for kind, names in (groups | classes).items():
        for alike in (*look_alikes(names), *(_but_for_capitals(names) if kind != "groups" else ())):
            spelt = ", ".join(map(ascii, alike))
            mistakes.append(f"{source}: {shown(kind)}: these look alike and are not: {spelt}. Write one of them for all.")
    if not mistakes and any(", " in value for values in classes.values() for value in values):
        twice = [name for name, count in Counter(images.scheme.of_kind("classes").class_names()).items() if count > 1]
        mistakes += [f"{source}: two joint classes would both be called {name!r}. Write classes without a comma." for name in twice]
    refuse(source, mistakes)


def find_layout(source: Path, settings: DataConfig) -> Layout:
    """The layout that a folder or table is in: the one that data/layout names, or the first that fits. Raises: DataError."""
    if no_text([str(source.absolute())]):
        raise DataError(f"{shown(str(source.absolute()))}: this name is not in UTF-8. Rename it, or the folder that holds it.")
    if settings.layout and settings.layout not in LAYOUTS:
        raise DataError(f"data/layout is {settings.layout!r}; choose one of {', '.join(LAYOUTS)}.")
    if source.exists():
        if settings.layout:
            return LAYOUTS[settings.layout]
        for layout in LAYOUTS.values():
            if layout.fits(source, settings):
                return layout
        why = "no table, whose name would end in .csv, .tsv, .parquet or .txt" if source.is_file() else _why_none(source)
    else:
        why = "no such file or folder"
    raise DataError(
        f"{source}: {why}. Give --data a folder of class folders, perhaps below train/, val/ and test/; a table such as photos.csv, or a "
        "folder with one; a list of images and labels; Parquet files; or a folder of images with --label-pattern."
    )


def _why_none(folder: Path) -> str:
    tree = class_folders.survey(folder, DataConfig())
    images = tree.images_below("")
    if not images:
        return "no table and no image in it"
    return f"no table in it, and its {len(images)} images lie in no folders that could be classes ({some(images, most=3)})"


def _but_for_capitals(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Names that differ in capitals alone, but for single letters, which may differ in nothing else."""
    alike = defaultdict(list)
    for name in dict.fromkeys(names):
        alike[name.casefold()].append(name)
    return [tuple(same) for same in alike.values() if len(same) > 1 and len(same[0]) > 1]


def _text_mistakes(source: Path, ids: Sequence[str]) -> list[str]:
    fix = "Rename them in UTF-8; convmv -f latin1 -t utf-8 -r --notest FOLDER does it for all files below a folder"
    return [f"{source}: {len(names)} names of files are not in UTF-8: {some(names)}. {fix}."] if (names := no_text(ids)) else []


def _renumbered(source: Path, images: Images, scheme: Scheme, needed: Collection[str]) -> Images:
    """The images with the part of the scheme that they have, numbered as there."""
    mistakes, found, columns = [], [], []
    own, tags, numbers = images.scheme.of_kind("classes"), None, None
    for target in scheme.targets:
        mine = next((one for one in images.scheme.targets if one.name == target.name and one.kind == target.kind), None)
        if mine is None:
            if target.name in needed:
                there = ", ".join(images.scheme.names)
                mistakes.append(f"{source}: has no target {target.name}; there are {there}. Add it.")
            continue
        if target.kind == "number":
            found.append(target)
            numbers = images.numbers
            continue
        labels = images.labels[:, own.names.index(target.name)] if target.kind == "classes" else None
        present = np.unique(labels) if labels is not None else range(len(mine.values))
        strange = [mine.values[value] for value in present if mine.values[value] not in target.values]
        if strange:
            if target.name in needed:
                known = ", ".join(target.values)
                words = f"{target.name} is {some(strange)} for some images, and the {target.kind} are {known}. Write those."
                mistakes.append(f"{source}: {words}")
            continue
        found.append(target)
        if labels is not None:
            columns.append(np.array([target.values.index(value) if value in target.values else -1 for value in mine.values])[labels])
        elif images.tags is not None:
            tags = np.zeros((len(images), len(target.values)), dtype=bool)
            tags[:, [target.values.index(value) for value in mine.values]] = images.tags
    refuse(source, mistakes)
    part = Scheme(tuple(found))
    if part.cut and part.cut in images.scheme.targets:
        numbers = images.numbers
    labels = np.stack(columns, axis=-1) if columns else np.zeros((len(images), 0), dtype=np.int64)
    return replace(images, labels=labels, scheme=part, numbers=numbers, tags=tags)
