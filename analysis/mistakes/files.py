"""What the command leaves in runs/<run>/mistakes/; every file is whole or absent."""

from collections.abc import Sequence
from dataclasses import asdict, astuple

import pandas as pd

from analysis.figures.confusion import confusion_figure
from analysis.figures.sheets import Tile, draw_sheet, picture
from analysis.figures.style import INK, PALE, RED, as_png
from analysis.mistakes.find import SHOWN, Answered, Confusion, Disagreement, Error, Mistakes, questions, tag_errors
from analysis.mistakes.page import images_of, page
from analysis.pages.errors import LARGEST, Subgroup, size_words, votes_words
from analysis.pages.heatmaps import NONE, Heats
from analysis.pages.page import PAGE
from trainables.data.images import Images
from trainables.data.targets import Kind
from trainables.progress import progress_bar
from trainables.record import write_json
from trainables.storage import Folder, write_atomically

SHEET = 60  # images on a picture sheet
CONFIDENT = ("photo", "person", "true", "predicted", "probability")  # columns of confident.csv, by the fields of an error
OFF = (*CONFIDENT[:-1], "off")  # the same of numbers


def write_mistakes(folder: Folder, answered: Answered, found: Mistakes, images: Images, ensemble: str, heats: Heats = NONE) -> list[Folder]:
    """Write the page, the tables and the sheets; what an earlier call left and this one does not write is removed. Returns the files.

    Args:
        ensemble: the sha256 of the file of the ensemble that answered; empty where it was none.
        heats: what the page shows beside the images.
    """
    with progress_bar("reading images", min(SHOWN, len(found.errors)) + min(SHOWN, len(found.disagreements))) as progress:
        shown = images_of(found, images, lambda image, about: heats.of(questions(answered, image, about)), progress)
    contents: dict[str, bytes] = {PAGE: page(folder.resolve().parent.name, answered, found, shown, heats.lines)}
    if found.kind == "tags":
        contents["tags.csv"] = _csv(pd.DataFrame([asdict(tag) for tag in tag_errors(found)]))
    for one in found.confusions if found.kind == "classes" else ():
        name = f"confusion-{one.name}" if one.name else "confusion"
        contents |= {f"{name}.csv": _confusion_table(one), f"{name}.png": _confusion_picture(one, answered)}
    contents["groups.csv"] = _subgroups_table(found.subgroups)
    columns = OFF if found.kind == "number" else CONFIDENT
    contents["confident.csv"] = _csv(pd.DataFrame([astuple(error) for error in found.errors], columns=columns))
    if found.errors:
        tiles = [_error_tile(error, images, size_words(found.kind, error.size)) for error in found.errors[:SHEET]]
        words = f"{len(tiles)} of {len(found.errors):,} on {answered.images:,} images"
        contents["confident.png"] = draw_sheet(tiles, f"{answered.part.capitalize()}: {LARGEST[found.kind]}", words)
    if len(answered.members) > 1:
        contents["disagreement.csv"] = _disagreement_table(answered.members, found.disagreements)
    if found.disagreements:
        tiles = [_disagreement_tile(one, images, found.kind) for one in found.disagreements[:SHEET]]
        words = f"{len(tiles)} of {len(found.disagreements):,} images that members answer differently, those furthest apart first"
        contents["disagreement.png"] = draw_sheet(
            tiles, f"{answered.part.capitalize()}: where {len(answered.members)} members disagree", words
        )
    folder.mkdir(parents=True, exist_ok=True)
    for file in list(folder.iterdir()):
        if file.name not in contents and file.name.endswith((".csv", ".png")):
            file.unlink(missing_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    write_json(folder / "mistakes.json", _counts(answered, found) | {"ensemble": ensemble})
    return [*(folder / name for name in contents), folder / "mistakes.json"]


def _counts(answered: Answered, found: Mistakes) -> dict[str, str | int | float]:
    return {
        "kind": found.kind,
        "side": answered.part,
        "images": answered.images,
        "groups": answered.groups,
        "errors": len(found.errors),
        "rate": found.rate,
        "disagreements": len(found.disagreements),
    }


def _confusion_table(one: Confusion) -> bytes:
    names = one.scheme.class_names()
    table = pd.DataFrame(one.counts, columns=names)
    table.insert(0, "true", names)
    return _csv(table)


def _confusion_picture(one: Confusion, answered: Answered) -> bytes:
    words = f"{answered.metric.title} {one.score:.3f}, accuracy {one.accuracy:.3f} · {one.counts.sum():,} images"
    return as_png(confusion_figure(one.counts, one.scheme, f"{answered.part.capitalize()}: {one.name or 'all targets'}", words))


def _subgroups_table(found: Sequence[Subgroup]) -> bytes:
    rows = [
        (one.name, one.images, one.groups, one.errors, one.rate, one.elsewhere, one.rate - one.elsewhere, *(one.interval or (None, None)))
        for one in found
    ]
    return _csv(pd.DataFrame(rows, columns=["group", "photos", "people", "errors", "rate", "elsewhere", "difference", "low", "high"]))


def _disagreement_table(members: Sequence[str], found: Sequence[Disagreement]) -> bytes:
    rows = [(one.image, one.group, one.true, one.divergence, *one.answers) for one in found]
    return _csv(pd.DataFrame(rows, columns=["photo", "person", "true", "divergence", *members]))


def _error_tile(error: Error, images: Images, size: str) -> Tile:
    lines = ((error.true, INK), (f"→ {error.predicted}", RED), (f"{size} · {error.image}", PALE))
    return Tile((picture(images.root / error.image),), lines)


def _disagreement_tile(one: Disagreement, images: Images, kind: Kind) -> Tile:
    answers = tuple((f"→ {votes_words(kind, name, votes)}", INK if name == one.true else RED) for name, votes in one.tally[:3])
    return Tile((picture(images.root / one.image),), ((one.true, INK), *answers, (f"{one.divergence:.2f} · {one.image}", PALE)))


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format="%.6g").encode()
