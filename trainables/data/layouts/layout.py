"""What a layout is: each of its files ends with one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainables.data.images import Images
from trainables.data.settings import DataConfig
from trainables.data.targets import Scheme


@dataclass(frozen=True)
class Layout:
    """One way in which images and their labels lie on disk."""

    name: str  # as in "this is no ..."
    fits: Callable[[Path], bool]
    scheme: Callable[[Path, DataConfig], Scheme]  # without looking for every image
    read: Callable[[Path, DataConfig], Images]
    oddities: Callable[[Path, Images], list[str]] = lambda source, images: []  # labels that cannot be meant, and how to fix each
    corrections: Mapping[str, Path] = field(default_factory=dict)  # tables of wrong labels that come with such data, by name
