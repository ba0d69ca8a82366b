"""What looks odd about labels and images before a model has seen them, each with what to do about it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.evaluation.look.facts import Alike, Finding
from analysis.evaluation.look.labels import kinds_of, scheme_tags
from analysis.evaluation.look.pixels import Pixels, association
from trainables.commands import typed
from trainables.data.images import Images
from trainables.data.names import look_alikes
from trainables.data.splits import rare_classes
from trainables.data.targets import Target

NO_VALUES = frozenset(
    {"?", "??", "-", "--", "unknown", "unclear", "undefined", "n/a", "na", "nan", "none", "null", "todo", "tbd", "other?"}
)
NAMED = 20  # names that a finding keeps
CONSTANT = 0.8  # share of the groups of several images that are of one value; above it the others are odd
FEWEST = 5  # such groups, below which none is
RARE = 0.05  # share of the images of another spelling below which a value may be a slip
TELLS = 0.3  # association of size or format with a target above which these give labels away
STRANGE = 0.01  # share of the images that are in a format, below which it is strange
SMALLEST = 32  # pixels of a side
BLANK = 2.0  # levels of 255: pixels of an image that deviate less show nothing


@dataclass(frozen=True)
class Context:
    """What oddities are looked for in."""

    images: Images
    pixels: Pixels
    pairs: Sequence[Alike]
    folds: int  # that a split has beside the hold-out
    run: str  # its name as a command takes it; NAME where there is none yet


def oddities(context: Context) -> tuple[Finding, ...]:
    """All findings: of images, of labels, of counts."""
    kinds = (
        _unreadable,
        _blank,
        _sizes,
        _formats,
        _given_away,
        _copies,
        _torn_groups,
        _spellings,
        _unknown,
        _at_the_cut,
        _odd_numbers,
        _few_groups,
        _empty,
    )
    return tuple(finding for kind in kinds for finding in kind(context))


def _unreadable(context: Context) -> Iterator[Finding]:
    if bad := context.pixels.bad:
        words = f"{_images(len(bad))} cannot be read"
        names = tuple(f"{name} ({why})" for name, why in bad.items())
        fix = "Restore or remove them. A search leaves out up to 5 % by itself, and as many as there are with"
        yield Finding("unreadable", len(bad), words, names[:NAMED], fix, "--allow-bad-images")


def _blank(context: Context) -> Iterator[Finding]:
    blank = np.flatnonzero(context.pixels.deviations.max(axis=1, initial=0) < BLANK)
    if len(blank):
        words = f"{_images(len(blank))} of one colour, which show nothing"
        yield Finding("blank", len(blank), words, _names(context, blank), "Remove them: they are placeholders or damaged.")


def _sizes(context: Context) -> Iterator[Finding]:
    sizes = context.pixels.sizes
    if not len(sizes):
        return
    tiny = np.flatnonzero(sizes.min(axis=1) < SMALLEST)
    if len(tiny):
        words = f"{_images(len(tiny))} with a side below {SMALLEST} pixels"
        yield Finding("tiny", len(tiny), words, _sized(context, tiny), "Look at them, and remove those that show too little.")
    aspect = np.log2(sizes[:, 0] / sizes[:, 1])
    area = np.log2(sizes.prod(axis=1))
    odd = (np.abs(aspect - np.median(aspect)) > 1) | (np.abs(area - np.median(area)) > 4)
    odd = np.flatnonzero(odd & (sizes.min(axis=1) >= SMALLEST))
    if 0 < len(odd) <= 0.1 * len(sizes):
        words = (
            f"{_images(len(odd))} out of line: 16 times as large or small as the median image, or twice as wide or as high in proportion"
        )
        fix = "A crop suits them less than others. They may be scans of pages, screenshots or other strangers: look at them."
        yield Finding("size", len(odd), words, _sized(context, odd), f"{fix} To keep proportions:", "--set view/fit=contain")


def _formats(context: Context) -> Iterator[Finding]:
    formats = np.array(context.pixels.formats)
    names, place, counts = np.unique(formats, return_inverse=True, return_counts=True)
    odd = np.flatnonzero(counts[place] <= STRANGE * len(formats)) if len(names) else np.zeros(0, int)
    if len(odd):
        words = f"{_images(len(odd))} in a format that few others have ({', '.join(sorted(set(formats[odd].tolist())))})"
        fix = "They may come from elsewhere, as placeholders of the web do: look at them."
        yield Finding("format", len(odd), words, _names(context, odd), fix)


def _given_away(context: Context) -> Iterator[Finding]:
    pixels = context.pixels
    if len(pixels.rows) < 20:
        return
    sides = pixels.sizes.max(axis=1)
    _, same = np.unique(pixels.sizes, axis=0, return_inverse=True)
    size = same.ravel() if same.max() < 20 else np.digitize(sides, np.quantile(sides, [0.2, 0.4, 0.6, 0.8]))
    for target in context.images.scheme.of_kind("classes").targets:
        truth = context.images.truth(context.images.scheme.part((target.name,)))[pixels.rows]
        for what, codes in (("the format of the file", np.array(pixels.formats)), ("the size of the image", size)):
            strength = association(codes, truth)
            if strength >= TELLS:
                words = f"{what} tells {target.name} (association {strength:.2f} of 1)"
                fix = "A model may learn that instead of what is on the image. Collect all classes in one way, and scale all alike."
                yield Finding("shortcut", 1, words[0].upper() + words[1:], (), fix)


def _copies(context: Context) -> Iterator[Finding]:
    relabel = "Correct the wrong one, in the table or by --set labels/relabel=relabel.csv. After a search, with models to ask:"
    split = "No split separates identical files, and all but one of each add nothing. After a search:"
    one_group = "They may be one thing under two names: give them one group, or remove one. After a search:"
    for differ in (True, False):
        for identical in (True, False):
            own = [pair for pair in context.pairs if pair.differ == differ and pair.identical == identical]
            if not own:
                continue
            how = "of the same file" if identical else "that look the same, in two groups"
            words = f"{len(own):,} pair{'s' if len(own) != 1 else ''} of images {how}, with {'different' if differ else 'the same'} labels"
            names = tuple(
                f"{pair.image} = {pair.other}" + (f" ({pair.label} / {pair.other_label})" if differ else "") for pair in own[:NAMED]
            )
            kind = f"{'identical' if identical else 'alike'}{' with different labels' if differ else ''}"
            command = typed(f"analysis.{'suspects' if differ else 'leaks'} --run {context.run}")
            fix = relabel if differ else split if identical else one_group
            yield Finding(kind, len(own), words, names, fix, command)


def _torn_groups(context: Context) -> Iterator[Finding]:
    images = context.images
    for target in images.scheme.targets:
        if target.kind == "tags" or target.cuts:
            continue
        values = images.truth(images.scheme.part((target.name,)))
        groups, place, counts = np.unique(images.groups, return_inverse=True, return_counts=True)
        pairs = np.unique(np.stack([place, np.unique(values, return_inverse=True)[1]]), axis=1)
        several, kinds = counts > 1, np.bincount(pairs[0], minlength=len(groups))
        torn = np.flatnonzero(several & (kinds > 1))
        if several.sum() < FEWEST or not 0 < len(torn) <= (1 - CONSTANT) * several.sum():
            continue
        words = f"{len(torn):,} of {several.sum():,} groups of several images have more than one {target.name}, the others only one"
        names = tuple(_group(context, groups[one], target, values) for one in torn[:NAMED].tolist())
        fix = "Where it cannot change within a group, correct the table; models find such labels, too, after a search:"
        yield Finding("group", len(torn), words, names, fix, typed(f"analysis.suspects --run {context.run}"))


def _group(context: Context, group: int, target: Target, values: np.ndarray) -> str:
    rows = np.flatnonzero(context.images.groups == group)
    found, counts = np.unique(values[rows], return_counts=True)
    named = [
        f"{target.values[one] if target.kind == 'classes' else one} x {count}"
        for one, count in zip(found.tolist(), counts.tolist(), strict=True)
    ]
    name = context.images.names[rows[0]] if context.images.names else f"that of {context.images.ids[rows[0]]}"
    return f"{name}: {', '.join(named)}"


def _spellings(context: Context) -> Iterator[Finding]:
    for target in context.images.scheme.targets:
        if target.kind == "number" or target.cuts:
            continue
        counts = {value: len(rows) for value, rows in kinds_of(context.images, target)}
        pairs = [(one, other) for one, other in combinations(counts, 2) if is_slip(one, other, counts[one], counts[other])]
        if pairs:
            names = tuple(f"{one!r} ({counts[one]:,}) and {other!r} ({counts[other]:,})" for one, other in pairs)
            words = f"{len(pairs)} pair{'s' if len(pairs) != 1 else ''} of values of {target.name} may be one, spelt twice"
            yield Finding("spelling", len(pairs), words, names[:NAMED], "If they mean the same, write one of them for all, in the table.")


def _unknown(context: Context) -> Iterator[Finding]:
    for target in context.images.scheme.targets:
        if target.kind == "number" or target.cuts:
            continue
        kinds = [(value, len(rows)) for value, rows in kinds_of(context.images, target) if value.strip(" .").casefold() in NO_VALUES]
        if kinds:
            words = f"{_images(sum(count for _, count in kinds))} whose {target.name} is a word for not known, which is learned as a value"
            fix = "Leave the cell empty where the value is not known, so that the image is left out and named."
            yield Finding(
                "unknown", sum(count for _, count in kinds), words, tuple(f"{value!r} ({count:,})" for value, count in kinds), fix
            )


def is_slip(one: str, other: str, images: int, others: int) -> bool:
    """Whether two values may be one: they differ in capitals, spaces or accents; or in one letter of at least five, and one is rare."""
    plain, same = one.casefold().strip(" _-."), other.casefold().strip(" _-.")
    if plain == same or look_alikes([plain, same]):
        return True
    rare = min(images, others) <= max(1, RARE * max(images, others))
    letters = min(len(plain), len(same)) >= 5 and not any(letter.isdigit() for letter in plain + same)
    return rare and letters and _one_edit(*sorted((plain, same), key=len))


def _one_edit(short: str, long: str) -> bool:
    """Whether one letter is added, changed, or exchanged with the next."""
    if len(long) - len(short) > 1:
        return False
    start = next((place for place, (one, other) in enumerate(zip(short, long, strict=False)) if one != other), len(short))
    if len(short) < len(long):
        return short[start:] == long[start + 1 :]
    exchanged = short[start : start + 2] == long[start : start + 2][::-1]
    return short[start + 1 :] == long[start + 1 :] or (exchanged and short[start + 2 :] == long[start + 2 :])


def _at_the_cut(context: Context) -> Iterator[Finding]:
    images, cut = context.images, context.images.scheme.cut
    if cut is None or images.numbers is None:
        return
    near = {edge: np.flatnonzero((images.numbers >= edge - 1) & (images.numbers <= edge)) for edge in cut.cuts}
    count = sum(map(len, near.values()))
    if count:
        words = f"{_images(count)} within 1 of where {cut.name} is cut: an error of 1 in their number is another class"
        names = tuple(f"{edge - 1} or {edge}: {len(rows):,}" for edge, rows in near.items())
        ranges = ", ".join(f"[{edge - 1}, {edge}]" for edge in cut.cuts)
        fix = "To train without them, if that helps:"
        yield Finding("cut", count, words, names, fix, f"--set 'labels/remove=[{ranges}]'")


def _odd_numbers(context: Context) -> Iterator[Finding]:
    images, numbers = context.images, context.images.numbers
    known = np.flatnonzero(np.isfinite(numbers)) if numbers is not None else np.zeros(0, int)
    if numbers is None or len(known) < 20:
        return
    name = (*images.scheme.of_kind("number").names, *([images.scheme.cut.name] if images.scheme.cut else []))[0]
    values = numbers[known]
    low, high = np.quantile(values, [0.25, 0.75])
    far = known[(values < low - 3 * (high - low)) | (values > high + 3 * (high - low))]
    if len(far) and high > low:
        names = tuple(f"{context.images.ids[row]} ({numbers[row]:g})" for row in far[:NAMED].tolist())
        words = f"{_images(len(far))} with a {name} far from all others"
        yield Finding("number", len(far), words, names, "Look for typing errors and for numbers that stand for «unknown», such as 999.")
    for value, which in ((values.max(), "highest"), (values.min(), "lowest")):
        share = float((values == value).mean())
        if share >= 0.05 and values.max() > values.min():
            count = int((values == value).sum())
            words = f"{_images(count)} ({share:.0%}) have the {which} {name} there is, {value:g}: it may be capped"
            spread = " Where loss/regression learns the number, noise can spread them:" if which == "highest" and images.scheme.cut else ""
            command = "--set labels/jitter=5" if spread else ""
            yield Finding("cap", count, words, (), f"What lies beyond is unknown.{spread}", command)


def _few_groups(context: Context) -> Iterator[Finding]:
    parts = context.folds + 1
    rare = rare_classes(context.images, parts)
    kinds = [kind for target in scheme_tags(context.images) for kind in kinds_of(context.images, target)]
    groups = [(tag, len(np.unique(context.images.groups[rows]))) for tag, rows in kinds]
    rare += [f"{tag} ({count})" for tag, count in groups if count < parts]
    if rare:
        what = "classes" if len(rare) != 1 else "class"
        has = "have" if len(rare) != 1 else "has"
        words = f"{len(rare)} {what} {has} fewer groups than a split has parts ({context.folds} folds and a hold-out)"
        fix = "Some parts are without them, and scores of them say little. Collect more of them, join them with others, or use fewer folds:"
        yield Finding("few groups", len(rare), words, tuple(rare[:NAMED]), fix, "--set data/folds=3")


def _empty(context: Context) -> Iterator[Finding]:
    scheme = context.images.scheme.of_kind("classes")
    absent = scheme.absent(context.images.truth(scheme)) if len(scheme.targets) > 1 else []
    if absent:
        words = f"{len(absent)} of {scheme.classes} joint classes {'have' if len(absent) != 1 else 'has'} no image"
        fix = "Each counts as F1 0 in a macro F1 over joint classes. Collect some, or predict fewer targets together (--target)."
        yield Finding("empty", len(absent), words, tuple(absent[:NAMED]), fix)
    lost: dict[str, list[str]] = defaultdict(list)
    for item in context.images.left_out:
        lost[item.reason] += item.names
    for reason, names in lost.items():
        yield Finding("left out", len(names), f"Reading notes: {len(names):,} {reason}", tuple(names[:NAMED]), "")


def _images(count: int) -> str:
    return f"{count:,} image{'s' if count != 1 else ''}"


def _names(context: Context, places: np.ndarray) -> tuple[str, ...]:
    return tuple(context.images.ids[context.pixels.rows[place]] for place in places[:NAMED].tolist())


def _sized(context: Context, places: np.ndarray) -> tuple[str, ...]:
    sizes = (context.pixels.sizes[place].tolist() for place in places[:NAMED].tolist())
    return tuple(f"{name} ({width} x {height})" for name, (width, height) in zip(_names(context, places), sizes, strict=True))
