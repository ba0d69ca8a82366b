"""The command: leaks between the splits of a run, and by how much a split by image would be optimistic."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from analysis.command import RunOption, decode, read_runs, refusals, show_written, table, warn
from analysis.leaks.find import Leaks, clearest_view, features, find_pairs, meaning, nearest_neighbour, pairs_words, split_groups
from analysis.members.predictions import data_folder
from trainables.commands import program
from trainables.console import document, output
from trainables.data.copies import DISTANCE, fingerprints
from trainables.data.layouts.reading import read_images
from trainables.data.names import some
from trainables.data.splits import HOLDOUT, NO_FOLD
from trainables.data.views import open_view
from trainables.metrics import METRICS, of_labels
from trainables.options import AsJson, TrustCode
from trainables.progress import progress_bar, waiting
from trainables.record import read_json
from trainables.restore_data import restore_split

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
HEAD = 8  # pairs that are printed


@app.command()
def main(
    run: RunOption = None,
    distance: Annotated[
        int, typer.Option(min=0, max=16, help="How many of 64 bits may differ in each of the two hashes of a pair.")
    ] = DISTANCE,
    seed: Annotated[int, typer.Option(min=0, help="Draws the folds of the probe.")] = 0,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Find leaks: images and groups that are in two splits of a run (train, validation, test).

        python -m analysis.leaks --run faces

    Images of different groups are compared by two perceptual hashes; those that look the same in both are listed, those across splits
    first: they are one group under two names, or one file under two. Images of one group are no finding: one split holds them all.

    A probe then measures the optimistic bias of a split by image: a nearest neighbour is cross-validated by image and by group.

    Everything lands in runs/<first run>/leaks/: pairs.csv, pairs.png and leaks.json. Findings are no failure of the command.
    """
    with refusals():
        leaks(run, distance=distance, seed=seed)


def leaks(names: Sequence[str] | None, *, distance: int, seed: int) -> None:
    """Load, compare, print, write. Raises: RunError, DataError, ConfigError, StorageError."""
    console = output()
    runs = read_runs(names)
    images = read_images(data_folder(runs), runs.trials[0].record.config.data)
    view = clearest_view(runs)
    files = decode(images, [view])
    images, split = restore_split(runs.folders[0], runs.cards[0], images.without(files.bad), files.digests, NO_FOLD)
    if files.bad:
        warn(console, f"{len(files.bad)} images cannot be decoded and are not compared: {some(list(files.bad))}")
    seen = open_view(files.files[view])
    with progress_bar("hashing images", len(images)) as progress:
        prints = fingerprints(seen.images, seen.rows(images.ids), progress)
    digests = np.array([files.digests[name] for name in images.ids])
    pairs, complete = find_pairs(images, split.part, prints, digests, distance)
    searched = np.flatnonzero(split.part != HOLDOUT)
    probe = None
    if runs.scheme.kind == "classes":
        with waiting("cross-validating the probe by image and by group"):
            probed = images.take(searched)
            probe = nearest_neighbour(features(seen.images, seen.rows(probed.ids)), probed, of_labels(runs.metric), seed)
    found = Leaks(
        images=len(images),
        groups=len(np.unique(images.groups)),
        holdout=len(split.holdout),
        split_groups=split_groups(images, split.part),
        pairs=pairs,
        complete=complete,
        probe=probe,
    )
    show(console, found, distance)
    with waiting("drawing"):
        from analysis.leaks.files import write

        written = write(runs.folders[0] / "leaks", found, images, {"distance": distance, "seed": seed, "view": str(view)})
    show_written(console, written)
    document({**read_json(runs.folders[0] / "leaks" / "leaks.json", "leaks"), "files": written})


def show(console: Console, found: Leaks, distance: int) -> None:
    """Print what was looked for, what was found and what that means."""
    more = "" if found.complete else "more than "
    rows = [
        ("groups in two splits", f"{len(found.split_groups):,}", f"{found.groups:,} groups"),
        ("the same file under two groups", pairs_words(found.identical), f"{found.images:,} images"),
        ("near-duplicates of two groups", more + pairs_words(len(found.pairs)), f"{found.images:,} images"),
        ("... of these across splits", pairs_words(found.across), ""),
        ("held-out images like one that may train", f"{found.remembered:,}", f"{found.holdout:,} images"),
    ]
    if found.probe:
        title = METRICS[found.probe.metric].title
        rows.append((f"{title} of the probe, split by image", f"{found.probe.by_image:.3f}", ""))
        rows.append((f"{title} of the probe, split by group", f"{found.probe.by_group:.3f}", ""))
    console.print(table("Leaks", ("looked for",), ("found", "of"), rows))
    if found.pairs:
        pairs = [
            (*(one.image, one.part, one.label, one.other_image, one.other_part, one.other_label), one.bits) for one in found.pairs[:HEAD]
        ]
        head = ("image", "split", "class", "other image", "split", "class")
        console.print(table("Near-duplicates, those across splits first", head, ("bits",), pairs))
    for line, style in meaning(found, distance):
        console.print(line, style=style, soft_wrap=True)


if __name__ == "__main__":
    app(prog_name=program("analysis.leaks"))
