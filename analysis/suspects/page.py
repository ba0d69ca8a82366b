"""What is left for a person to decide on: the table of suspects, and a page that shows them and writes the accepted corrections."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from analysis.members.trials import Sample
from analysis.pages.page import render, thumbnail
from analysis.pages.tables import percent
from analysis.suspects.find import Findings, Suspect
from trainables.data.corrections import named_photos
from trainables.data.photos import LeftOut, Photos

SHOWN = 8  # photos of one suspect, at most
KINDS = {"person": "whole group", "photo": "one image", "swap": "two images swapped"}
COLUMNS = ("rank", "kind", "photo", "person", "attribute", "given", "suggested", "score")


@dataclass(frozen=True)
class Correction:
    """A row of the table that labels/relabel takes."""

    photo: str  # or a person's name, for all photos of theirs that were given this value
    attribute: str
    value: str
    was: str


@dataclass(frozen=True)
class Picture:
    """One photo of a suspect."""

    name: str
    short: str  # without the folders
    source: str  # a data URI; empty where the photo cannot be opened
    given: str
    suggested: str


@dataclass(frozen=True)
class Card:
    """One suspect as the page shows it."""

    id: str  # the same for the same corrections, so that decisions outlive another look at the run
    rank: int
    kind: str  # in words
    person: str
    attribute: str
    percent: str
    pictures: tuple[Picture, ...]
    more: int  # photos that are not shown
    changes: tuple[tuple[str, str], ...]  # given and suggested: one pair, or one for each photo of a swap
    corrections: tuple[Correction, ...]


def make_cards(
    suspects: Sequence[Suspect], photos: Photos, people: Mapping[int, str], progress: Callable[[int], None] = lambda suspects: None
) -> tuple[list[Card], tuple[LeftOut, ...]]:
    """The suspects as the page shows them, and the photos of theirs that cannot be opened.

    Args:
        photos: those of the run that are still there.
        people: what `people_names` calls everybody.
        progress: called with 1 for each suspect.
    """
    named, there, gone, cards = named_photos(photos), set(photos.ids), [], []
    for rank, suspect in enumerate(suspects, start=1):
        changes = suspect.changes()
        pictures = []
        for photo, given, suggested in changes[:SHOWN]:
            # A name from a run's table is opened only if it is the name of a photo of the data.
            source = thumbnail(photos.root / photo) if photo in there else ""
            pictures.append(Picture(photo, PurePosixPath(photo).name, source, given, suggested))
            if not source:
                gone.append(photo)
        rows = corrections(suspect, people[suspect.person], photos, named)
        text = json.dumps([(row.photo, row.attribute, row.value, row.was) for row in rows])
        cards.append(
            Card(
                id=hashlib.sha256(text.encode()).hexdigest()[:16],
                rank=rank,
                kind=KINDS[suspect.kind],
                person=people[suspect.person],
                attribute=suspect.attribute,
                percent=percent(suspect.score),
                pictures=tuple(pictures),
                more=len(changes) - len(pictures),
                changes=tuple(dict.fromkeys((given, suggested) for _, given, suggested in changes)),
                corrections=rows,
            )
        )
        progress(1)
    left_out = LeftOut("photos of suspects are gone or cannot be opened; their place is empty", tuple(dict.fromkeys(gone)))
    return cards, (left_out,) if gone else ()


def corrections(suspect: Suspect, person: str, photos: Photos, named: Mapping[str, Sequence[int]]) -> tuple[Correction, ...]:
    """The rows that correct a suspect: one for a person whose name means all these photos and no others, else one for each photo.

    Args:
        person: the name.
        named: what `named_photos` finds of the photos.
    """
    changes = suspect.changes()
    if suspect.kind == "person":
        column = photos.scheme.names.index(suspect.attribute)
        given = photos.scheme.attributes[column].values.index(suspect.given)
        meant = {photos.ids[index] for index in named.get(person, ()) if photos.labels[index, column] == given}
        if meant == set(suspect.photos):
            changes = [(person, suspect.given, suspect.suggested)]
    return tuple(Correction(name, suspect.attribute, suggested, given) for name, given, suggested in changes)


def people_names(samples: Iterable[Sample], photos: Photos) -> dict[int, str]:
    """What everybody is called, by their number in split.csv: their name in the data, or the number where they have none."""
    numbers = {photo: person for sample in samples for photo, person in zip(sample.ids, sample.people.tolist(), strict=True)}
    names = zip(photos.ids, photos.names, strict=True) if photos.names else ()
    return {person: str(person) for person in numbers.values()} | {numbers[photo]: name for photo, name in names if photo in numbers}


def page(run: str, findings: Findings, cards: Sequence[Card], limits: Sequence[str]) -> bytes:
    """The page, whole: no file and no network beside it.

    Args:
        limits: sentences on what was not looked at.
    """
    data = {"run": run, "cards": {card.id: [[row.photo, row.attribute, row.value, row.was] for row in card.corrections] for card in cards}}
    return render("suspects/page.html.jinja", run=run, findings=findings, cards=cards, limits=limits, data=data)


def suspects_csv(suspects: Sequence[Suspect], people: Mapping[int, str]) -> bytes:
    """All suspects: one row for each photo, those of one suspect with one rank."""
    rows = [
        (rank, suspect.kind, photo, people[suspect.person], suspect.attribute, given, suggested, f"{suspect.score:.6g}")
        for rank, suspect in enumerate(suspects, start=1)
        for photo, given, suggested in suspect.changes()
    ]
    return _csv(COLUMNS, rows)


def unjudged_csv(unjudged: Mapping[int, str], people: Mapping[int, str]) -> bytes:
    """The people whom no model predicted, and their side of the split."""
    return _csv(("person", "part"), [(people[person], side) for person, side in unjudged.items()])


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode()
