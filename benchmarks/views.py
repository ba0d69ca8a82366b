"""What decoded images cost: decoding all, finding them again, one image less or more, and batches per second beside one plain array.

A store holds the images of many data sets, and an image's row is looked up by its content. Neither may cost a batch anything: the
ratio to gathering rows of one array file of the same images, the fastest there is, is to stay near 1. The two take turns, so a machine
that drifts drifts for both.

    uv run python -m benchmarks.views [--images 2000] [--size 224] [--batch-size 64] [--rounds 5]
"""

import json
import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from rich.table import Table

from trainables.console import open_console
from trainables.data.images import Unlabelled
from trainables.data.views import View, build_views, open_view


def main(
    images: Annotated[int, typer.Option(min=2, help="Images, JPEG files of 400 x 300 pixels.")] = 2000,
    size: Annotated[int, typer.Option(min=8, help="Pixels of a view's side.")] = 224,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Passes over all images.")] = 5,
) -> None:
    """Draw images, decode them, and time what a run asks of them."""
    with tempfile.TemporaryDirectory() as folder:
        found = draw(Path(folder) / "images", images + 1)
        figures = measure(found, View("none", 1.0, size, size), Path(folder), batch_size, rounds)
    table = Table("what", "figure")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3f}" if value < 100 else f"{value:,.0f}")
    open_console().print(table)
    settings = {"images": images, "size": size, "batch_size": batch_size, "cores": os.cpu_count(), "machine": platform.machine()}
    print(json.dumps(settings | {name: round(value, 4) for name, value in figures.items()}))


def draw(folder: Path, count: int) -> Unlabelled:
    """Soft spots of colour, which take a decoder about as long as photographs do."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = tuple(f"{number}.jpg" for number in range(count))
    for name in names:
        spots = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        spots.resize((400, 300), Image.Resampling.BICUBIC).save(folder / name, quality=90)
    return Unlabelled(folder, names)


def measure(found: Unlabelled, view: View, folder: Path, batch_size: int, rounds: int) -> dict[str, float]:
    """Seconds of each step, and batches per second."""
    cache, fewer = folder / "cache", replace(found, ids=found.ids[:-1])

    def build(images: Unlabelled) -> float:
        return seconds(lambda: build_views(images, [view], cache))

    figures = {"decode all, s": build(fewer), "find all again, s": build(fewer)}
    figures["one image less, s"] = build(replace(fewer, ids=fewer.ids[1:]))
    figures["one image more, s"] = build(found)
    file = build_views(fewer, [view], cache).files[view]
    seen = open_view(file)
    rows = seen.rows(fewer.ids)
    figures["open and look up rows, s"] = seconds(lambda: open_view(file).rows(fewer.ids))
    np.save(folder / "plain.npy", seen.images[rows])
    plain, everything = np.load(folder / "plain.npy", mmap_mode="r"), np.arange(len(rows))
    rates: dict[str, list[float]] = {"store": [], "plain array": []}
    for turn in range(rounds + 1):
        order = np.random.default_rng(turn).permutation(len(rows))
        rates["store"].append(batches_per_second(seen.images, rows[order], batch_size))
        rates["plain array"].append(batches_per_second(plain, everything[order], batch_size))
    # The first pass brings the pages into memory.
    figures |= {f"batches/s of the {name}": median(values[1:]) for name, values in rates.items()}
    ratios = [store / array for store, array in zip(*(values[1:] for values in rates.values()), strict=True)]
    return figures | {"ratio": median(ratios)}


def batches_per_second(images: np.ndarray, rows: np.ndarray, batch_size: int) -> float:
    starts = range(0, len(rows), batch_size)
    return len(starts) / seconds(lambda: [images[rows[start : start + batch_size]].shape for start in starts])


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
