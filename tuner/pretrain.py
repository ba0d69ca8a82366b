"""`python -m tuner.pretrain --backbone vit_tiny_patch16_224 --data photos`: a backbone learns from images without their labels."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from search_spaces.errors import UserError
from trainables.commands import launch
from trainables.console import complain, document, output
from trainables.devices import device_here
from trainables.options import AsJson, TrustCode
from trainables.registry import ConfigError, Mistake
from trainables.storage import write_atomically

# torch and timm take seconds, and --help needs neither.
if TYPE_CHECKING:
    from search_spaces.schema import Space
    from trainables.data.training import ChannelStatistics
    from trainables.data.views import View, ViewFile
    from trainables.pretraining import Pretraining
    from tuner.runs import Earlier

# The settings that pre-training shares with a search: the hold-out, and how images reach the network.
SHARED = ("data/", "view/", "normalize")
# Without a run there is no space either; these are required in each, and pre-training has a learning rate and weights of its own.
NO_SPACE = "model: {{backbone: {backbone}, weights: none}}\noptimizer: {{lr: 0.001}}\n"


def main(
    backbone: Annotated[str, typer.Option(help="Any timm network; ViTs learn the most from it.")],
    run: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take the split, images, view and normalisation of this run. Default: none.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Images, as for tuner.run; their labels are not used. Default: those of --run, or the demo's images."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change data/..., view/... or normalize; use the search's values. Repeatable."),
    ] = None,
    size: Annotated[int | None, typer.Option(min=16, help="Height and width in pixels; short for --set view/size=SIZE.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over all images.")] = 50,
    batch_size: Annotated[int, typer.Option(min=2, help="Images per batch.")] = 64,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    hide: Annotated[float, typer.Option(min=0.05, max=0.95, help="Share of each image that is masked.")] = 0.6,
    weights: Annotated[str, typer.Option(help="Initial weights: imagenet, none, or a file.")] = "none",
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of the hold-out and of everything random; use the search's. Default: that of --run, or 0."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The weights file. Default: weights/<backbone>-pretrained.safetensors.")] = None,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Train a backbone on images without labels, and write weights with which a search can start.

    Parts of every image are masked and the network learns to reconstruct them (masked image modelling). The hold-out groups are not
    used, so the score on them stays unbiased: give --run the run whose split it is, or the same --set data/... and --seed as the
    search will have. Images of the validation groups are used without their labels, and so are images to predict (eval/), but no
    copy of a hold-out image. The weights file names the split, view and normalisation it was made with. It is written after every
    epoch: Ctrl-C keeps what was learned.

        python -m tuner.pretrain --backbone vit_tiny_patch16_224 --data photos --size 224
        python -m tuner.run --space vit.yaml --data photos --set model/weights=weights/vit_tiny_patch16_224-pretrained.safetensors
        python -m tuner.pretrain --backbone resnet18 --run faces-1
    """
    console = output()
    from trainables.data.images import DataError
    from trainables.loop import DivergedError
    from trainables.pretraining import Pretraining
    from tuner.runs import open_earlier

    out = out or Path("weights") / f"{backbone}-pretrained.safetensors"
    changes = [*(changes or []), *([f"view/size={size}"] if size else [])]
    try:
        if lr <= 0:
            raise DataError(f"--lr is {lr}; give a number above 0")
        if out.suffix != ".safetensors":
            raise DataError(f"--out {out} must end in .safetensors, the format of the weights")
        earlier = open_earlier(run) if run else None
        if seed is None:
            seed = earlier.card.seed if earlier else 0
        settings = Pretraining(backbone, weights, epochs, batch_size, lr, hide=hide, seed=seed)
        learn(settings, shared_settings(backbone, earlier, data, changes, seed), data, earlier, out, console)
    except (UserError, DivergedError) as error:
        complain(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        console.print(f"Stopped by Ctrl-C. {f'{out} holds the last complete epoch' if out.is_file() else 'Nothing was written'}.")
        sys.exit(130)


def shared_settings(backbone: str, earlier: "Earlier | None", data: str | None, changes: Sequence[str], seed: int) -> "Space":
    """The space of the run, or one of defaults, with the changes laid over it: data/..., each view/... and normalize have one value.

    Raises: SpaceError, ConfigError, RunError.
    """

    from tuner.cli import Options
    from tuner.prepare import read_the_space
    from tuner.runs import refuse_changes

    if odd := [change for change in changes if not change.startswith(SHARED)]:
        message = f"is not used in pre-training, which has only {', '.join(SHARED)} in common with a search; remove it"
        raise ConfigError([Mistake(f"--set {change}", message) for change in odd])
    with TemporaryDirectory() as folder:
        file = Path(folder) / "pretrain.yaml"
        file.write_text(NO_SPACE.format(backbone=json.dumps(backbone)))
        options = Options(space=None if earlier else str(file), data=data, changes=tuple(changes))
        space = read_the_space(options, earlier, has_gpu=device_here().type != "cpu")
    if earlier:
        refuse_changes(earlier.card, earlier.space, space, seed)
    if searched := [parameter for parameter in space.parameters if parameter.path.startswith(SHARED)]:
        message = "is searched, and pre-training takes one value; choose it with --set"
        raise ConfigError([Mistake(parameter.path, f"{message} {parameter.path}=VALUE") for parameter in searched])
    return space


@dataclass(frozen=True)
class Source:
    """Images that may be learned from."""

    names: Sequence[str]
    view: "ViewFile"


@dataclass(frozen=True)
class Material:
    """All images that are learned from, and how they are normalised."""

    sources: tuple[Source, ...]
    statistics: "ChannelStatistics"  # to normalise by
    origin: dict[str, Any]  # what the weights file says about it


def learn(settings: "Pretraining", space: "Space", data: str | None, earlier: "Earlier | None", out: Path, console: Console) -> None:
    """Read, decode, pre-train, write."""
    from safetensors.torch import save

    from trainables.data.batches import rows_of
    from trainables.data.views import open_view
    from trainables.models.backbone import check_backbone
    from trainables.pretraining import batches_to_paint, build_painter, images_to_paint, pretrain
    from tuner.cli import Options
    from tuner.preflight import views_of
    from tuner.prepare import data_folder

    check_backbone(settings.backbone)
    (view,) = views_of(space)
    painter = build_painter(settings, (view.height, view.width))
    device = device_here()
    material = gather(data_folder(Options(data=data), earlier, console), view, space, settings, earlier, console)
    images = images_to_paint([source.names for source in material.sources])
    views = [open_view(source.view) for source in material.sources]
    threads = 4 if device.type != "cpu" else 0
    batches = batches_to_paint(settings, [seen.images for seen in views], rows_of(images, views), images, threads)
    plan = f"{len(images)} images at {view} pixels, {settings.epochs} epochs of {len(batches)} batches, on {device}"
    console.print(Text.assemble((settings.backbone, "bold"), f": {plan}"))
    out.parent.mkdir(parents=True, exist_ok=True)
    first = None
    for epoch in pretrain(painter, settings, batches, device, material.statistics):
        first = first or epoch.loss
        state = {name: value.detach().cpu().contiguous() for name, value in painter.backbone.state_dict().items()}
        card = asdict(settings) | {"epoch": epoch.epoch} | material.origin
        write_atomically(out, save(state, metadata={"pretraining": json.dumps(card)}))
        speed = f"{epoch.images / epoch.seconds:,.0f} images/s"
        console.print(f"epoch {epoch.epoch} of {settings.epochs}: error of masked pixels {epoch.loss:.4f}, {speed}")
    console.print(f"Reconstruction error of masked pixels: {epoch.loss:.4f} after {settings.epochs} epochs, {first:.4f} after the first.")
    use = f"--set model/backbone={settings.backbone} --set {shlex.quote(f'model/weights={out}')}"
    console.print(Text.assemble("Weights: ", (str(out), "bold"), f". Use them: {use}"), soft_wrap=True)
    document({"files": [out], "epochs": settings.epochs, "error": epoch.loss, "first error": first})


def gather(folder: Path, view: "View", space: "Space", settings: "Pretraining", earlier: "Earlier | None", console: Console) -> Material:
    """The images of all but the hold-out, then those to predict. Raises: DataError, RunError."""
    import numpy as np

    from trainables.build import statistics_to_normalise_by
    from trainables.config import TrialConfig
    from trainables.data.layouts.reading import read_images, read_unlabelled
    from trainables.data.training import Data
    from trainables.data.view_store import view_cache
    from trainables.data.views import build_views, count_missing
    from trainables.models.settings import ModelConfig
    from trainables.progress import progress_bar
    from tuner.prepare import data_settings_of, decode, divide

    data_settings = data_settings_of(space)
    images, files = decode(read_images(folder, data_settings), [view], True, console)
    images, split = divide(images, files.digests, data_settings, settings.seed, earlier)
    normalize = space.fixed.get("normalize", TrialConfig.model_fields["normalize"].default)
    by = Data.of(images, split, files, with_statistics=normalize == "dataset").statistics
    statistics = statistics_to_normalise_by(normalize, ModelConfig(backbone=settings.backbone, weights=settings.weights), by, view)

    used, held_out = images.take(np.concatenate([split.train, split.valid])), images.take(split.holdout)
    console.print(f"{len(used)} images to learn from; {len(held_out)} hold-out images are not used (split {split.hash})")
    for line in images.count_lines():
        console.print(f"  {line}")
    sources = [Source(used.ids, files.files[view])]
    unlabelled = read_unlabelled(folder, data_settings)
    if unlabelled is not None:
        with progress_bar("decoding images to predict", count_missing(unlabelled, [view], view_cache())) as advance:
            built = build_views(unlabelled, [view], view_cache(), advance)
        secret = {files.digests[name] for name in held_out.ids}
        names = [name for name in unlabelled.ids if name not in built.bad and built.digests[name] not in secret]
        sources.append(Source(names, built.files[view]))
    origin = {
        "run": earlier.card.name if earlier else None,
        "split": split.hash,
        "data": data_settings.model_dump(mode="json"),
        "view": asdict(view),
        "normalize": statistics,
    }
    return Material(tuple(sources), statistics, origin)


if __name__ == "__main__":
    launch(main, "tuner.pretrain")
