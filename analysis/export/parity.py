"""Whether a network answers in ONNX Runtime as it does in PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from PIL import Image

from analysis.export.onnx import Export, Input
from analysis.members.predictions import PLAIN, Source, predict_trials
from trainables.data.edges import with_edges
from trainables.data.images import Unlabelled
from trainables.data.targets import Kind
from trainables.data.views import View, ViewFiles, build_views, open_view
from trainables.metrics.metric import TAGGED
from trainables.seeding import generator

IMAGES = 200  # drawn ones, on which a file is compared with PyTorch
PASS = 64  # of them at a time; the last pass is smaller, so the number of images is seen to be free
TOLERANCE = 1e-4  # the largest difference of two probabilities
AGREEMENT = 0.999  # the least share of images with the same answer


@dataclass(frozen=True)
class Parity:
    """How alike ONNX Runtime and PyTorch answer."""

    images: int
    difference: float  # the largest of two probabilities; of two numbers, in shares of the larger one where that is above 1
    agreement: float  # share of images with the same answer

    @property
    def holds(self) -> bool:
        return self.difference < TOLERANCE and self.agreement >= AGREEMENT

    def __str__(self) -> str:
        same = f"the answers to {self.agreement:.1%} of {self.images} images are the same"
        return f"ONNX Runtime against PyTorch: probabilities differ by at most {self.difference:.1e}, {same}"


def compare(export: Export) -> Parity:
    """What ONNX Runtime answers to drawn images, against what the trials and the pipeline answer.

    Votes and steps decide at thresholds, where the last bits of a network's probability tip an image. So each trial's probabilities are
    compared with those of PyTorch, and the answer with what the pipeline makes of the trials' probabilities in ONNX Runtime; whether
    images get the same answer is asked from end to end.
    """
    session = onnxruntime.InferenceSession(export.content, providers=["CPUExecutionProvider"])
    looks = export.pipeline.looks if export.pipeline else PLAIN
    with TemporaryDirectory() as scratch:
        files = draw_views([one.view for one in export.inputs], Path(scratch))
        expected = predict_trials(export.trials, Source(files, list(files.digests)), torch.device("cpu"), looks=looks)
        images = {one.name: _images(one, files) for one in export.inputs}
    passes = [
        session.run(None, {name: pixels[start : start + PASS] for name, pixels in images.items()}) for start in range(0, IMAGES, PASS)
    ]
    answer, *rest = (np.concatenate(parts) for parts in zip(*passes, strict=True))
    if export.pipeline is None:
        (right,) = expected.values()
        return Parity(IMAGES, _apart(answer, right), agreement(answer, right, export.trials[0].task.scheme.kind))
    # Features of trials follow.
    found = dict(zip(export.pipeline.trials, rest, strict=False))
    difference = max(_apart(answer, export.pipeline(found)), *(_apart(found[name], expected[name]) for name in found))
    return Parity(IMAGES, difference, agreement(answer, export.pipeline(expected), export.pipeline.scheme.kind))


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float((np.abs(one - other) / np.maximum(1.0, np.abs(other))).max())


def agreement(one: np.ndarray, other: np.ndarray, kind: Kind, close: float = TOLERANCE) -> float:
    """The share of images that get the same class, or the same tags; of numbers those that differ by no more than the share `close`."""
    if kind == "classes":
        return float((one.argmax(axis=1) == other.argmax(axis=1)).mean())
    same = (one >= TAGGED) == (other >= TAGGED) if kind == "tags" else np.isclose(one, other, rtol=close)
    return float(same.all(axis=1).mean())


def draw_views(views: Sequence[View], folder: Path) -> ViewFiles:
    """Views of images that show soft spots of colour and grain; there are no faces in them."""
    rng = generator(0, "export")
    names = tuple(f"{number}.png" for number in range(IMAGES))
    for name in names:
        spots = Image.fromarray(rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)).resize((180, 240), Image.Resampling.BICUBIC)
        grain = rng.normal(0, rng.uniform(0, 30), (240, 180, 3))
        Image.fromarray(np.clip(np.asarray(spots) + grain, 0, 255).astype(np.uint8)).save(folder / name)
    return build_views(Unlabelled(folder, names), views, folder / "views", find=lambda image: None)


def _images(one: Input, files: ViewFiles) -> np.ndarray:
    seen = open_view(files.files[one.view])
    images = seen.images[seen.rows(files.digests)]
    return with_edges(images) if one.edges else images
