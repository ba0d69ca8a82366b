"""What a person decides on: the table of label issues, and a page that shows them and writes the accepted corrections."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from analysis.evaluation.label_issues import Findings, Suspect
from analysis.members.trials import Sample
from analysis.pages.heatmaps import Heat
from analysis.pages.page import render, thumbnail
from analysis.pages.tables import percent
from trainables.data.corrections import named_images
from trainables.data.images import Images, LeftOut

SHOWN = 8  # images of one suspect, at most
KINDS = {"person": "whole group", "photo": "one image", "swap": "two images swapped"}
COLUMNS = ("rank", "kind", "photo", "person", "attribute", "given", "suggested", "score")


@dataclass(frozen=True)
class Correction:
    """A row of the table that labels/relabel takes."""

    image: str  # or a group's name, for all images of theirs that were given this value
    target: str
    value: str
    was: str


@dataclass(frozen=True)
class Picture:
    """One image of a suspect."""

    name: str
    short: str  # without the folders
    source: str  # a data URI; empty where the image cannot be opened
    given: str
    suggested: str
    heats: tuple[Heat, ...] = ()


@dataclass(frozen=True)
class Card:
    """One suspect as the page shows it."""

    id: str  # the same for the same corrections, so that decisions stay when the run is searched for issues again
    rank: int
    kind: str  # in words
    group: str
    target: str
    percent: str
    pictures: tuple[Picture, ...]
    more: int  # images that are not shown
    changes: tuple[tuple[str, str], ...]  # given and suggested: one pair, or one for each image of a swap
    corrections: tuple[Correction, ...]


def make_cards(
    suspects: Sequence[Suspect],
    images: Images,
    groups: Mapping[int, str],
    progress: Callable[[int], None] = lambda suspects: None,
    heats: Callable[[str, str, str], tuple[Heat, ...]] = lambda image, target, suggested: (),
) -> tuple[list[Card], tuple[LeftOut, ...]]:
    """The suspects as the page shows them, and the images of theirs that cannot be opened.

    Args:
        images: those of the run that are still there.
        groups: names of the groups (`groups_names`).
        progress: called with 1 for each suspect.
        heats: the heat maps of an image, of its id, the target and the suggested value.
    """
    named, there, gone, cards = named_images(images), set(images.ids), [], []
    for rank, suspect in enumerate(suspects, start=1):
        changes = suspect.changes()
        pictures = []
        for image, given, suggested in changes[:SHOWN]:
            # A name from a run's table is opened only if it is the name of an image of the data.
            source = thumbnail(images.root / image) if image in there else ""
            pictures.append(Picture(image, PurePosixPath(image).name, source, given, suggested, heats(image, suspect.target, suggested)))
            if not source:
                gone.append(image)
        rows = corrections(suspect, groups[suspect.group], images, named)
        text = json.dumps([(row.image, row.target, row.value, row.was) for row in rows])
        cards.append(
            Card(
                id=hashlib.sha256(text.encode()).hexdigest()[:16],
                rank=rank,
                kind=KINDS[suspect.kind],
                group=groups[suspect.group],
                target=suspect.target,
                percent=percent(suspect.score),
                pictures=tuple(pictures),
                more=len(changes) - len(pictures),
                changes=tuple(dict.fromkeys((given, suggested) for _, given, suggested in changes)),
                corrections=rows,
            )
        )
        progress(1)
    left_out = LeftOut("images of label issues are missing or cannot be opened; their place is empty", tuple(dict.fromkeys(gone)))
    return cards, (left_out,) if gone else ()


def corrections(suspect: Suspect, group: str, images: Images, named: Mapping[str, Sequence[int]]) -> tuple[Correction, ...]:
    """The rows that correct a suspect: one for a group whose name means all these images and no others, else one for each image.

    Args:
        group: the name.
        named: what `named_images` finds of the images.
    """
    changes = suspect.changes()
    if suspect.kind == "person":
        column = images.scheme.names.index(suspect.target)
        given = images.scheme.targets[column].values.index(suspect.given)
        meant = {images.ids[index] for index in named.get(group, ()) if images.labels[index, column] == given}
        if meant == set(suspect.images):
            changes = [(group, suspect.given, suspect.suggested)]
    return tuple(Correction(name, suspect.target, suggested, given) for name, given, suggested in changes)


def groups_names(samples: Iterable[Sample], images: Images) -> dict[int, str]:
    """The names of the groups by their number in split.csv: the name in the data, or the number where there is none."""
    numbers = {image: group for sample in samples for image, group in zip(sample.ids, sample.groups.tolist(), strict=True)}
    names = zip(images.ids, images.names, strict=True) if images.names else ()
    return {group: str(group) for group in numbers.values()} | {numbers[image]: name for image, name in names if image in numbers}


def page(run: str, findings: Findings, cards: Sequence[Card], limits: Sequence[str], notes: Sequence[str] = ()) -> bytes:
    """The page; it needs no other file and no network.

    Args:
        limits: sentences on what was not looked at.
        notes: sentences on the heat maps.
    """
    data = {"run": run, "cards": {card.id: [[row.image, row.target, row.value, row.was] for row in card.corrections] for card in cards}}
    return render("suspects/page.html.jinja", run=run, findings=findings, cards=cards, limits=limits, notes=notes, data=data)


def suspects_csv(suspects: Sequence[Suspect], groups: Mapping[int, str]) -> bytes:
    """All suspects: one row for each image, those of one suspect with one rank."""
    rows = [
        (rank, suspect.kind, image, groups[suspect.group], suspect.target, given, suggested, f"{suspect.score:.6g}")
        for rank, suspect in enumerate(suspects, start=1)
        for image, given, suggested in suspect.changes()
    ]
    return _csv(COLUMNS, rows)


def unevaluated_csv(unevaluated: Mapping[int, str], groups: Mapping[int, str]) -> bytes:
    """The groups that no model predicted, and their part of the split."""
    return _csv(("person", "part"), [(groups[group], part) for group, part in unevaluated.items()])


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode()
