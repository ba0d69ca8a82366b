"""Images per second of `fit` beside a bare PyTorch loop on the same images and network, in one run.

What a trial does around the training step (batches from the mapped view, flips, reports, the check for a finite loss) must not
cost what the step earns: the ratio is to stay at 0.9 or above. The two take turns, so a machine that drifts drifts for both.

    uv run python -m benchmarks.train_step [--backbone test_efficientnet] [--size 64] [--images 2048] [--rounds 5]
"""

import json
import platform
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from rich.table import Table

from trainables.build import build_parts
from trainables.config import TrialConfig
from trainables.console import open_console
from trainables.data.images import Images
from trainables.data.layouts.contest import CUTS, contest_scheme
from trainables.data.splits import Split
from trainables.data.training import Data
from trainables.data.views import View, build_views
from trainables.loop import Parts, fit
from trainables.models.assemble import to_input

LR = 1e-3


def main(
    backbone: Annotated[str, typer.Option(help="Any timm network.")] = "mobilenetv3_small_050",
    size: Annotated[int, typer.Option(help="Pixels of a side.")] = 64,
    batch_size: Annotated[int, typer.Option(help="Images of a step.")] = 64,
    images: Annotated[int, typer.Option(help="Training images of an epoch.")] = 2048,
    rounds: Annotated[int, typer.Option(help="Counted epochs of each, after one of warm-up.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads of a step.")] = 1,
    mixing: Annotated[
        Literal["none", "batch", "train"], typer.Option(help="fit: cutmix_intra on every second batch, with partners from there.")
    ] = "none",
) -> None:
    """Time epochs of both loops in turn and print their images per second."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = TrialConfig.from_values(
        {
            "epochs": rounds + 1,
            "view": {"size": size},
            "augment": {"flip": 0.5},
            "mix": {"name": "none"} if mixing == "none" else {"name": "cutmix_intra", "partner": mixing},
            "model": {"backbone": backbone, "weights": "none"},
            "optimizer": {"lr": LR},
            "train": {"batch_size": batch_size, "precision": "fp32"},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        data = random_images(Path(folder), images, batch_size, View.of(config.view))
        ours, bare = build_parts(config, data, device), build_parts(config, data, device)
        epochs = fit(ours, config.train, epochs=rounds + 1, seed=0)
        rates: dict[str, list[float]] = {"fit": [], "bare loop": []}
        memory = 0.0
        for _ in range(rounds + 1):
            start = perf_counter()
            memory = next(epochs).report.peak_memory
            rates["fit"].append(images / (perf_counter() - start))
            rates["bare loop"].append(images / bare_epoch(bare, batch_size))
    settings = {"backbone": backbone, "size": size, "batch_size": batch_size, "threads": threads, "device": str(device)}
    report(rates, {**settings, "mixing": mixing, "peak MB": round(memory)})


def random_images(folder: Path, count: int, valid: int, view: View) -> Data:
    """Noise with labels: what is learned does not matter here, only how fast. `valid` further images validate."""
    rng = np.random.default_rng(0)
    scheme = contest_scheme(CUTS)
    total = count + valid
    noise = rng.integers(0, 256, size=(total, view.height, view.width, 3), dtype=np.uint8)
    labels = np.stack([rng.integers(0, classes, size=total) for classes in scheme.sizes], axis=-1)
    groups = np.arange(total)
    ids = tuple(f"{number}.bmp" for number in groups)
    for name, pixels in zip(ids, noise, strict=True):
        Image.fromarray(pixels).save(folder / name)
    split = Split(part=np.where(groups < count, 1, 0), fold=0, hash="random")
    images = Images(folder, ids, groups, labels, scheme)
    return Data.of(images, split, build_views(images, [view], folder / "views"), with_statistics=False)


def bare_epoch(parts: Parts, batch_size: int) -> float:
    """Seconds of the loop that everybody writes first: the same images, flips, network and optimizer, nothing else."""
    images = torch.from_numpy(parts.batches.views[0][parts.batches.rows])
    targets = torch.from_numpy(parts.batches.images.targets[0])
    parts.model.train()
    start = perf_counter()
    order = torch.randperm(len(images))
    for first in range(0, len(images) - batch_size + 1, batch_size):
        rows = order[first : first + batch_size]
        pixels = to_input(images[rows], parts.device)
        flipped = torch.rand(len(pixels), 1, 1, 1, device=parts.device) < 0.5
        pixels = torch.where(flipped, pixels.flip(-1), pixels)
        loss = F.cross_entropy(parts.model(pixels).logits[0], targets[rows].to(parts.device))
        parts.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parts.optimizer.step()
    if parts.device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - start


def report(rates: dict[str, list[float]], settings: dict[str, object]) -> None:
    counted = {name: values[1:] for name, values in rates.items()}
    ratios = [ours / bare for ours, bare in zip(counted["fit"], counted["bare loop"], strict=True)]
    table = Table("images per second", "median", "slowest", "fastest")
    for name, values in counted.items():
        table.add_row(name, f"{median(values):,.0f}", f"{min(values):,.0f}", f"{max(values):,.0f}")
    table.add_row("fit / bare, pair by pair", f"{median(ratios):.3f}", f"{min(ratios):.3f}", f"{max(ratios):.3f}")
    open_console().print(table)
    figures = {f"{name} images/s": round(median(values), 1) for name, values in counted.items()}
    machine = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}
    print(json.dumps({**figures, "ratio": round(median(ratios), 4), **settings, **machine}))


if __name__ == "__main__":
    typer.run(main)
