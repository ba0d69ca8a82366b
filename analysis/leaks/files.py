"""What the command leaves in runs/<run>/leaks/; every file is complete or absent."""

from dataclasses import astuple
from typing import Any

import pandas as pd

from analysis.figures.sheets import Tile, draw_sheet, picture
from analysis.figures.style import INK, PALE, RED
from analysis.leaks.find import Leaks, Pair, meaning
from trainables.data.images import Images
from trainables.record import write_json
from trainables.storage import Folder, write_atomically

SHEET = 30  # pairs that are drawn
# A pair's fields by their columns in pairs.csv, and the names in leaks.json, which stay what they were.
COLUMNS = ("photo", "person", "side", "label", "other_photo", "other_person", "other_side", "other_label", "phash", "dhash", "identical")


def write(folder: Folder, found: Leaks, images: Images, settings: dict[str, Any]) -> list[Folder]:
    """Write the pairs as a table and, where there are any, as a sheet, and the figures. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([(*astuple(pair), pair.across) for pair in found.pairs], columns=[*COLUMNS, "across"])
    write_atomically(folder / "pairs.csv", table.to_csv(index=False).encode())
    one = found.probe
    probe = one and {"metric": one.metric, "by_photo": one.by_image, "by_person": one.by_group, "gap": one.gap}
    write_json(
        folder / "leaks.json",
        {
            "settings": settings,
            "photos": found.images,
            "people": found.groups,
            "holdout": found.holdout,
            "identical": found.identical,
            "across": found.across,
            "remembered": found.remembered,
            "complete": found.complete,
            "pairs": len(found.pairs),
            "split_people": list(found.split_groups),
            "probe": probe,
            "meaning": [{"words": words, "warning": style is not None} for words, style in meaning(found, settings["distance"])],
        },
    )
    sheet = folder / "pairs.png"
    if not found.pairs:
        sheet.unlink(missing_ok=True)
        return [folder / "pairs.csv", folder / "leaks.json"]
    words = (
        f"{min(SHEET, len(found.pairs))} of {len(found.pairs):,} pairs, those across splits first; bits of 64 that differ in the two hashes"
    )
    write_atomically(
        sheet, draw_sheet([_tile(pair, images) for pair in found.pairs[:SHEET]], "Images of two groups that look the same", words)
    )
    return [folder / "pairs.csv", sheet, folder / "leaks.json"]


def _tile(pair: Pair, images: Images) -> Tile:
    alike = "the same file" if pair.identical else f"{pair.phash} + {pair.dhash} bits"
    return Tile(
        (picture(images.root / pair.image), picture(images.root / pair.other_image)),
        (
            (f"{pair.part} / {pair.other_part}: {alike}", RED if pair.across else INK),
            (pair.label, INK),
            (pair.other_label, INK if pair.label == pair.other_label else RED),
            (pair.image, PALE),
            (pair.other_image, PALE),
        ),
    )
