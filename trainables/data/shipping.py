"""Shipping: decoded images reach a node of a cluster once, in pieces, and are verified to be what was decoded.

The image files have to lie on one node only, the one that decodes them. This module reads and fills
stores; the caller carries the pieces.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainables.data.view_store import BLACK, ENTRY, CacheError, Use, Writer, alone, make_room, note_use, read_store
from trainables.data.views import OpenView, ViewFile, store_folder

PIECE = 32 * 2**20  # bytes: large enough for the network, small beside a node's memory

Piece = tuple[bytes, bytes]  # ENTRYs and the pixels of their rows
Fetch = Callable[[Sequence[str]], Piece]  # of these contents, in their order


class ShippingError(CacheError):
    """Decoded images that could not be brought to this node; the text says why and how to fix it."""


def read_piece(view: OpenView, contents: Sequence[str]) -> Piece:
    """These contents of a view, as another node's store takes them."""
    rows = [view.row[content] for content in contents]
    return view.entries[rows].tobytes(), view.images[rows].tobytes()


def ensure_view(file: ViewFile, cache: Path, fetch: Fetch) -> ViewFile:
    """The view in this machine's cache, to which what it lacks is fetched.

    Processes that ask at the same time fetch in turns, each what is still missing; whatever ends one, the others continue where it was.

    Args:
        fetch: what it raises is passed on.
    Raises: ShippingError when what arrives is not what was decoded, and CacheError when it cannot be written here.
    """
    folder, shape = store_folder(cache, file.view), (file.view.height, file.view.width, 3)
    here = replace(file, cache=cache, use=Use(folder))
    size = int(np.prod(shape))
    wanted = [content for content in dict.fromkeys(file.contents.values()) if content != BLACK]
    stored = read_store(folder)
    missing = [content for content in wanted if stored is None or content not in stored.row]
    if missing:
        make_room(cache, len(missing) * size, {folder: wanted})
    most = max(1, PIECE // size)
    for start in range(0, len(missing), most):
        with alone(cache), Writer(folder, shape, str(file.view)) as writer:
            piece = [content for content in missing[start : start + most] if content not in writer.row]
            if piece:
                _add(writer, folder, piece, fetch(piece), shape)
    note_use(cache, folder, wanted)
    return here


def _add(writer: Writer, folder: Path, contents: Sequence[str], piece: Piece, shape: Sequence[int]) -> None:
    entries, pixels = np.frombuffer(piece[0], ENTRY), np.frombuffer(piece[1], np.uint8)
    known = [entry["content"].tobytes().hex() for entry in entries]
    if known != list(contents) or len(pixels) != len(entries) * np.prod(shape):
        raise ShippingError(None, f"{folder}: {len(contents)} decoded images were requested, and others arrived. Start again.")
    for content, entry, image in zip(contents, entries, pixels.reshape(-1, *shape), strict=True):
        found, expected = hashlib.sha256(image).hexdigest(), entry["pixels"].tobytes().hex()
        if found != expected:
            raise ShippingError(
                None,
                f"{folder}: the decoded image of content {content} arrived with the sha256 {found}, expected was {expected}. It was "
                "damaged on its way or where it came from; empty the cache there (python -m trainables.cache --empty) and start again.",
            )
        writer.add(content, image, bool(entry["without_face"]), int(entry["changes"]))
