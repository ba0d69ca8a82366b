"""Which files are images, and which of them a table means: names as tables have them, with another suffix, slash or accent."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from trainables.data.rows import plain_name

# What an image's suffix begins with: downloads are named .jpg_large, or .jpg with the size behind it.
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".gif", ".pgm", ".ppm", ".pbm", ".pnm",
    ".jp2", ".j2k", ".jpx", ".avif", ".heic", ".heif", ".tga",
)  # fmt: skip
# What the content of an image begins with, for files of other suffixes or none.
SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM.{4}\0\0\0\0|II\*\0|MM\0\*|P[1-6]\s"
    rb"|\0\0\0\x0cjP  |\xff\x4f\xff\x51|....ftyp(?:avif|avis|hei[cxms]|hev[cxms]|mif1|msf1)",
    re.DOTALL,
)
DEEPEST = 8  # folders within each other that are looked through
SAMPLE = 200  # names that tell in which folder a table's images are


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def is_image(file: str | os.PathLike[str]) -> bool:
    """Whether a file is an image by its suffix or, where that says nothing, by how its content begins."""
    if os.path.splitext(file)[1].lower().startswith(SUFFIXES):
        return True
    try:
        with open(file, "rb") as stream:
            return SIGNATURE.match(stream.read(32)) is not None
    except OSError:
        return False


class Found(NamedTuple):
    """What lies in a folder: names in their order."""

    images: tuple[str, ...]
    folders: tuple[str, ...]
    hidden: tuple[str, ...]
    others: tuple[str, ...]  # files that are no images


def look_into(folder: Path) -> Found:
    """The images, folders and other files directly in a folder."""
    kinds: dict[str, list[str]] = defaultdict(list)
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                kind = "hidden"
            elif entry.is_dir():
                kind = "folders"
            else:
                kind = "images" if entry.is_file() and is_image(entry.path) else "others"
            kinds[kind].append(entry.name)
    return Found(*(tuple(sorted(kinds[name])) for name in Found._fields))


def folders_below(root: Path, deepest: int = DEEPEST) -> Iterator[str]:
    """Every folder below one that is not hidden, by its path with slashes, those above before those in them."""
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if not is_hidden(entry.name) and entry.is_dir())
    for name in names:
        yield name
        if deepest > 1:
            yield from (f"{name}/{below}" for below in folders_below(root / name, deepest - 1))


@dataclass
class Finder:
    """Finds the files that names mean below a folder; every folder is listed once."""

    root: Path
    _listed: dict[str, "_Names"] = field(default_factory=dict)

    def find(self, base: str, name: str) -> str | None:
        """The path below the root of what a name below `base` means: itself, or the one file that differs in suffix, case or accents.

        Args:
            base: a folder below the root; empty for the root.
            name: with slashes, or with the backslashes of Windows.
        """
        path = base
        *folders, last = _steps(name) or [""]
        for step in folders:
            found = self._names(path).folder(step)
            if found is None:
                return None
            path = f"{path}/{found}" if path else found
        file = self._names(path).file(last) if last else None
        return None if file is None else f"{path}/{file}" if path else file

    def choose_folder(self, names: Sequence[str], wanted: str) -> str:
        """The folder below the root in which most of the names are; among equals the root, then one whose name holds `wanted`."""
        some = names[:: max(1, len(names) // SAMPLE)][:SAMPLE]
        bases = ["", *folders_below(self.root, deepest=3)] if self.root.is_dir() else [""]

        def fitness(base: str) -> tuple[int, bool, bool]:
            return sum(self.find(base, name) is not None for name in some), base == "", wanted in base.lower()

        return max(bases, key=fitness)

    def anywhere(self, names: Sequence[str]) -> dict[str, str]:
        """Paths below the root of names that one file alone has, in whichever folder it lies."""
        places: dict[str, list[str]] = defaultdict(list)
        for folder in ("", *folders_below(self.root)):
            for name in self._names(folder).files:
                places[plain_name(name)].append(f"{folder}/{name}" if folder else name)
        return {name: found[0] for name in names if len(found := places.get(plain_name(name), [])) == 1}

    def _names(self, folder: str) -> "_Names":
        if folder not in self._listed:
            self._listed[folder] = _Names.of(self.root / folder)
        return self._listed[folder]


@dataclass(frozen=True)
class _Names:
    """What is in a folder, and what each of it may be called; what two may be called names neither."""

    files: frozenset[str]
    folders: frozenset[str]
    calls: dict[str, str]  # of files
    folder_calls: dict[str, str]

    @classmethod
    def of(cls, folder: Path) -> "_Names":
        try:
            with os.scandir(folder) as entries:
                pairs = [(entry.name, entry.is_dir()) for entry in entries if not is_hidden(entry.name)]
        except OSError:
            pairs = []
        files, folders = ([name for name, is_folder in pairs if is_folder == kind] for kind in (False, True))
        stems = {name: os.path.splitext(name)[0] for name in files if os.path.splitext(name)[1].lower().startswith(SUFFIXES)}
        calls, folder_calls = (_by_one({name: {plain_name(name), plain_name(name).lower()} for name in one}) for one in (files, folders))
        short = _by_one({name: {stem, plain_name(stem), plain_name(stem).lower()} for name, stem in stems.items()})
        return cls(frozenset(files), frozenset(folders), short | calls, folder_calls)

    def file(self, name: str) -> str | None:
        return name if name in self.files else _first(self.calls, name)

    def folder(self, name: str) -> str | None:
        return name if name in self.folders else _first(self.folder_calls, name)


def _steps(name: str) -> list[str]:
    """The folders and the file of a path; none for one that leads out of where it begins."""
    steps = [step for step in name.replace("\\", "/").split("/") if step not in ("", ".")]
    return [] if ".." in steps else steps


def _by_one(calls: dict[str, set[str]]) -> dict[str, str]:
    count = Counter(call for words in calls.values() for call in words)
    return {call: name for name, words in calls.items() for call in words if count[call] == 1}


def _first(calls: dict[str, str], name: str) -> str | None:
    return calls.get(name) or calls.get(plain_name(name)) or calls.get(plain_name(name).lower())
