"""Labelled images as records of arrays. What cannot be used is counted and named in `left_out`; nothing is guessed."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from search_spaces.errors import UserError
from trainables.data.labels import Scheme
from trainables.data.names import some


class DataError(UserError, ValueError):
    """Data that cannot be used; the text names every reason found and how to mend it."""


class ImageError(UserError, ValueError):
    """An image that cannot be read from its view or augmented; the text says which, where and why."""


@dataclass(frozen=True)
class LeftOut:
    """One kind of thing that was not used, and its names."""

    reason: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.names)} {self.reason}: {some(self.names)}"


@dataclass(frozen=True)
class Images:
    """Labelled images; arrays are parallel, one entry an image."""

    root: Path  # ids are paths below this folder
    ids: tuple[str, ...]
    groups: np.ndarray  # (n,) index of the group: the group that no split parts
    labels: np.ndarray  # (n, attributes) class ids in the scheme's order
    scheme: Scheme
    left_out: tuple[LeftOut, ...] = ()
    numbers: np.ndarray | None = None  # (n,) float32: what the scheme's ordinal attribute is cut from
    names: tuple[str, ...] = ()  # (n,) of the groups, where they have any; two data sets that name one alike mean the same group
    ties: tuple[tuple[int, ...], ...] = ()  # further groups that no split parts, by index

    def __len__(self) -> int:
        return len(self.ids)

    def without(self, bad: dict[str, str]) -> "Images":
        """The images but those in `bad` (id -> why), which join `left_out`."""
        if not bad:
            return self
        found = LeftOut("images cannot be decoded", tuple(f"{name} ({why})" for name, why in bad.items()))
        kept = self.take(np.flatnonzero([name not in bad for name in self.ids]))
        return replace(kept, left_out=(*self.left_out, found))

    def take(self, positions: np.ndarray) -> "Images":
        """The images at these positions, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[position] for position in positions.tolist()),
            groups=self.groups[positions],
            labels=self.labels[positions],
            numbers=None if self.numbers is None else self.numbers[positions],
            names=tuple(self.names[position] for position in positions.tolist()) if self.names else (),
        )


@dataclass(frozen=True)
class Unlabelled:
    """Images to predict, in the order in which the answer must be written."""

    root: Path
    ids: tuple[str, ...]
