"""A folder for each class: `<class>/<photo>`, with the one attribute `class` and every photo a person of its own."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from trainables.data.labels import Attribute, Scheme
from trainables.data.layouts.layout import Layout
from trainables.data.photos import LeftOut, Photos
from trainables.data.settings import DataConfig

# What a photo's suffix begins with: downloads are named .jpg_large, or .jpg with the size behind it.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".gif")


def read_tree(root: Path, settings: DataConfig) -> Photos:
    """The photos in the class folders below `root`; what lies deeper, and what is no photo by its suffix, is left out."""
    photos_of = _photos_by_class(root)
    ids = tuple(f"{name}/{photo}" for name, photos in photos_of.items() for photo in photos)
    beside = [entry for entry in root.iterdir() if entry.name not in photos_of]
    within = [entry for name, photos in photos_of.items() for entry in (root / name).iterdir() if entry.name not in photos]
    others = sorted(entry.relative_to(root).as_posix() for entry in (*beside, *within))
    found = [
        LeftOut("photos, each taken for a person of its own: the folders do not say who is on them", ids),
        LeftOut("hidden files and folders, ignored", tuple(name for name in others if _is_hidden(root / name))),
        LeftOut("others that are no photo and hold none, ignored", tuple(name for name in others if not _is_hidden(root / name))),
    ]
    return Photos(
        root=root,
        ids=ids,
        people=np.arange(len(ids)),
        labels=np.repeat(np.arange(len(photos_of)), [len(photos) for photos in photos_of.values()])[:, None],
        scheme=_scheme(photos_of),
        left_out=tuple(item for item in found if item.names),
    )


def _photos_by_class(root: Path) -> dict[str, list[str]]:
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not _is_hidden(entry))
    photos_of = {folder.name: sorted(file.name for file in folder.iterdir() if _is_photo(file)) for folder in folders}
    return {name: photos for name, photos in photos_of.items() if photos}


def _scheme(classes: Iterable[str]) -> Scheme:
    return Scheme((Attribute("class", tuple(classes)),))


def _oddities(root: Path, photos: Photos) -> list[str]:
    if photos.scheme.classes > 1:
        return []
    return [f"{root}: only the folder {photos.scheme.class_names()[0]} holds photos. Give each of two or more classes a folder of photos."]


def _is_photo(file: Path) -> bool:
    return file.suffix.lower().startswith(SUFFIXES) and not _is_hidden(file) and file.is_file()


def _is_hidden(entry: Path) -> bool:
    return entry.name.startswith(".")


LAYOUT = Layout(
    name="a folder for each class",
    fits=lambda source: source.is_dir() and bool(_photos_by_class(source)),
    scheme=lambda root, settings: _scheme(_photos_by_class(root)),
    read=read_tree,
    oddities=_oddities,
)
