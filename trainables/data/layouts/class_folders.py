"""A folder for each class: `<class>/<image>`, with the one attribute `class` and every image a group of its own."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from trainables.data.images import Images, LeftOut
from trainables.data.layouts.layout import Layout
from trainables.data.settings import DataConfig
from trainables.data.targets import Classes, Scheme

# What an image's suffix begins with: downloads are named .jpg_large, or .jpg with the size behind it.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".gif")


def read_tree(root: Path, settings: DataConfig) -> Images:
    """The images in the class folders below `root`; what lies deeper, and what is no image by its suffix, is left out."""
    images_of = _images_by_class(root)
    ids = tuple(f"{name}/{image}" for name, images in images_of.items() for image in images)
    beside = [entry for entry in root.iterdir() if entry.name not in images_of]
    within = [entry for name, images in images_of.items() for entry in (root / name).iterdir() if entry.name not in images]
    others = sorted(entry.relative_to(root).as_posix() for entry in (*beside, *within))
    found = [
        LeftOut("images, each taken for a group of its own: the folders do not say who is on them", ids),
        LeftOut("hidden files and folders, ignored", tuple(name for name in others if _is_hidden(root / name))),
        LeftOut("others that are no image and hold none, ignored", tuple(name for name in others if not _is_hidden(root / name))),
    ]
    return Images(
        root=root,
        ids=ids,
        groups=np.arange(len(ids)),
        labels=np.repeat(np.arange(len(images_of)), [len(images) for images in images_of.values()])[:, None],
        scheme=_scheme(images_of),
        left_out=tuple(item for item in found if item.names),
    )


def _images_by_class(root: Path) -> dict[str, list[str]]:
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not _is_hidden(entry))
    images_of = {folder.name: sorted(file.name for file in folder.iterdir() if _is_image(file)) for folder in folders}
    return {name: images for name, images in images_of.items() if images}


def _scheme(classes: Iterable[str]) -> Scheme:
    return Scheme((Classes("class", tuple(classes)),))


def _oddities(root: Path, images: Images) -> list[str]:
    if images.scheme.classes > 1:
        return []
    return [f"{root}: only the folder {images.scheme.class_names()[0]} holds images. Give each of two or more classes a folder of images."]


def _is_image(file: Path) -> bool:
    return file.suffix.lower().startswith(SUFFIXES) and not _is_hidden(file) and file.is_file()


def _is_hidden(entry: Path) -> bool:
    return entry.name.startswith(".")


LAYOUT = Layout(
    name="a folder for each class",
    fits=lambda source: source.is_dir() and bool(_images_by_class(source)),
    scheme=lambda root, settings: _scheme(_images_by_class(root)),
    read=read_tree,
    oddities=_oddities,
)
