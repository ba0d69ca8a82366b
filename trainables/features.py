"""What a network gives for images before its heads, kept in the cache by what it was computed of."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from trainables.data.batches import plain_batches
from trainables.data.view_store import features_folder
from trainables.data.views import OpenView
from trainables.extensions import hashes, loaded
from trainables.loop import mixed_precision
from trainables.models.assemble import Classifier, to_input
from trainables.models.heads import vectors
from trainables.record import DAMAGE
from trainables.storage import write_atomically
from trainables.versions import device_name

FORMAT = 1  # of the files, and of what is computed for them
# Images that go through the network at a time, by the device; with few a CPU's cache holds what it needs.
PASS = {"cuda": 64, "mps": 64, "cpu": 8}


@dataclass(frozen=True, eq=False)
class Features:
    """Of some rows of a view, in their order."""

    values: np.ndarray  # (n, features) float32
    seconds: float  # an image took when they were computed


def features_of(
    model: Classifier, view: OpenView, rows: np.ndarray, device: torch.device, precision: torch.dtype, edges: bool = False
) -> Features:
    """What the backbone gives, pooled, in eval mode, for rows (n,) of a view: from the cache, or computed and put there.

    A file of the cache is found by the pixels of all these rows, whatever their order, the weights, the device and the number of threads,
    so that the same trial finds the same bits; one that is damaged is computed again. A cache that cannot be written stays as it is.
    """
    prints = [one.tobytes().hex() for one in view.entries["pixels"][rows]]
    row_of = dict(zip(prints, rows.tolist(), strict=True))
    ordered = sorted(row_of)
    digest = hashlib.sha256()
    for part in (*_made_by(model, device, precision), *map(bytes.fromhex, ordered)):
        digest.update(part)

    def compute() -> dict[str, np.ndarray]:
        start = perf_counter()
        batches = plain_batches(view.images, np.array([row_of[one] for one in ordered], dtype=np.int64), PASS[device.type], edges=edges)
        values = torch.cat(list(_forward(model, batches, device, precision))).numpy()
        return {"values": values, "seconds": np.array((perf_counter() - start) / len(ordered))}

    def usable(arrays: Mapping[str, np.ndarray]) -> bool:
        return arrays["values"].shape[0] == len(ordered) and arrays["values"].dtype == np.float32

    found = kept(digest.hexdigest(), compute, usable)
    place = {one: position for position, one in enumerate(ordered)}
    return Features(found["values"][[place[one] for one in prints]], float(found["seconds"]))


@torch.inference_mode()
def _forward(model: Classifier, batches: Iterable[Tensor], device: torch.device, precision: torch.dtype) -> Iterator[Tensor]:
    model.eval()
    for batch in batches:
        with mixed_precision(device, precision):
            features = vectors(model.features(to_input(batch, device)))
        yield features.float().cpu()


def _made_by(model: Classifier, device: torch.device, precision: torch.dtype) -> Iterator[bytes]:
    """All that decides the features of an image."""
    yield f"{FORMAT} {device_name(device)} {torch.get_num_threads()} {precision} {torch.__version__}".encode()
    if extensions := hashes(loaded()):
        # The network may be one of theirs, and the same weights give other features when its code has changed.
        yield json.dumps(extensions, sort_keys=True).encode()
    for name, tensor in model.state_dict().items():
        if not name.startswith("heads."):
            yield name.encode()
            yield tensor.detach().cpu().contiguous().numpy().tobytes()


def kept(
    digest: str, compute: Callable[[], dict[str, np.ndarray]], usable: Callable[[Mapping[str, np.ndarray]], bool]
) -> Mapping[str, np.ndarray]:
    """Arrays from the cache, by the digest of all that decides them, or computed and put there."""
    file = features_folder() / f"{digest[:32]}.npz"
    with suppress(*DAMAGE), np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
        arrays = dict(stored)
        if usable(arrays):
            with suppress(OSError):
                file.touch()  # `trainables.cache --older` goes by the last use
            return arrays
    arrays = compute()
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, buffer.getvalue())
    return arrays
