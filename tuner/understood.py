"""How the data was understood, printed before anything is decoded, and a sheet of examples of each class."""

from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text

from trainables.data.images import TEST, VALID, Images, Unlabelled
from trainables.data.names import shown, some
from trainables.data.splits import PARTS
from trainables.data.view_store import cache_folder
from trainables.data.views import UNREADABLE
from trainables.storage import write_atomically

MOST_CLASSES = 30  # of a target: listed with their counts, and shown on the sheet
EXAMPLES = 5  # images of a class on the sheet
TRIED = 20  # images of a class, of which some may be unreadable


def show_understood(images: Images, unlabelled: Unlabelled | None, console: Console) -> None:
    """Images, targets with the count of every class, groups, the data's own split, and what was not used."""
    groups = len(np.unique(images.groups))
    lines = [f"{len(images):,} images of {groups:,} groups", *(f"  {words}" for words in images.read_as)]
    lines += [f"  {line}" for line in images.count_lines(MOST_CLASSES)]
    if images.given is not None:
        counts = np.bincount(images.given, minlength=len(PARTS)).tolist()
        lacks = [what for part, what in ((VALID, "validation folds cut from train"), (TEST, "hold-out cut from train")) if not counts[part]]
        given = ", ".join(f"{count:,} {name}" for name, count in zip(PARTS, counts, strict=True) if count)
        lines.append(f"  split of the data itself: {'; '.join([given, *lacks])} (to ignore it: --set data/split=none)")
        if not counts[TEST]:
            lines.append("  to use its validation part as the test part: --set data/split=val=test")
    if unlabelled:
        few = some(unlabelled.ids, most=2)
        lines.append(f"  {len(unlabelled.ids):,} images without labels, to predict, in {shown(str(unlabelled.root))}: {few}")
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    for item in images.left_out:
        console.print(Text(f"  left out or noted: {item}", style="yellow"), soft_wrap=True)


def examples_sheet(images: Images, name: str) -> Path | None:
    """A sheet of some images of each class of the first target, at most the rarest; its path in the cache, or None if none can be read.

    Args:
        name: of the data, for the sheet's title.
    """
    from analysis.evaluation.look.labels import kinds_of
    from analysis.figures.sheets import Tile, draw_sheet, picture
    from analysis.figures.style import INK, PALE

    target, tiles = images.scheme.targets[0], []
    kinds = kinds_of(images, target)
    rarest = sorted(range(len(kinds)), key=lambda place: len(kinds[place][1]))[:MOST_CLASSES]
    shown_kinds = [kinds[place] for place in sorted(rarest)]
    for words, rows in shown_kinds:
        pictures: list[tuple[str, Image.Image]] = []
        for row in rows[np.linspace(0, len(rows) - 1, min(TRIED, len(rows))).astype(int)].tolist():
            with suppress(*UNREADABLE):
                pictures.append((images.ids[row], picture(images.root / images.ids[row])))
            if len(pictures) == EXAMPLES:
                break
        lines = f"{shown(words)} ({len(rows):,})"
        tiles += [Tile((seen,), ((lines, INK), (shown(image), PALE))) for image, seen in pictures]
    if not tiles:
        return None
    file = cache_folder() / "examples" / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    fewer = f", the {len(shown_kinds)} rarest" if len(shown_kinds) < len(kinds) else ""
    write_atomically(
        file, draw_sheet(tiles, f"{target.name}: examples of {len(kinds)} classes{fewer}", f"{len(images):,} images of {name}")
    )
    return file
