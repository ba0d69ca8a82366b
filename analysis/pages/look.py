"""The page that shows a data set before anything is searched, and what the report has of it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath

import numpy as np

from analysis.evaluation.look.facts import Alike, ClassFacts, Colour, Facts, Finding, Grid, TargetFacts
from analysis.evaluation.look.labels import kinds_of
from analysis.pages.page import thumbnail
from analysis.pages.parts import Part, Picture, Section, Sheet, Strip, Thumbnail, Words
from analysis.pages.tables import Table, as_percent, table_of
from trainables.data.images import Images

SHOWN = 8  # images of a class, and of two that look the same pairs
STRIPS = 30  # classes of a target whose images are shown
PAIRS = 12  # that are shown
LONGEST = 32  # characters of a file's name under an image
NAMES = 3  # of a finding on the page
ALIKE = 0.05  # share of the variance of colours below which classes do not differ in them
KIND = {"classes": "class", "tags": "tag", "number": "from, to"}


def look_sections(facts: Facts, sheets: Sequence[Sheet], pairs: Sheet | None) -> list[Section]:
    """All sections.

    Args:
        sheets: of the images of the classes of each target.
        pairs: of images that look the same.
    """
    sections = [
        Section("findings", "What looks odd", (Words(lead(facts), "lead"), *finding_parts(facts))),
        Section("targets", "Classes, tags and numbers", tuple(target_parts(facts))),
        Section("together", "Targets together", tuple(_together(facts))),
        Section("images", "Images", tuple(sheets) or (Words("None of the images could be read.", "warning"),)),
        Section("alike", "Images that look the same", tuple(_alike(facts, pairs))),
        Section("colours", "Colours", tuple(_colours(facts))),
        Section("files", "Sizes and formats", tuple(_files(facts))),
        Section("data", "How the data was read", tuple(_read(facts))),
    ]
    return [section for section in sections if section.parts]


def lead(facts: Facts) -> str:
    """The data in one sentence."""
    groups = f" of {facts.groups:,} groups" if facts.grouped else ", each a group of its own"
    targets = "; ".join(_target_words(target) for target in facts.targets)
    return f"{facts.images:,} images{groups}. {targets}."


def finding_parts(facts: Facts) -> Iterator[Part]:
    """What looks odd, each with what to do."""
    if facts.asked < facts.images:
        yield Words(
            f"The pixels of {facts.read:,} of {facts.images:,} images were read, a random sample: what is said of pixels, files "
            "and copies is of these alone. To read more: --most and --time-budget.",
            "warning",
        )
    if not facts.findings:
        yield Words("Nothing that looks odd: no copies with different labels, no class of few groups, no damaged image.")
    for finding in facts.findings:
        yield Words(finding_words(finding), "warning" if finding.kind != "left out" else "plain", finding.command)


def finding_words(finding: Finding) -> str:
    """A finding as a paragraph."""
    named = "; ".join(finding.names[:NAMES]) + (f"; and {finding.count - NAMES:,} more" if _is_listed(finding) else "")
    return f"{finding.words}{f': {named}' if named else ''}. {finding.fix}".rstrip()


def _is_listed(finding: Finding) -> bool:
    """Whether its names are those of all that it counts, of which some are not shown."""
    return len(finding.names) > NAMES and finding.count > NAMES


def target_parts(facts: Facts) -> Iterator[Part]:
    """A picture and a table for each target, and histograms of numbers."""
    from analysis.figures.look import MOST, counts_figure, histogram_figure

    for number, target in enumerate(facts.targets, start=1):
        if target.kind != "number":
            biggest_first = sorted(target.classes, key=lambda one: -one.images) if len(target.classes) > MOST else target.classes
            more = f" The {MOST} of most images are drawn." if len(target.classes) > MOST else ""
            bare = f" {target.without:,} images have none." if target.without else ""
            figure = counts_figure(*zip(*((one.value, one.images, one.groups) for one in biggest_first), strict=True))
            yield Picture(f"look-counts-{number}", f"Images by {target.name}", f"Images by {target.name}.{bare}{more}", figure)
        yield _classes_table(f"{target.name}: images and groups", KIND[target.kind], target.classes, facts, folded=target.kind != "number")
    for number, found in enumerate(facts.numbers, start=1):
        cut = " Dashed lines are where it is cut." if found.marks else ""
        caption = f"Images by {found.name.replace(' by ', ', and by ')}.{cut}"
        yield Picture(f"look-numbers-{number}", f"Histogram of {found.name}", caption, histogram_figure(found))


def _target_words(target: TargetFacts) -> str:
    counts = [one.images for one in target.classes]
    if target.kind == "number":
        return f"{target.name} is a number"
    kind = "tags" if target.kind == "tags" else "classes"
    spread = f"from {min(counts):,} to {max(counts):,} images" if min(counts) != max(counts) else f"{counts[0]:,} images each"
    return f"{target.name} has {len(counts)} {kind}, {spread}"


def _classes_table(caption: str, head: str, classes: Sequence[ClassFacts], facts: Facts, *, folded: bool) -> Table:
    rows = [
        (
            one.value,
            f"{one.images:,}",
            f"{one.images / facts.images:.1%}",
            f"{one.groups:,}" if facts.grouped else "",
            f"{one.images / one.groups:.1f}" if facts.grouped else "",
        )
        for one in classes
    ]
    return table_of(caption, (head, "images", "share", "groups", "images a group"), rows, (1, 2, 3, 4), folded=folded)


def _together(facts: Facts) -> Iterator[Part]:
    if facts.joint:
        there = len(facts.joint)
        yield Words(f"{there:,} of {there + facts.absent:,} joint classes have images.")
        yield _classes_table("Joint classes, those of most images first", "joint class", facts.joint, facts, folded=there > SHOWN)
    for grid in facts.grids:
        yield _grid_table(grid)


def _grid_table(grid: Grid) -> Table:
    tags = grid.rows_name == grid.columns_name
    rows = []
    for name, counts in zip(grid.rows, grid.counts, strict=True):
        total = counts[grid.rows.index(name)] if tags else sum(counts)
        cells = (f"{count:,} ({as_percent(count / total)})" if count and total else f"{count:,}" for count in counts)
        rows.append((name, *cells))
    words = (
        f"{grid.rows_name}: how many images with the tag of a row have that of a column too"
        if tags
        else f"{grid.rows_name} by {grid.columns_name}: images, and their share of the row"
    )
    return Table(words, (grid.rows_name, *grid.columns), tuple(rows), tuple(range(1, len(grid.columns) + 1)))


def _alike(facts: Facts, pairs: Sheet | None) -> Iterator[Part]:
    if not facts.pairs:
        yield Words("No two images are of the same file, and none of two groups look the same in two perceptual hashes.")
        return
    more = "" if facts.complete else "more than "
    differ = sum(pair.differ for pair in facts.alike)
    yield Words(f"{more}{facts.pairs:,} pairs; of the {len(facts.alike):,} in pairs.csv, {differ:,} have different labels.")
    if pairs:
        yield pairs


def _colours(facts: Facts) -> Iterator[Part]:
    for target in facts.targets:
        if target.explained is None:
            continue
        share = as_percent(target.explained)
        words = f"the classes of {target.name} explain {share} of the variance of the images' mean colours"
        if target.explained < ALIKE:
            yield Words(f"{words[0].upper()}{words[1:]}: colour alone does not tell them.")
        else:
            yield Words(f"{words[0].upper()}{words[1:]}: colour, or light, tells something of them. Augment it, if that is not meant.")
        rows = [
            (one.value, f"{one.read:,}", *_levels(one.mean), *_levels(one.deviation))
            for one in target.classes
            if one.mean and one.deviation
        ]
        head = (KIND[target.kind], "images read", "red", "green", "blue", "deviation of red", "of green", "of blue")
        caption = f"{target.name}: mean and standard deviation of each channel, 0 to 255, at 256 pixels"
        yield table_of(caption, head, rows, tuple(range(1, 8)), folded=len(rows) > SHOWN)


def _levels(colour: Colour) -> tuple[str, ...]:
    return tuple(f"{level:.0f}" for level in colour)


def _files(facts: Facts) -> Iterator[Part]:
    from analysis.figures.look import histogram_figure

    if facts.read and not facts.sizes:
        yield Words("All images that were read have one size.")
    for number, found in enumerate(facts.sizes, start=1):
        of = f"Of the {facts.read:,} images that were read."
        yield Picture(
            f"sizes-{number}", f"Histogram of the {found.name}", f"{found.name[0].upper()}{found.name[1:]}. {of}", histogram_figure(found)
        )
    if facts.formats:
        rows = [(name, f"{count:,}", as_percent(count / max(1, facts.read))) for name, count in facts.formats]
        yield Table("Formats, by their content", ("format", "images", "share"), tuple(rows), (1, 2))


def _read(facts: Facts) -> Iterator[Part]:
    for line in facts.understood:
        yield Words(f"{line[0].upper()}{line[1:]}.")
    rows = [("images", facts.data), ("read", f"{facts.read:,} of {facts.images:,} in {facts.seconds:.0f} s")]
    rows += [(f"data/{name}", str(value)) for name, value in facts.settings.items()]
    yield Table("The data", ("what", "value"), tuple(rows))


def image_sheets(images: Images, there: np.ndarray, progress: Callable[[int], None]) -> Iterator[Sheet]:
    """Some images of each class of every target.

    Args:
        there: places of images that can be read, in the order in which they are taken.
        progress: called with the number of images done.
    """
    for target in images.scheme.targets:
        kinds = kinds_of(images, target)
        rarest = sorted(range(len(kinds)), key=lambda place: len(kinds[place][1]))[:STRIPS]
        strips = []
        for value, rows in (kinds[place] for place in sorted(rarest)):
            own = there[np.isin(there, rows)][:SHOWN]
            shown = tuple(Thumbnail(images.ids[row], thumbnail(images.root / images.ids[row])) for row in own.tolist())
            progress(len(shown))
            strips.append(Strip(value, shown, f"{len(rows):,} images"))
        fewer = f", the {STRIPS} rarest" if len(kinds) > STRIPS else ""
        yield Sheet(f"{target.name}: some images of each {KIND[target.kind] if target.kind != 'number' else 'fifth'}{fewer}", tuple(strips))


def pairs_sheet(images: Images, pairs: Sequence[Alike]) -> Sheet | None:
    """The first of the images that look the same, side by side."""
    from analysis.figures.style import shortened

    strips = []
    for pair in pairs[:PAIRS]:
        ends = ((pair.image, pair.label), (pair.other, pair.other_label))
        shown = tuple(
            Thumbnail(name, thumbnail(images.root / name), f"{label}: {shortened(PurePath(name).name, LONGEST)}") for name, label in ends
        )
        how = "the same file" if pair.identical else f"{pair.bits} bits of 128 differ"
        strips.append(Strip("Different labels" if pair.differ else "Same labels", shown, how))
    return Sheet("Pairs, those of different labels first", tuple(strips), max(0, len(pairs) - PAIRS)) if strips else None
