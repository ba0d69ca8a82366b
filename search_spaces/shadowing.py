"""A module of the user's that bears the name of one of our packages would be imported in its place; that is said at once."""

import sys
from importlib.util import find_spec
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]  # where our packages are
PACKAGES = ("search_spaces", "trainables", "analysis", "tuner", "sweepvote")


class ShadowedError(ImportError):
    """A file or folder that Python finds before one of our packages."""


def refuse_shadows() -> None:
    """Raises: ShadowedError naming every module in the place of one of our packages; a command ends with exit code 2 instead."""
    words = _words({name: place for name in PACKAGES if (place := _place(name)) and place.parent.resolve() != HOME})
    if not words:
        return
    if _is_command():
        print(words, file=sys.stderr)
        sys.exit(2)
    raise ShadowedError(words)


def shadows_in(folder: Path) -> str:
    """Which modules in a folder would hide our packages from a process that looks there first, in words; empty: none would."""
    if folder.resolve() == HOME:
        return ""
    found = {name: place for name in PACKAGES for place in (folder / f"{name}.py", folder / name / "__init__.py") if place.is_file()}
    return _words(found)


def _words(strangers: dict[str, Path]) -> str:
    if not strangers:
        return ""
    named = "\n".join(f"{place} hides sweepvote's own package {name}" for name, place in strangers.items())
    return f"{named}. Rename it, or start from another folder: Python looks in the folder of the script, or the current one, first"


def _is_command() -> bool:
    """Whether this process is one of our commands, which have no use for a traceback."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return (spec is not None and spec.name.partition(".")[0] in PACKAGES) or Path(sys.argv[0]).name == "sweepvote"


def _place(name: str) -> Path | None:
    """The file, or for a package the folder, that an import of the name would take."""
    found = find_spec(name)
    if found is None:
        return None
    return Path(found.submodule_search_locations[0] if found.submodule_search_locations else found.origin or name)
