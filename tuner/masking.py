"""Faces with drawn masks, as a table that `data/extra` takes: choose the images, find the faces, draw, write a table of labels."""

import csv
import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from trainables.ahead import ahead
from trainables.console import document
from trainables.data.decoding import UNREADABLE, read_image
from trainables.data.drawn_masks import draw_mask
from trainables.data.faces import find_points, one_thread_each
from trainables.data.images import Images, LeftOut
from trainables.data.layouts.labelling import GROUP
from trainables.data.layouts.reading import read_images
from trainables.data.names import some
from trainables.data.settings import DataConfig
from trainables.devices import cores_here
from trainables.progress import progress_bar, waiting
from trainables.record import RunError
from trainables.restore_data import read_held_out
from trainables.seeding import generator
from tuner.cli import Options
from tuner.looking import data_settings
from tuner.prepare import data_folder
from tuner.runs import open_earlier

TABLE = "labels.csv"
QUALITY = 95  # of the JPEG files
NO_FACE = "images without a detected face, left out"

FindPoints = Callable[[Image.Image], np.ndarray | None]


@dataclass(frozen=True)
class Wish:
    """Which masks are drawn on which images."""

    target: str
    before: str  # the class of the images that are chosen
    after: str  # the class that they get
    nose_free: bool
    most: int | None  # images


def draw_masks(options: Options, wish: Wish, out: str, console: Console, find: FindPoints = find_points) -> int:
    """Read, draw, write; the exit code. Raises: SpaceError, DataError, RunError for what the user can fix."""
    folder = Path(out)
    if folder.exists():
        raise RunError(f"--out {folder} exists already; name a folder that does not, or remove it")
    earlier = open_earlier(options.resume) if options.resume else None
    settings = data_settings(options, earlier)
    source = data_folder(options, earlier, console)
    with waiting("reading labels"):
        images = read_images(source, settings)
    rows = chosen(images, wish, read_held_out(earlier.run) if earlier else frozenset(), options.seed or 0)
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=f".{folder.name}.") as beside:
        new = Path(beside, "new")
        with progress_bar("finding faces, drawing masks", len(rows)) as progress:
            drawn, left_out = _write(images, rows, wish, new, options.seed or 0, find, progress)
        for item in left_out:
            console.print(f"  left out: {item}", style="yellow", markup=False, soft_wrap=True)
        if len(drawn):
            (new / TABLE).write_bytes(table_of(images, drawn, wish, settings))
            shutil.move(new, folder)
    words = f"{wish.target}: {wish.before} -> {wish.after}"
    console.print(f"{len(drawn)} of {len(rows)} images have a drawn mask ({words})", markup=False, soft_wrap=True)
    if len(drawn):
        console.print(f"Written: {folder / TABLE}. Train on them too: --set 'data/extra=[{folder / TABLE}]'", markup=False, soft_wrap=True)
    named = {item.reason: item.names for item in left_out}
    document({"images": len(rows), "drawn": len(drawn), "left_out": named, "table": folder / TABLE if len(drawn) else None})
    return 0 if len(drawn) else 1


def chosen(images: Images, wish: Wish, left_out: frozenset[str], seed: int) -> np.ndarray:
    """Positions of the images to draw on. Raises: RunError naming everything that does not fit the data."""
    classes = images.scheme.of_kind("classes")
    target = next((one for one in classes.targets if one.name == wish.target), None)
    if target is None:
        there = some(classes.names) if classes.names else "none"
        raise RunError(f"--target {wish.target} is no target of classes of these images; there are: {there}")
    given = {"--from": wish.before, "--to": wish.after}
    known = ", ".join(target.values)
    mistakes = [
        f"{option} {value} is no class of {target.name}; choose one of {known}"
        for option, value in given.items()
        if value not in target.values
    ]
    if target.cuts:
        mistakes.append(f"--target {target.name} is cut from a number, which no mask changes; name another")
    if wish.before == wish.after:
        mistakes.append(f"--from and --to are both {wish.after}; the mask must change the class, so name two")
    if mistakes:
        raise RunError("\n".join(mistakes))
    own = images.labels[:, classes.names.index(target.name)] == target.values.index(wish.before)
    rows = np.flatnonzero(own & np.array([name not in left_out for name in images.ids]))
    if not len(rows):
        raise RunError(f"no image has {target.name} {wish.before}{' outside the hold-out' if left_out else ''}; choose another --from")
    if wish.most and wish.most < len(rows):
        rows = np.sort(generator(seed, "drawn masks").choice(rows, size=wish.most, replace=False))
    return rows


def table_of(images: Images, rows: np.ndarray, wish: Wish, settings: DataConfig) -> bytes:
    """A table that `data/extra` reads: the drawn images, their labels, and the groups of those that they were made of."""
    kept = images.take(rows)
    names = kept.names or kept.ids
    columns: dict[str, list[str]] = {"image": [made_of(name) for name in kept.ids]}
    for target in images.scheme.targets:
        own = kept.truth(images.scheme.part((target.name,)))
        if target.name == wish.target:
            columns[target.name] = [wish.after] * len(rows)
        elif target.kind == "tags" and len(settings.tags) > 1:
            columns |= {value: [str(int(there)) for there in own[:, place]] for place, value in enumerate(target.values)}
        elif target.kind == "tags":
            columns[target.name] = [
                "|".join(value for value, there in zip(target.values, row, strict=True) if there) for row in own.tolist()
            ]
        elif target.kind == "number" or (target.cuts and kept.numbers is not None):
            columns[target.name] = [f"{number:g}" for number in (own if kept.numbers is None else kept.numbers).tolist()]
        else:
            columns[target.name] = [target.values[value] for value in own.tolist()]
    columns[settings.group or GROUP] = list(names)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([list(columns), *zip(*columns.values(), strict=True)])
    return text.getvalue().encode()


def made_of(name: str) -> str:
    """The file of the image that is made of another, below the folder of the table."""
    return f"images/{name}.masked.jpg"


def _write(
    images: Images, rows: np.ndarray, wish: Wish, new: Path, seed: int, find: FindPoints, progress: Callable[[int], None]
) -> tuple[np.ndarray, list[LeftOut]]:
    """The positions of the images of which one was made, and those that were left out."""

    def make(index: int) -> str | None:
        """Why there is none."""
        name = images.ids[rows[index]]
        try:
            image = read_image(images.root / name)
        except UNREADABLE as error:
            return f"{name} ({error})"
        points = find(image)
        if points is None:
            return NO_FACE
        file = new / made_of(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        draw_mask(image, points, generator(seed, "drawn mask", name), nose_free=wish.nose_free).save(file, quality=QUALITY)
        return None

    found = []
    with one_thread_each():
        for why in ahead(make, len(rows), cores_here()):
            found.append(why)
            progress(1)
    faceless = tuple(images.ids[row] for row, why in zip(rows.tolist(), found, strict=True) if why == NO_FACE)
    unreadable = tuple(why for why in found if why and why != NO_FACE)
    left_out = [LeftOut(NO_FACE, faceless), LeftOut("images cannot be decoded", unreadable)]
    return rows[[why is None for why in found]], [item for item in left_out if item.names]
