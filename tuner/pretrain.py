"""`python -m tuner.pretrain --backbone vit_tiny_patch16_224 --data photos`: a backbone learns from photos without their labels."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from trainables.console import complain, output
from trainables.data.settings import DataConfig
from trainables.registry import ConfigError
from trainables.storage import write_whole

# torch and timm take seconds, and --help needs neither.
if TYPE_CHECKING:
    from trainables.data.views import View, ViewFile
    from trainables.pretraining import Pretraining


def main(
    backbone: Annotated[str, typer.Option(help="Any timm network; ViTs learn the most from it.")],
    data: Annotated[
        Path | None, typer.Option(help="Photos, as tuner.run takes them; their labels are not used. Default: drawn people, for a demo.")
    ] = None,
    size: Annotated[int, typer.Option(min=16, help="Pixels of a side, best those of the search.")] = 64,
    epochs: Annotated[int, typer.Option(min=1, help="Times that every photo is shown.")] = 50,
    batch_size: Annotated[int, typer.Option(min=2, help="Photos of a batch.")] = 64,
    lr: Annotated[float, typer.Option(help="Peak of the learning rate.")] = 1e-3,
    hide: Annotated[float, typer.Option(min=0.05, max=0.95, help="Share of each photo that is hidden.")] = 0.6,
    weights: Annotated[str, typer.Option(help="To begin with: imagenet, none, or a file.")] = "none",
    seed: Annotated[int, typer.Option(min=0, help="Of the hold-out and of everything random; give that of the search.")] = 0,
    holdout: Annotated[
        float, typer.Option(min=0.01, max=0.49, help="data/holdout of the search: the share of people left out here too.")
    ] = 0.15,
    out: Annotated[Path | None, typer.Option(help="The weights file. Default: weights/<backbone>-pretrained.safetensors.")] = None,
) -> None:
    """Train a backbone on photos without labels, and write weights for a search to begin with.

    Parts of every photo are hidden and the network learns to paint them (masked image modelling). The people that a search with this
    seed holds out are left out here too, so that the score on them stays honest; photos to predict (eval/) take part. The file is
    written after every epoch: Ctrl-C keeps what was learned.

        python -m tuner.pretrain --backbone vit_tiny_patch16_224 --data photos --size 224
        python -m tuner.run --space vit.yaml --data photos --set model/weights=weights/vit_tiny_patch16_224-pretrained.safetensors
    """
    console = output()
    from trainables.data.photos import DataError, PhotoError
    from trainables.loop import DivergedError
    from trainables.pretraining import Pretraining
    from trainables.storage import StorageError

    out = out or Path("weights") / f"{backbone}-pretrained.safetensors"
    try:
        if lr <= 0:
            raise DataError(f"--lr is {lr}; give a number above 0")
        if out.suffix != ".safetensors":
            raise DataError(f"--out {out}: weights are kept as safetensors; let the name end so")
        settings = Pretraining(backbone, weights, epochs, batch_size, lr, hide=hide, seed=seed)
        run(settings, size, data, holdout, out, console)
    except (ConfigError, DataError, PhotoError, DivergedError, StorageError) as error:
        complain(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        console.print(f"Stopped by Ctrl-C. {f'{out} holds the last whole epoch' if out.is_file() else 'Nothing was written'}.")
        sys.exit(130)


def run(settings: "Pretraining", size: int, data: Path | None, holdout: float, out: Path, console: Console) -> None:
    """Read, decode, pre-train, write."""
    import torch
    from safetensors.torch import save

    from trainables.data.batches import rows_of
    from trainables.data.views import View, ViewConfig, open_view
    from trainables.models.backbone import check_backbone
    from trainables.pretraining import batches_to_paint, build_painter, photos_to_paint, pretrain
    from tuner.prepare import demo_people

    check_backbone(settings.backbone)
    painter = build_painter(settings, (size, size))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    view = View.of(ViewConfig(size=size))
    found = list(_sources(data or demo_people(console), view, holdout, settings.seed, console))
    photos = photos_to_paint([names for names, _ in found])
    views = [open_view(file) for _, file in found]
    threads = 4 if device.type == "cuda" else 0
    batches = batches_to_paint(settings, [seen.images for seen in views], rows_of(photos, views), photos, threads)
    plan = f"{len(photos)} photos at {view} pixels, {settings.epochs} epochs of {len(batches)} batches, on {device}"
    console.print(Text.assemble((settings.backbone, "bold"), f": {plan}"))
    out.parent.mkdir(parents=True, exist_ok=True)
    first = None
    for epoch in pretrain(painter, settings, batches, device):
        first = first or epoch.loss
        state = {name: value.detach().cpu().contiguous() for name, value in painter.backbone.state_dict().items()}
        write_whole(out, save(state, metadata={"pretraining": json.dumps(asdict(settings) | {"epoch": epoch.epoch})}))
        speed = f"{epoch.photos / epoch.seconds:,.0f} photos/s"
        console.print(f"epoch {epoch.epoch} of {settings.epochs}: error of hidden pixels {epoch.loss:.4f}, {speed}", highlight=False)
    console.print(
        f"Hidden pixels are painted with an error of {epoch.loss:.4f} after {settings.epochs} epochs, {first:.4f} after the first."
    )
    use = f"--set model/backbone={settings.backbone} --set model/weights={out}"
    console.print(Text.assemble("Weights: ", (str(out), "bold"), f". Use them: {use}"), soft_wrap=True)


def _sources(folder: Path, view: "View", holdout: float, seed: int, console: Console) -> "Iterator[tuple[Sequence[str], ViewFile]]":
    """Names and view of the photos that may be learned from: all but the hold-out, then those to predict."""
    import numpy as np

    from trainables.data.layouts.reading import read_photos, read_unlabelled
    from trainables.data.splits import split_people
    from trainables.data.view_store import view_cache
    from trainables.data.views import build_views, count_missing
    from trainables.progress import progress_bar
    from tuner.prepare import decode

    # Who is held out does not depend on the number of folds; two ask for the fewest people.
    sides = DataConfig(holdout=holdout, folds=2)
    photos, files = decode(read_photos(folder, sides), [view], True, console)
    split = split_people(photos, sides, seed)
    used = photos.take(np.concatenate([split.train, split.valid]))
    console.print(f"{len(used)} photos to learn from; {len(split.holdout)} of the people held out with --seed {seed} are left out")
    yield used.ids, files.files[view]
    unlabelled = read_unlabelled(folder)
    if unlabelled is not None:
        with progress_bar("decoding photos to predict", count_missing(unlabelled, [view], view_cache())) as advance:
            built = build_views(unlabelled, [view], view_cache(), advance)
        yield [name for name in unlabelled.ids if name not in built.bad], built.files[view]


if __name__ == "__main__":
    typer.run(main)
