"""From what a layout found to labelled images: which column is a target, a group or the split, and which texts are one class."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.data.images import TEST, TRAIN, VALID, DataError, Images, LeftOut
from trainables.data.layouts import parts
from trainables.data.layouts.layout import IMAGE, Listing
from trainables.data.names import look_alikes, shown, some
from trainables.data.rows import plain_name, read_number, refuse
from trainables.data.settings import ALL, DataConfig
from trainables.data.targets import Classes, Number, Scheme, Tags

GROUP, SPLIT = "person", "split"  # columns that say so by their names
TARGETS = ("label", "class", "target", "category", "y")  # what a column is called that is a target unless settings name others
TAGS = "tags"  # what several columns of tags are together
YES_OR_NO = {**dict.fromkeys(("1", "1.0", "true", "yes"), True), **dict.fromkeys(("0", "0.0", "false", "no", "-1"), False)}
GROUP_WORDS = ("patient", "subject", "participant", "person", "group", "scene", "site", "hospital", "session", "individual")
MOST_CLASSES = 5000  # joint ones, of which a model can be built
NUMBER = {parts.TRAIN: TRAIN, parts.VALID: VALID, parts.TEST: TEST}


@dataclass(frozen=True)
class Chosen:
    """What the columns of a listing are."""

    classes: tuple[str, ...]
    tags: tuple[str, ...]  # one column with the words of tags, or a column of 0 and 1 for each
    number: str  # empty: none
    ordinal: str  # one of the classes that is cut from a number; empty: none
    group: str  # empty: every image is a group of its own
    split: str  # empty: no column says which part an image is in
    unused: tuple[str, ...]

    @property
    def targets(self) -> tuple[str, ...]:
        """All columns that are to be predicted."""
        return tuple(filter(None, (*self.classes, *self.tags, self.number)))

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that must say something of an image: one of words may say that no tag is there."""
        return tuple(name for name in self.targets if self.tags != (name,))


def label(source: Path, listing: Listing, settings: DataConfig) -> Images:
    """The listed images with their labels.

    Raises: DataError naming everything that is wrong, with what to type where nothing says which column is a target.
    """
    chosen = choose(source, listing, settings)
    listing, without = _labelled_rows(listing, chosen, settings)
    if not listing.ids:
        raise DataError(f"{source}: no image has a value of {', '.join(chosen.targets)}; {without}. Name another column: --target NAME")
    refuse(source, [*_number_mistakes(source, listing, chosen, settings), *_part_mistakes(source, listing, chosen, settings)])
    tags, there = _tags(source, listing, chosen)
    classes, labels, spellings = _classes(listing, chosen, settings)
    number = chosen.number or chosen.ordinal
    names, alone, joined = _groups(listing, chosen)
    notes = [*listing.notes, without, *spellings, joined, alone, _unused(listing, chosen)]
    return Images(
        root=listing.root,
        ids=listing.ids,
        groups=np.unique(names, return_inverse=True)[1] if names else np.arange(len(listing.ids)),
        labels=labels,
        scheme=Scheme((*classes, *tags, *([Number(chosen.number)] if chosen.number else []))),
        left_out=tuple(item for item in notes if item and item.names),
        numbers=np.array(listing.columns[number], dtype=np.float32) if number else None,
        tags=there,
        names=names,
        given=_given(listing, chosen, settings),
        read_as=(*listing.read_as, *_groups_read_as(chosen)),
    )


def _classes(listing: Listing, chosen: Chosen, settings: DataConfig) -> tuple[list[Classes], np.ndarray, list[LeftOut | None]]:
    """The Classes, the ids of each image (n, Classes), and which spellings were treated as one."""
    found, labels, spellings = [], [], []
    for name in chosen.classes:
        fields = listing.columns[name]
        if name == chosen.ordinal:
            found.append(Classes.banded(name, settings.cuts))
            labels.append(np.digitize(np.array(fields, dtype=np.float32), settings.cuts))
            continue
        texts, joined = join_alike(name, fields, groups=False)
        values, ids_of_values = np.unique(texts, return_inverse=True)
        found.append(Classes(name, tuple(values.tolist())))
        labels.append(ids_of_values)
        spellings.append(joined)
    return found, np.stack(labels, axis=-1) if labels else np.zeros((len(listing.ids), 0), dtype=np.int64), spellings


def _tags(source: Path, listing: Listing, chosen: Chosen) -> tuple[list[Tags], np.ndarray | None]:
    """The Tags, and whether each is there (n, tags). Raises: DataError for what is neither 0 nor 1."""
    if not chosen.tags:
        return [], None
    columns = [listing.columns[name] for name in chosen.tags]
    if len(columns) == 1 and not all(field.strip().lower() in YES_OR_NO for field in columns[0]):
        (name,), (fields,) = chosen.tags, columns
        separator = next((one for one in "|;" if any(one in field for field in fields)), ",")
        words = [[plain_name(word) for word in field.split(separator) if word.strip()] for field in fields]
        values = sorted({word for row in words for word in row})
        place = {value: index for index, value in enumerate(values)}
        there = np.zeros((len(words), len(values)), dtype=bool)
        for row, found in enumerate(words):
            there[row, [place[word] for word in found]] = True
        return [Tags(name, tuple(values))], there
    mistakes = [
        f"{place}: tag {name} is {field!r}; write 1 where it is there and 0 where it is not."
        for name, fields in zip(chosen.tags, columns, strict=True)
        for place, field in zip(listing.places, fields, strict=True)
        if field.strip().lower() not in YES_OR_NO
    ]
    refuse(source, mistakes)
    there = np.array([[YES_OR_NO[field.strip().lower()] for field in fields] for fields in columns], dtype=bool).T
    return [Tags(TAGS, chosen.tags)], there


def _groups(listing: Listing, chosen: Chosen) -> tuple[tuple[str, ...], LeftOut | None, LeftOut | None]:
    """The names of the groups, the images without one, each of which is a group of its own, and which spellings were treated as one."""
    if not chosen.group:
        return (), None, None
    fields = listing.columns[chosen.group]
    texts, joined = join_alike(chosen.group, fields, groups=True)
    names = tuple(text if text.strip() else f"{image} alone" for image, text in zip(listing.ids, texts, strict=True))
    alone = tuple(image for image, field in zip(listing.ids, fields, strict=True) if not field.strip())
    return names, LeftOut(f"images without a value of {shown(chosen.group)}, each treated as a group of its own", alone), joined


def choose(source: Path, listing: Listing, settings: DataConfig) -> Chosen:
    """What each column is. Raises: DataError naming every column that is asked for and not there."""
    known = [name for name in listing.columns if name != IMAGE]
    mistakes = []

    def named(field: str, name: str) -> str:
        found = [one for one in known if one == name] or [one for one in known if plain_name(one).lower() == plain_name(name).lower()]
        if len(found) != 1:
            mistakes.append(f"{source}: data/{field} is {name}, and there is no such column; there are {some(known, most=40) or 'none'}.")
        return found[0] if found else name

    def listed(field: str, items: Sequence[str]) -> list[str]:
        pieces = [one for item in items for one in ([item] if item in known else [piece.strip() for piece in item.split(",")])]
        return [named(field, name) for name in dict.fromkeys(filter(None, pieces))]

    group = named("group", settings.group) if settings.group else next((name for name in known if name == GROUP), "")
    split = parts.column_of(settings)
    tags, number = listed("tags", settings.tags), named("number", settings.number) if settings.number else ""
    if split:
        split = named("split", split)
    elif parts.are_used(settings) and not listing.split:
        split = next((name for name in known if name.lower() == SPLIT and name not in (*settings.target, *tags, number)), "")
    ordinal = named("ordinal", settings.ordinal) if settings.ordinal else ""
    left = [name for name in known if name not in (group, split, *tags, number)]
    if settings.target == (ALL,):
        classes = left
    elif settings.target:
        classes = listed("target", settings.target)
    else:
        usual = [name for name in left if name.lower() in TARGETS or name == listing.target]
        classes = usual if len(usual) == 1 and not (tags or number) else []
        classes += [name for name in left if name == ordinal and name not in classes]
        if not mistakes and not (tags or number) and (not classes or len(usual) > 1):
            mistakes.append(_which_target(source, listing, left, usual))
    if ordinal and number:
        mistakes.append(f"{source}: data/ordinal and data/number are both given, and an image has one number. Remove one of them.")
    elif ordinal and ordinal not in classes and not mistakes:
        mistakes.append(f"{source}: data/ordinal is {ordinal}, which is not a target. Name it too: --target {quoted([*classes, ordinal])}")
    kinds = {"the group": [group], "the split": [split], "a target": classes, "a tag": tags, "the number": [number]}
    for name in dict.fromkeys(filter(None, (*classes, *tags, number))):
        twice = [kind for kind, names in kinds.items() if name in names]
        mistakes += [f"{source}: {name} is {' and '.join(twice)}; name it once."] if len(twice) > 1 else []
    refuse(source, mistakes)
    unused = tuple(name for name in left if name not in classes)
    return Chosen(tuple(classes), tuple(tags), number, ordinal, group, split, unused)


def join_alike(name: str, fields: Sequence[str], groups: bool) -> tuple[list[str], LeftOut | None]:
    """The texts with those that only look different written as the shortest of them, and which were joined.

    They differ in spaces, invisible characters and how accents are composed, or as `12` and `12.0` do; groups in capitals too, since to
    join two that are not one does no harm.
    """
    counts = Counter(fields)
    values = sorted(counts, key=lambda value: (-counts[value], value))
    alike: dict[str, list[str]] = defaultdict(list)
    of = {value: same[0] for same in look_alikes(values) for value in same}
    for value in values:
        plain = re.sub(r"^(-?\d+)\.0+$", r"\1", plain_name(of.get(value, value)))
        alike[plain.casefold() if groups else plain].append(value)
    spelt: dict[str, str] = {value: min(same, key=len) for same in alike.values() if len(same) > 1 for value in same}
    if not spelt:
        return list(fields), None
    words = f"spellings of {shown(name)} that look alike, treated as one"
    pairs = (same for same in alike.values() if len(same) > 1)
    return [spelt.get(value, value) for value in fields], LeftOut(words, tuple(" = ".join(map(ascii, same)) for same in pairs))


def _labelled_rows(listing: Listing, chosen: Chosen, settings: DataConfig) -> tuple[Listing, LeftOut | None]:
    """The rows in which every target has a value, and the images of the others."""
    needed = [listing.columns[name] for name in chosen.needed]
    full = [all(fields[row].strip() for fields in needed) for row in range(len(listing.ids))]
    if all(full):
        return listing, None
    answered = set(rows_to_predict(listing, chosen, settings))
    lost = tuple(name for row, (name, kept) in enumerate(zip(listing.ids, full, strict=True)) if not kept and row not in answered)
    words = f"images without a value of {' or '.join(map(shown, chosen.needed))}, not used"
    return take_rows(listing, [index for index, kept in enumerate(full) if kept]), LeftOut(words, lost)


def rows_to_predict(listing: Listing, chosen: Chosen, settings: DataConfig) -> list[int]:
    """The images of the test part, where none of them has a target."""
    test = [row for row, word in enumerate(_words(listing, chosen)) if parts.part_of(word, settings) == parts.TEST]
    empty = all(not listing.columns[name][row].strip() for name in chosen.targets for row in test)
    return test if empty and parts.are_used(settings) else []


def take_rows(listing: Listing, rows: Sequence[int]) -> Listing:
    """Some of the images."""

    def taken(fields: Sequence[str]) -> tuple[str, ...]:
        return tuple(fields[row] for row in rows) if fields else ()

    return Listing(
        listing.root,
        taken(listing.ids),
        {name: taken(fields) for name, fields in listing.columns.items()},
        taken(listing.places),
        listing.read_as,
        listing.notes,
        listing.target,
        taken(listing.split),
    )


def _which_target(source: Path, listing: Listing, left: Sequence[str], usual: Sequence[str]) -> str:
    if not left:
        return f"{source}: no column says what is on the images. Add one for each target to predict."
    several = f"{' and '.join(usual)} could each be the target" if usual else f"none of its columns is called {', '.join(TARGETS)}"
    described = []
    for name in left[:40]:
        counts = Counter(listing.columns[name])
        described.append(f"  {shown(name)}: {len(counts)} values, such as {some([value for value, _ in counts.most_common(3)])}")
    likely = [name for name in left if _like_classes(listing.columns[name])] or list(left)
    lines = [f"  --target {quoted([name])}" for name in (usual or likely)[:5]]
    lines += [f"  --target {quoted(likely[:5])}   for several targets at once"] if len(likely) > 1 else []
    either = [name for name in left if {field.strip().lower() for field in listing.columns[name]} <= YES_OR_NO.keys()]
    lines += [f"  --tags {quoted(either)}   for any number of these on an image"] if len(either) > 1 else []
    numbers = [name for name in left if name not in likely and _like_numbers(listing.columns[name])]
    lines += [f"  --number {quoted(numbers[:1])}   for a number"] if numbers else []
    return "\n".join([f"{source}: which column is the target? {several}:", *described, "Say which, such as", *lines])


def _like_classes(fields: Sequence[str]) -> bool:
    """Whether a column may be meant as classes: few values, each of several images, and few gaps."""
    values = {field for field in fields if field.strip()}
    return 2 <= len(values) <= max(2, len(fields) // 10) and sum(not field.strip() for field in fields) <= len(fields) // 4


def _like_numbers(fields: Sequence[str]) -> bool:
    known = [field for field in fields if field.strip()]
    return len(known) > len(fields) // 2 and all(read_number(field) is not None for field in known)


def _groups_read_as(chosen: Chosen) -> tuple[str, ...]:
    if chosen.group:
        return (f"groups by {shown(chosen.group)}",)
    return ("every image a group of its own (--group COLUMN says which belong together)",)


def quoted(names: Iterable[str]) -> str:
    """Names as an option takes them."""
    import shlex

    return shlex.quote(",".join(names))


def _number_mistakes(source: Path, listing: Listing, chosen: Chosen, settings: DataConfig) -> list[str]:
    name = chosen.number or chosen.ordinal
    if not name:
        return []
    fields = listing.columns[name]
    if chosen.ordinal and not settings.cuts:
        known = [number for field in fields if (number := read_number(field)) is not None]
        thirds = sorted({max(1, round(number)) for number in np.quantile(known, [1 / 3, 2 / 3])}) if known else [10, 20]
        return [
            f"{source}: data/ordinal is {name}, and nothing says where to cut it into classes. Give the first number of each "
            f"class but the lowest, such as --set data/cuts={thirds}."
        ]
    wrong = [(place, field) for place, field in zip(listing.places, fields, strict=True) if read_number(field) is None]
    return [f"{place}: {name} is {field!r}; write a number." for place, field in wrong]


def _words(listing: Listing, chosen: Chosen) -> Sequence[str]:
    """The word for the part that each image is in; nothing where the data does not say."""
    return listing.columns[chosen.split] if chosen.split else listing.split


def _part_mistakes(source: Path, listing: Listing, chosen: Chosen, settings: DataConfig) -> list[str]:
    words = Counter(_words(listing, chosen))
    strange = [word for word in words if parts.part_of(word, settings) is None]
    if strange:
        known = ", ".join(dict.fromkeys(parts.WORDS))
        fix = f"--set data/split={quoted([chosen.split, *(f'{word}=train' for word in strange[:1])])}"
        which = f"{len(strange)} words of column {chosen.split} are not parts: {some([repr(word) for word in strange])}"
        return [f"{source}: {which}. Write {known}, say what a word stands for ({fix}), or ignore the column: --set data/split=none"]
    if words and not any(parts.part_of(word, settings) == parts.TRAIN for word in words):
        fix = f"Say which does, such as --set data/split={quoted([f'{next(iter(words))}=train'])}"
        return [f"{source}: its parts are {some([*words])}, and none of them trains. {fix}"]
    return []


def _given(listing: Listing, chosen: Chosen, settings: DataConfig) -> np.ndarray | None:
    words = _words(listing, chosen)
    found = np.array([NUMBER[part] for word in words if (part := parts.part_of(word, settings))], dtype=np.int64)
    return found if len(set(found.tolist())) > 1 else None


def _unused(listing: Listing, chosen: Chosen) -> LeftOut | None:
    # What a layout says beside a target of its own, such as an image's folder, may be a group and is named as such.
    if not chosen.unused or listing.target:
        return None
    hint = "--target NAME,NAME would predict more of them"
    groups = [name for name in chosen.unused if any(word in name.lower() for word in GROUP_WORDS)]
    if groups and not chosen.group:
        hint += f", --group {quoted(groups[:1])} would keep images together that have one value of it"
    return LeftOut(f"columns not used; {hint}", chosen.unused)


def refuse_odd_classes(source: Path, images: Images, *, any_column: bool) -> None:
    """Refuse targets that cannot be meant; images that join others may have such.

    Args:
        any_column: whether the targets are columns of a table, any of which the user may have named.
    Raises: DataError naming every one.
    """
    mistakes = []
    fix = "A number is predicted by --number {name}, or cut into classes by data/ordinal and data/cuts; or leave it out of --target"
    classes = images.scheme.of_kind("classes")
    for target in images.scheme.targets:
        count, name = len(target.values), shown(target.name)
        if target.kind == "tags" and not count:
            mistakes.append(f"{source}: {name} has no tag for any image. Name another column: --tags NAME")
        if target.kind != "classes" or target.cuts:
            continue
        if count == 1:
            mistakes.append(f"{source}: {name} is {shown(target.values[0])} for every image; two or more classes are needed.")
        elif any_column and count == len(images) > 2:
            mistakes.append(f"{source}: {name} has another value for every image. {fix.format(name=quoted([target.name]))}.")
    if not mistakes and classes.targets and classes.classes > MOST_CLASSES:
        sizes = " x ".join(f"{size} of {shown(name)}" for name, size in zip(classes.names, classes.sizes, strict=True))
        fewer = f"Name fewer: --target {quoted(classes.names[:1])}"
        mistakes.append(f"{source}: {classes.classes:,} joint classes ({sizes}) are too many. {fewer}")
    refuse(source, mistakes)
