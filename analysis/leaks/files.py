"""What the command leaves in runs/<run>/leaks/; every file is whole or absent."""

from dataclasses import asdict
from typing import Any

import pandas as pd

from analysis.figures.sheets import Tile, draw_sheet, picture
from analysis.figures.style import INK, PALE, RED
from analysis.leaks.find import Leaks, Pair, meaning
from trainables.data.photos import Photos
from trainables.record import write_json
from trainables.storage import Folder, write_whole

SHEET = 30  # pairs that are drawn


def write(folder: Folder, found: Leaks, photos: Photos, settings: dict[str, Any]) -> list[Folder]:
    """Write the pairs as a table and, where there are any, as a sheet, and the figures. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([asdict(pair) | {"across": pair.across} for pair in found.pairs], columns=[*Pair.__dataclass_fields__, "across"])
    write_whole(folder / "pairs.csv", table.to_csv(index=False).encode())
    figures = {name: getattr(found, name) for name in ("photos", "people", "holdout", "identical", "across", "remembered", "complete")}
    probe = found.probe and asdict(found.probe) | {"gap": found.probe.gap}
    write_json(
        folder / "leaks.json",
        {
            "settings": settings,
            **figures,
            "pairs": len(found.pairs),
            "split_people": list(found.split_people),
            "probe": probe,
            "meaning": [{"words": words, "warning": style is not None} for words, style in meaning(found, settings["distance"])],
        },
    )
    sheet = folder / "pairs.png"
    if not found.pairs:
        sheet.unlink(missing_ok=True)
        return [folder / "pairs.csv", folder / "leaks.json"]
    words = (
        f"{min(SHEET, len(found.pairs))} of {len(found.pairs):,} pairs, those across sides first; bits of 64 that differ in the two hashes"
    )
    write_whole(sheet, draw_sheet([_tile(pair, photos) for pair in found.pairs[:SHEET]], "Photos of two people that look the same", words))
    return [folder / "pairs.csv", sheet, folder / "leaks.json"]


def _tile(pair: Pair, photos: Photos) -> Tile:
    alike = "the same file" if pair.identical else f"{pair.phash} + {pair.dhash} bits"
    return Tile(
        (picture(photos.root / pair.photo), picture(photos.root / pair.other_photo)),
        (
            (f"{pair.side} / {pair.other_side}: {alike}", RED if pair.across else INK),
            (pair.label, INK),
            (pair.other_label, INK if pair.label == pair.other_label else RED),
            (pair.photo, PALE),
            (pair.other_photo, PALE),
        ),
    )
