"""Looking at a data set: read the labels, read pixels of a sample, find what looks odd, write a page."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, replace
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.text import Text

from analysis.evaluation.look.facts import FACTS, Alike, Facts, write_facts
from search_spaces.read import read_space
from trainables.config import choosers
from trainables.console import document
from trainables.data.images import Images
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig
from trainables.devices import cores_here
from trainables.mirror import original
from trainables.progress import progress_bar, waiting
from trainables.record import RunError, name_of
from trainables.storage import open_folder, write_atomically
from tuner import preflight
from tuner.cli import Options
from tuner.prepare import data_folder, data_settings_of, load_extensions
from tuner.runs import Earlier, open_earlier, with_data_of

if TYPE_CHECKING:
    from analysis.evaluation.look.pixels import Pixels

KEPT = 1000  # pairs in look.json; pairs.csv has all
COLUMNS = ("image", "other_image", "label", "other_label", "bits", "identical", "same_group")


def look(options: Options, console: Console, *, most: int, out: str | None) -> None:
    """Read, find, print, write. Raises: SpaceError, DataError, RunError, StorageError for what the user can fix."""
    began = monotonic()
    earlier = open_earlier(options.resume) if options.resume else None
    settings = data_settings(options, earlier)
    folder = data_folder(options, earlier, console)
    with waiting("reading labels"):
        images = read_images(folder, settings)
    name = folder.stem if folder.is_file() else folder.resolve().name
    target = open_folder(out) if out else earlier.run / "look" if earlier else open_folder("look") / name
    with waiting("importing what looks at images"):
        from analysis.evaluation.look.pixels import alike, read_pixels, sample
        from analysis.pages.look import image_sheets, look_sections, pairs_sheet
        from analysis.pages.page import PAGE, sections_page
    end = monotonic() + (options.time_budget or inf)
    rows = sample(images, most, options.seed or 0, least=8)
    with progress_bar("reading images", len(rows)) as progress:
        pixels = read_pixels(images, rows, cores_here(), lambda: monotonic() < end, progress)
    with waiting("comparing images"):
        pairs, complete = alike(images, pixels)
    with waiting("counting"):
        facts = facts_of(images, pixels, pairs, settings, name=name, run=name_of(earlier.run) if earlier else "NAME")
    facts = replace(facts, data=original(folder), complete=complete, seconds=monotonic() - began, settings=options_given(settings))
    with progress_bar("drawing", sum(min(8, len(one.classes)) for one in facts.targets)) as progress:
        sheets = list(image_sheets(images, pixels.rows, progress))
    page = sections_page(facts.name, "look", look_sections(facts, sheets, pairs_sheet(images, pairs)))
    target.mkdir(parents=True, exist_ok=True)
    files = [target / PAGE, target / "look.json", target / "pairs.csv"]
    write_atomically(files[0], page)
    write_facts(files[1], facts)
    write_atomically(files[2], pairs_csv(pairs))
    show(facts, console)
    console.print("Written: " + "\n         ".join(map(str, files)), soft_wrap=True)
    document({**FACTS.dump_python(facts, mode="json"), "files": files})


def data_settings(options: Options, earlier: Earlier | None) -> DataConfig:
    """The section `data` that says how the images are read: of a run, a space and the command line. Raises: SpaceError, RunError."""
    load_extensions(options, earlier)
    given = options.space or {"data": {}}
    space = read_space(given, changes=options.changes, choosers=choosers(), check=preflight.check_data)
    strange = [change for change in options.changes if not change.startswith("data/")]
    if strange:
        raise RunError(f"--set {strange[0]} says nothing about how the data is read; give data/... alone")
    if earlier:
        # What the run began with, and what is asked for now on top of it.
        own = dict(earlier.space.fixed) if earlier.space else {}
        space = with_data_of(replace(space, fixed=own | dict(space.fixed)), earlier)
    return data_settings_of(space)


def options_given(settings: DataConfig) -> dict[str, str]:
    """The settings that say more than the defaults do."""
    values = settings.model_dump(exclude_defaults=True)
    return {name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value) for name, value in values.items()}


def facts_of(images: Images, pixels: "Pixels", pairs: Sequence[Alike], settings: DataConfig, *, name: str, run: str) -> Facts:
    """All that is known of the images, but for how it was asked.

    Args:
        run: what a command is given for the run; NAME where there is none yet.
    """
    from analysis.evaluation.look.labels import grids, joint_facts, number_histograms, size_histograms, target_facts
    from analysis.evaluation.look.oddities import Context, oddities

    joint = joint_facts(images, pixels)
    groups = len(np.unique(images.groups))
    return Facts(
        name=name,
        data="",
        images=len(images),
        groups=groups,
        grouped=groups < len(images),
        read=len(pixels.rows),
        asked=len(pixels.rows) + len(pixels.bad),
        seconds=0.0,
        understood=(*images.read_as, *images.count_lines()),
        targets=tuple(target_facts(images, target, pixels) for target in images.scheme.targets),
        joint=joint,
        absent=images.scheme.of_kind("classes").classes - len(joint) if joint else 0,
        grids=tuple(grids(images)),
        numbers=tuple(number_histograms(images)),
        sizes=tuple(size_histograms(pixels)),
        formats=tuple(Counter(pixels.formats).most_common()),
        alike=tuple(pairs[:KEPT]),
        pairs=len(pairs),
        complete=True,
        findings=oddities(Context(images, pixels, pairs, settings.folds, run)),
    )


def pairs_csv(pairs: Sequence[Alike]) -> bytes:
    """All pairs of images that look the same, those of different labels first."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *map(astuple, pairs)])
    return text.getvalue().encode()


def show(facts: Facts, console: Console) -> None:
    """Print the data in one sentence, then what looks odd."""
    from analysis.pages.look import finding_words, lead

    console.print(Text(lead(facts), style="bold"), soft_wrap=True)
    if facts.asked < facts.images:
        console.print(Text(f"Pixels of {facts.read:,} of {facts.images:,} images were read."), soft_wrap=True)
    for finding in facts.findings:
        console.print(Text(f"- {finding_words(finding)} {finding.command}".rstrip(), style="yellow"), soft_wrap=True)
    if not facts.findings:
        console.print("Nothing looks odd.")
