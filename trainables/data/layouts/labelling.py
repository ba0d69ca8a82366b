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
from trainables.data.targets import Classes, Scheme

GROUP, SPLIT = "person", "split"  # columns that say so by their names
TARGETS = ("label", "class", "target", "category", "y")  # what a column is called that is a target unless settings name others
GROUP_WORDS = ("patient", "subject", "participant", "person", "group", "scene", "site", "hospital", "session", "individual")
MOST_CLASSES = 5000  # joint ones, of which a model can be built
NUMBER = {parts.TRAIN: TRAIN, parts.VALID: VALID, parts.TEST: TEST}


@dataclass(frozen=True)
class Chosen:
    """What the columns of a listing are."""

    targets: tuple[str, ...]
    group: str  # empty: every image is a group of its own
    split: str  # empty: no column says which part an image is in
    unused: tuple[str, ...]


def label(source: Path, listing: Listing, settings: DataConfig) -> Images:
    """The listed images with their labels.

    Raises: DataError naming everything that is wrong, with what to type where nothing says which column is a target.
    """
    chosen = choose(source, listing, settings)
    listing, without = _labelled_rows(listing, chosen, settings)
    if not listing.ids:
        raise DataError(f"{source}: no image has a value of {', '.join(chosen.targets)}; {without}. Name another column: --target NAME")
    refuse(source, [*_number_mistakes(source, listing, chosen, settings), *_part_mistakes(source, listing, chosen, settings)])
    columns = {name: listing.columns[name] for name in (*chosen.targets, *filter(None, [chosen.group]))}
    joined = {name: join_alike(name, fields, groups=name == chosen.group) for name, fields in columns.items()}
    scheme, labels, numbers = [], [], None
    for name in chosen.targets:
        if name == settings.ordinal:
            numbers = np.array(columns[name], dtype=np.float32)
            scheme.append(Classes.banded(name, settings.cuts))
            labels.append(np.digitize(numbers, settings.cuts))
        else:
            values, ids_of_values = np.unique(joined[name][0], return_inverse=True)
            scheme.append(Classes(name, tuple(values.tolist())))
            labels.append(ids_of_values)
    names = tuple(joined[chosen.group][0]) if chosen.group else ()
    names = tuple(name if name.strip() else f"{listing.ids[index]} alone" for index, name in enumerate(names))
    alone = tuple(name for name, field in zip(listing.ids, columns.get(chosen.group, ()), strict=False) if not field.strip())
    ordered = [item for name, (_, item) in joined.items() if item and name != settings.ordinal]
    notes = [
        *listing.notes,
        *([without] if without else []),
        *ordered,
        LeftOut(f"images without a value of {shown(chosen.group)}, each taken for a group of its own", alone),
        _unused(listing, chosen),
    ]
    return Images(
        root=listing.root,
        ids=listing.ids,
        groups=np.unique(names, return_inverse=True)[1] if names else np.arange(len(listing.ids)),
        labels=np.stack(labels, axis=-1),
        scheme=Scheme(tuple(scheme)),
        left_out=tuple(item for item in notes if item and item.names),
        numbers=numbers,
        names=names,
        given=_given(listing, chosen, settings),
        said=(*listing.said, *_said_of_groups(chosen)),
    )


def choose(source: Path, listing: Listing, settings: DataConfig) -> Chosen:
    """What each column is. Raises: DataError naming every column that is asked for and not there."""
    known = [name for name in listing.columns if name != IMAGE]
    mistakes = []

    def named(field: str, name: str) -> str:
        found = [one for one in known if one == name] or [one for one in known if plain_name(one).lower() == plain_name(name).lower()]
        if len(found) != 1:
            mistakes.append(f"{source}: data/{field} is {name}, and there is no such column; there are {some(known, most=40) or 'none'}.")
        return found[0] if found else name

    group = named("group", settings.group) if settings.group else next((name for name in known if name == GROUP), "")
    split = parts.column_of(settings)
    if split:
        split = named("split", split)
    elif parts.are_used(settings) and not listing.split:
        split = next((name for name in known if name.lower() == SPLIT and name not in settings.target), "")
    ordinal = named("ordinal", settings.ordinal) if settings.ordinal else ""
    left = [name for name in known if name not in (group, split)]
    wanted = [one for item in settings.target for one in ([item] if item in known else [piece.strip() for piece in item.split(",")])]
    if wanted == [ALL]:
        targets = left
    elif wanted:
        targets = [named("target", name) for name in dict.fromkeys(filter(None, wanted))]
    else:
        usual = [name for name in left if name.lower() in TARGETS or name == listing.target]
        targets = usual if len(usual) == 1 else []
        targets += [name for name in left if name == ordinal and name not in targets]
        if not mistakes and not (targets and len(usual) <= 1):
            mistakes.append(_which_target(source, listing, left, usual))
    if ordinal and ordinal not in targets and not mistakes:
        mistakes.append(f"{source}: data/ordinal is {ordinal}, which is no target. Name it too: --target {','.join([*targets, ordinal])}")
    others = ((group, "the group"), (split, "the split"))
    mistakes += [f"{source}: {name} is a target and {what}; name another." for name, what in others if name in targets]
    refuse(source, mistakes)
    return Chosen(tuple(targets), group, split, tuple(name for name in left if name not in targets))


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
    words = f"spellings of {shown(name)} that look alike, taken for one"
    pairs = (same for same in alike.values() if len(same) > 1)
    return [spelt.get(value, value) for value in fields], LeftOut(words, tuple(" = ".join(map(ascii, same)) for same in pairs))


def _labelled_rows(listing: Listing, chosen: Chosen, settings: DataConfig) -> tuple[Listing, LeftOut | None]:
    """The rows in which every target has a value, and the images of the others."""
    full = [all(map(str.strip, fields)) for fields in zip(*(listing.columns[name] for name in chosen.targets), strict=True)]
    if all(full):
        return listing, None
    answered = set(rows_to_predict(listing, chosen, settings))
    lost = tuple(name for row, (name, kept) in enumerate(zip(listing.ids, full, strict=True)) if not kept and row not in answered)
    words = f"images without a value of {' or '.join(map(shown, chosen.targets))}, not used"
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
        listing.said,
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
    return "\n".join([f"{source}: which column is the target? {several}:", *described, "Say which, such as", *lines])


def _like_classes(fields: Sequence[str]) -> bool:
    """Whether a column may be meant as classes: few values, each of several images, and few gaps."""
    values = {field for field in fields if field.strip()}
    return 2 <= len(values) <= max(2, len(fields) // 10) and sum(not field.strip() for field in fields) <= len(fields) // 4


def _said_of_groups(chosen: Chosen) -> tuple[str, ...]:
    if chosen.group:
        return (f"groups by {shown(chosen.group)}",)
    return ("every image a group of its own (--group COLUMN says which belong together)",)


def quoted(names: Iterable[str]) -> str:
    """Names as an option takes them."""
    import shlex

    return shlex.quote(",".join(names))


def _number_mistakes(source: Path, listing: Listing, chosen: Chosen, settings: DataConfig) -> list[str]:
    name = settings.ordinal
    if not name or name not in chosen.targets:
        return []
    fields = listing.columns[name]
    if not settings.cuts:
        known = [number for field in fields if (number := read_number(field)) is not None]
        thirds = sorted({max(1, round(number)) for number in np.quantile(known, [1 / 3, 2 / 3])}) if known else [10, 20]
        return [
            f"{source}: data/ordinal is {name}, and nothing says where to cut it into classes. Give the first number of each "
            f"class but the lowest, such as --set data/cuts={thirds}."
        ]
    wrong = [(place, field) for place, field in zip(listing.places, fields, strict=True) if read_number(field) is None]
    return [f"{place}: {name} is {field!r}; write a number." for place, field in wrong]


def _words(listing: Listing, chosen: Chosen) -> Sequence[str]:
    """The word for the part that each image is in; nothing where nobody says."""
    return listing.columns[chosen.split] if chosen.split else listing.split


def _part_mistakes(source: Path, listing: Listing, chosen: Chosen, settings: DataConfig) -> list[str]:
    words = Counter(_words(listing, chosen))
    strange = [word for word in words if parts.part_of(word, settings) is None]
    if strange:
        known = ", ".join(dict.fromkeys(parts.WORDS))
        fix = f"--set data/split={quoted([chosen.split, *(f'{word}=train' for word in strange[:1])])}"
        which = f"{len(strange)} words of column {chosen.split} name no part: {some([repr(word) for word in strange])}"
        return [f"{source}: {which}. Write {known}, say what a word stands for ({fix}), or take no notice: --set data/split=none"]
    if words and not any(parts.part_of(word, settings) == parts.TRAIN for word in words):
        fix = f"Say which does, such as --set data/split={quoted([f'{next(iter(words))}=train'])}"
        return [f"{source}: its parts are {some([*words])}, and none of them trains. {fix}"]
    return []


def _given(listing: Listing, chosen: Chosen, settings: DataConfig) -> np.ndarray | None:
    words = _words(listing, chosen)
    found = np.array([NUMBER[part] for word in words if (part := parts.part_of(word, settings))], dtype=np.int64)
    return found if len(set(found.tolist())) > 1 else None


def _unused(listing: Listing, chosen: Chosen) -> LeftOut | None:
    if not chosen.unused:
        return None
    hint = "--target NAME,NAME would predict more of them"
    groups = [name for name in chosen.unused if any(word in name.lower() for word in GROUP_WORDS)]
    if groups and not chosen.group:
        hint += f", --group {quoted(groups[:1])} would keep images together that have one value of it"
    return LeftOut(f"columns not used; {hint}", chosen.unused)


def refuse_odd_classes(source: Path, images: Images, *, any_column: bool) -> None:
    """Refuse targets that nobody can have meant; images that join others may have such.

    Args:
        any_column: whether the targets are columns of a table, any of which somebody may have named.
    Raises: DataError naming every one.
    """
    mistakes = []
    fix = "A number is cut into classes by --set data/ordinal={name} and data/cuts; leave what is not to be predicted out of --target"
    for attribute in images.scheme.targets:
        count, name = len(attribute.values), shown(attribute.name)
        if attribute.cuts:
            continue
        if count == 1:
            mistakes.append(f"{source}: {name} is {shown(attribute.values[0])} for every image; two or more classes are needed.")
        elif any_column and count == len(images) > 2:
            mistakes.append(f"{source}: {name} has another value for every image. {fix.format(name=attribute.name)}.")
    if not mistakes and images.scheme.classes > MOST_CLASSES:
        sizes = " x ".join(f"{size} of {shown(name)}" for name, size in zip(images.scheme.names, images.scheme.sizes, strict=True))
        fewer = f"Name fewer: --target {quoted(images.scheme.names[:1])}"
        mistakes.append(f"{source}: {images.scheme.classes:,} joint classes ({sizes}) are too many. {fewer}")
    refuse(source, mistakes)
