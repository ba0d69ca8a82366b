"""A folder for each class, perhaps below train/, val/ and test/: `<class>/<image>`, with the one target `class`."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainables.data.images import DataError, Images, LeftOut, Unlabelled
from trainables.data.layouts import parts
from trainables.data.layouts.image_files import DEEPEST, Found, look_into
from trainables.data.layouts.labelling import label
from trainables.data.layouts.layout import Layout, Listing
from trainables.data.names import shown
from trainables.data.settings import DataConfig
from trainables.data.targets import Scheme

CLASS, FOLDER = "class", "folder"
# What folders are called that hold the images of a table.
OF_IMAGES = re.compile(
    r"((train|training|val|valid|test)?[-_ ]?(images?|imgs?|photos?|pictures?|pics|jpe?gs?|pngs?|masks?|labels?|annotations?|data|files))"
    r"|test|eval"
)


@dataclass(frozen=True)
class Tree:
    """All folders below a root, and what the top ones are treated as."""

    found: Mapping[str, Found]  # by path below the root; the root is empty
    base: str  # whose folders are classes or parts: the root, or the only folder in it that holds images
    parts: Mapping[str, str]  # the folders in it that hold class folders of a part, by their path
    unlabelled: str | None  # the folder of images to predict

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.found)

    def below(self, folder: str) -> list[str]:
        """A folder and all in it, by their paths below the root."""
        if not folder:
            return self._sorted
        # What is in a folder is between "folder/" and "folder0", the next letter.
        first, last = (bisect_left(self._sorted, f"{folder}{end}") for end in "/0")
        return [folder, *self._sorted[first:last]]

    def images_below(self, folder: str) -> list[str]:
        """Paths below the root of all images in a folder and deeper."""
        return [_joined(name, image) for name in self.below(folder) for image in self.found[name].images]

    def folders_of(self, folder: str) -> list[str]:
        """The folders directly in one that hold images, there or deeper."""
        paths = (_joined(folder, name) for name in self.found[folder].folders)
        return [path for path in paths if any(self.found[name].images for name in self.below(path))]


def read_tree(root: Path, settings: DataConfig) -> Images:
    """The images in the class folders below `root`. Raises: DataError."""
    return label(root, list_tree(root, settings), settings)


def list_tree(root: Path, settings: DataConfig) -> Listing:
    """Every image of a class folder; what lies outside of them, and what is no image, is named."""
    tree = survey(root, settings)
    rows = sorted(_rows(tree, settings))
    ids = tuple(image for _, _, image in rows)
    if not ids:
        raise DataError(f"{root}: its class folders hold no image directly. Choose --set data/folders=path or data/folders=top.")
    nested = any(_folder_of(image).count("/") > _depth(tree, image) for image in ids)
    columns = {CLASS: tuple(name for name, _, _ in rows)} | ({FOLDER: tuple(map(_folder_of, ids))} if nested else {})
    return Listing(
        root=root,
        ids=ids,
        columns=columns,
        places=ids,
        read_as=tuple(_read_as(tree, nested, settings)),
        notes=tuple(_notes(tree, set(ids))),
        target=CLASS,
        split=tuple(part for _, part, _ in rows) if tree.parts else (),
    )


def survey(root: Path, settings: DataConfig) -> Tree:
    """What lies below a folder, and what its top folders are."""
    found = dict(_walk(root, ""))
    plain = Tree(found, "", {}, None)
    base, unlabelled = "", None
    while True:
        parted, to_predict = _parts(plain, base, settings)
        unlabelled = unlabelled or to_predict
        classes = [path for path in plain.folders_of(base) if path != unlabelled and path not in parted]
        alone = classes[0] if len(classes) == 1 and not parted and not found[base].images else ""
        if not alone or not _leads_to_several(plain, alone):
            return Tree(found, base, parted, unlabelled)
        base = alone


def _leads_to_several(tree: Tree, folder: str) -> bool:
    """Whether a folder holds no image itself but several folders with images, or one that does."""
    inner = tree.folders_of(folder)
    return not tree.found[folder].images and (len(inner) > 1 or any(_leads_to_several(tree, one) for one in inner))


def read_unlabelled(root: Path, settings: DataConfig) -> Unlabelled | None:
    """The images of a folder test/ without class folders, in the order of their names."""
    tree = survey(root, settings)
    return Unlabelled(root, tuple(tree.images_below(tree.unlabelled)), ("image", CLASS), by_name=True) if tree.unlabelled else None


def _parts(tree: Tree, base: str, settings: DataConfig) -> tuple[dict[str, str], str | None]:
    """The folders of parts with class folders in them, by path, and the folder of images to predict."""
    if not parts.are_used(settings):
        return {}, None
    holding = tree.folders_of(base)
    named = {path: part for path in holding if (part := parts.part_of(path.rpartition("/")[2], settings))}
    inner = {path: [name.rpartition("/")[2] for name in tree.folders_of(path)] for path in named}
    classes = {path.rpartition("/")[2] for path in holding if path not in named}
    if any(inner[path] for path, part in named.items() if part == parts.TRAIN):
        classes = {name for path, part in named.items() if part == parts.TRAIN for name in inner[path]}
        found = {path: part for path, part in named.items() if inner[path]}
    else:
        found = {path: part for path, part in named.items() if inner[path] and classes.issuperset(inner[path])}
    loose = [path for path, part in named.items() if part == parts.TEST and not inner[path]]
    return found, loose[0] if len(loose) == 1 and classes else None


def _rows(tree: Tree, settings: DataConfig) -> Iterator[tuple[str, str, str]]:
    """Class, part and path of every image in a class folder."""
    for top, part in _tops(tree):
        above = top.rpartition("/")[0]
        for image in tree.images_below(top):
            folder = _folder_of(image)
            if settings.folders == "flat" and folder != top:
                continue
            deep = folder.removeprefix(f"{above}/") if above else folder
            yield (top.rpartition("/")[2] if settings.folders == "top" else deep), part, image


def _tops(tree: Tree) -> list[tuple[str, str]]:
    """The class folders that lie in no other one, by their paths, and the part that each is in."""
    tops = [(top, part) for folder, part in tree.parts.items() for top in tree.folders_of(folder)]
    if parts.TRAIN not in tree.parts.values():
        others = [path for path in tree.folders_of(tree.base) if path != tree.unlabelled and path not in tree.parts]
        tops += [(path, parts.TRAIN) for path in others]
    return tops


def _depth(tree: Tree, image: str) -> int:
    """How many slashes the class folder of an image has in its path."""
    part = next((folder for folder in tree.parts if image.startswith(f"{folder}/")), None)
    above = tree.base if part is None else part
    return above.count("/") + 1 if above else 0


def _read_as(tree: Tree, nested: bool, settings: DataConfig) -> Iterator[str]:
    where = f" in {shown(tree.base)}/" if tree.base else ""
    yield f"a folder for each class{where}" + (f", below {', '.join(map(shown, tree.parts))}" if tree.parts else "")
    if nested and settings.folders != "flat":
        by, other = ("their top folder", "path") if settings.folders == "top" else ("the full path of its folder", "top")
        yield f"nested folders: the class of an image is {by}; --set data/folders={other} chooses the other, flat neither"
    if nested:
        yield f"with --group {FOLDER} no split separates the images of one folder"


def _notes(tree: Tree, used: set[str]) -> Iterator[LeftOut]:
    to_predict = set(tree.images_below(tree.unlabelled)) if tree.unlabelled else set()
    lost = [image for image in tree.images_below("") if image not in used and image not in to_predict]
    deeper = [image for image in lost if image.count("/") > _depth(tree, image) + 1]
    beside = [image for image in lost if image not in set(deeper)]
    hidden = sorted(_joined(folder, name) for folder, found in tree.found.items() for name in found.hidden)
    others = sorted(_joined(folder, name) for folder, found in tree.found.items() for name in found.others)
    empty = sorted(folder for folder in tree.found if folder and not tree.images_below(folder))
    yield LeftOut("images deeper than a class folder, not used; --set data/folders=path or top would use them", tuple(deeper))
    yield LeftOut("images outside of the class folders, not used", tuple(beside))
    yield LeftOut("hidden files and folders, ignored", tuple(hidden))
    yield LeftOut("files that are not images, ignored", tuple(others))
    yield LeftOut("folders that hold no image, ignored", tuple(empty))


def _walk(root: Path, folder: str, deepest: int = DEEPEST) -> Iterator[tuple[str, Found]]:
    found = look_into(root / folder)
    yield folder, found
    if deepest:
        for name in found.folders:
            yield from _walk(root, _joined(folder, name), deepest - 1)


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _folder_of(image: str) -> str:
    return image.rpartition("/")[0]


def fits(source: Path, settings: DataConfig) -> bool:
    """Whether the folders in a folder can be classes: one or more hold images, and not all are called images or the like."""
    if not source.is_dir():
        return False
    tree = survey(source, settings)
    return not all(OF_IMAGES.fullmatch(top.rpartition("/")[2].lower()) for top, _ in _tops(tree))


def _scheme(root: Path, settings: DataConfig) -> Scheme:
    return read_tree(root, settings).scheme


LAYOUT = Layout(
    name="class_folders",
    title="a folder for each class",
    fits=fits,
    read=read_tree,
    scheme=_scheme,
    unlabelled=read_unlabelled,
    any_column=False,
)
