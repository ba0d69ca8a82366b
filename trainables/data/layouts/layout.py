"""What a layout is, and what it finds: each file of a layout ends with one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainables.data.images import Images, LeftOut, Unlabelled
from trainables.data.settings import DataConfig
from trainables.data.targets import Scheme

IMAGE = "image"  # the column that names the image, whatever a table calls it


@dataclass(frozen=True)
class Listing:
    """Images and all that stands beside each of them, before it is chosen what is a target, a group or a split."""

    root: Path  # ids are paths below this folder
    ids: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]  # by name, the text of each image
    places: tuple[str, ...]  # of each image: where its row stands, such as photos.csv:3; for messages
    read_as: tuple[str, ...] = ()  # how it was understood, for people
    notes: tuple[LeftOut, ...] = ()
    target: str = ""  # the column that is the target unless the settings name another
    split: tuple[str, ...] = ()  # the word that the layout itself has for the part of each image


@dataclass(frozen=True)
class Layout:
    """One way in which images and their labels lie on disk."""

    name: str  # as data/layout chooses it
    title: str  # as in "this is no ..."
    fits: Callable[[Path, DataConfig], bool]
    read: Callable[[Path, DataConfig], Images]
    scheme: Callable[[Path, DataConfig], Scheme]  # without looking for every image
    unlabelled: Callable[[Path, DataConfig], Unlabelled | None] = lambda source, settings: None  # images to predict
    any_column: bool = True  # whether targets are columns, any of which may be named
    corrections: Mapping[str, Path] = field(default_factory=dict)  # tables of wrong labels that come with such data, by name
