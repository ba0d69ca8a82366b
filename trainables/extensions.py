"""Extensions: a user's own Python files, which add entries to registries (see docs/extending.md).

A space names them. Every process of the run executes each once, a worker from its content and not from its path; the run keeps a copy and
the sha256, and from then on everything works from the copy.

Whoever opens a run executes its code. So that nobody does so unasked, a copy is executed only where this user has run that very content
before, or says --trust-code.
"""

import hashlib
import linecache
import os
import re
import sys
import traceback
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from search_spaces.errors import UserError
from trainables.registry import Registry, RegistryError
from trainables.storage import Folder, write_atomically

FOLDER = "extensions"  # of a run, or of an ensemble: copies of the files
PREFIX = "sweepvote_extension_"
SHORT = 12  # digits of a sha256 that tell contents apart in a message


class ExtensionError(UserError):
    """Extensions that cannot be had or used. Not a ValueError: records that need them are intact, and must not be treated as damaged."""


@dataclass(frozen=True)
class Extension:
    """A user's file."""

    name: str  # of the file, such as my_parts.py
    code: bytes

    @property
    def sha256(self) -> str:
        """Of the content, in hex."""
        return hashlib.sha256(self.code).hexdigest()

    @property
    def module(self) -> str:
        """The name by which Python knows what the file defines. It follows from the content, so that a pickle finds the same elsewhere."""
        return f"{PREFIX}{self.word}_{self.sha256[:SHORT]}"

    @property
    def word(self) -> str:
        """The file's name as a word of Python."""
        return re.sub(r"\W", "_", Path(self.name).stem)


_loaded: dict[str, Extension] = {}  # by name; Python's own table of modules has their contents


def hashes(extensions: Iterable[Extension]) -> dict[str, str]:
    """sha256 by name, as records hold them."""
    return {one.name: one.sha256 for one in extensions}


def loaded(names: Iterable[str] | None = None) -> tuple[Extension, ...]:
    """Those that this process has executed: of these names, in their order, or all. A file may build on what one before it adds."""
    return tuple(_loaded[name] for name in dict.fromkeys(_loaded if names is None else names) if name in _loaded)


def load(extensions: Iterable[Extension]) -> None:
    """Execute, in this process, each file that it has not executed yet. One that fails leaves no entry behind.

    A file takes the place of another version of it that this process has executed: in a session of Python one edits a file and searches
    again. What opens several runs at a time asks `refuse_versions` before.
    Raises: ExtensionError with what is wrong with each of them: its file, line and error.
    """
    mistakes = []
    for one in extensions:
        known = _loaded.get(one.name)
        if known == one:
            continue
        if known:
            _forget(known)
        if mistake := _execute(one):
            mistakes.append(mistake)
        else:
            _loaded[one.name] = one
    if mistakes:
        raise ExtensionError("\n".join(mistakes))


def refuse_versions(runs: Mapping[str, Mapping[str, str]]) -> None:
    """Raises: ExtensionError where runs that are to be opened together have different versions of a file.

    Args:
        runs: the sha256 of each file by its name, by run.
    """
    versions: dict[str, dict[str, list[str]]] = {}
    for run, known in runs.items():
        for name, sha256 in known.items():
            versions.setdefault(name, {}).setdefault(sha256, []).append(run)
    mistakes = []
    for name, found in versions.items():
        if len(found) > 1:
            which = "; ".join(f"{', '.join(having)} ({sha256[:SHORT]})" for sha256, having in found.items())
            mistakes.append(f"{name} is not the same file in {which}: what they add cannot be distinguished. Give these runs one at a time")
    if mistakes:
        raise ExtensionError("\n".join(mistakes))


def _forget(extension: Extension) -> None:
    """Remove what a file has added. Its module stays, since there may be objects of its classes."""
    del _loaded[extension.name]
    for registry in Registry.every:
        for name in [name for name, origin in registry.origins.items() if origin == extension.sha256]:
            del registry[name], registry.origins[name]


def _networks_of(word: str) -> list[str]:
    """Networks that earlier versions of a file have given to timm, which has no way to take one back."""
    timm = sys.modules.get("timm")
    modules = [name for name in sys.modules if name.startswith(f"{PREFIX}{word}_")]
    return [network for module in modules for network in timm.list_models(module=module)] if timm else []


def _execute(extension: Extension) -> str:
    """What is wrong with the file, with its line; nothing where it could be executed."""
    name, module, here = extension.name, ModuleType(extension.module), Path.cwd()
    module.__file__ = name
    # Before it is executed: classes and decorators look up the module that they are in. Tracebacks show lines that no disk has.
    sys.modules[extension.module] = module
    lines = extension.code.decode(errors="replace").splitlines(keepends=True)
    linecache.cache[name] = (len(extension.code), None, lines, name)
    try:
        # What it prints is no part of a command's answer.
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            # timm only warns of a name that is taken.
            warnings.filterwarnings("error", "Overwriting .* in registry")
            for network in _networks_of(extension.word):
                warnings.filterwarnings("ignore", f"Overwriting {network} in registry")
            exec(compile(extension.code, name, "exec"), module.__dict__)
        if Path.cwd() != here:
            raise RegistryError("changes the current folder (os.chdir), from which every path is seen; remove that")
    except (Exception, SystemExit) as error:
        os.chdir(here)
        for registry, added in _additions():
            del registry[added]
        return _in_words(name, error)
    for registry, added in _additions():
        registry.origins[added] = extension.sha256
    return ""


def _additions() -> list[tuple[Registry, str]]:
    """Entries whose origin is not known yet."""
    return [(registry, name) for registry in Registry.every for name in registry if name not in registry.origins]


def _in_words(name: str, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename == name:
        return f"{name}:{error.lineno or 1}: {type(error).__name__}: {error.msg}"
    message = str(error) if isinstance(error, RegistryError) else f"{type(error).__name__}: {error}"
    hint = ". An extension is one file: write into it what it needs, or install that as a package" if isinstance(error, ImportError) else ""
    return f"{_place(error, {name}) or f'{name}:1'}: {message}{hint}"


def fault_of(error: BaseException) -> str:
    """Where, and how, an error was raised below a line of an extension, in words; empty for an error that has nothing to do with one."""
    place = _place(error, _loaded)
    return f"{place}: {type(error).__name__}: {error}" if place else ""


def _place(error: BaseException, names: Container[str]) -> str:
    """The innermost line of these files that an error came through; empty where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f"{frame.filename}:{frame.lineno}" for frame in reversed(frames) if frame.filename in names), "")


# Copies


def write_copies(folder: Folder, extensions: Iterable[Extension]) -> None:
    """Keep the files in a run's or an ensemble's folder."""
    for one in extensions:
        file = folder / FOLDER / one.name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, one.code)


def is_copy(file: Path) -> bool:
    """Whether a file is one that a run keeps."""
    return file.resolve().parent.name == FOLDER and (file.resolve().parent.parent / "run.json").is_file()


def open_copies(folder: Folder, known: Mapping[str, str]) -> tuple[Extension, ...]:
    """The extensions that a run's or an ensemble's folder holds, executed in this process.

    Where the user has given --trust-code, files are executed that never ran here, and files that were changed.

    Args:
        known: the sha256 of each file that it must hold, by name.
    Raises: ExtensionError naming each file that is missing, was changed, is not trusted or cannot be executed.
    """
    found, mistakes, strange, here = [], [], [], trusted()
    for name, sha256 in known.items():
        file = folder / FOLDER / name
        if Path(name).name != name:
            mistakes.append(f"{folder} names the extension {name!r}, which is no plain file name")
            continue
        try:
            one = Extension(name, file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            mistakes.append(f"{file} is missing; restore it from a backup, or put back the file whose sha256 is {sha256}")
            continue
        found.append(one)
        if code_is_trusted():
            continue
        if one.sha256 != sha256:
            mistakes.append(
                f"{file} was changed: its sha256 is {one.sha256}, and the records were made with {sha256}. Restore that one, or, "
                "if you mean the change, give --trust-code"
            )
        elif sha256 not in here:
            strange.append((file, one))
    if strange:
        mistakes.append(unread_words(folder, strange))
    if mistakes:
        raise ExtensionError("\n".join(mistakes))
    load(found)
    trust(found)
    return tuple(found)


# Trust

_all_trusted = [False]


def trust_code(asked: bool) -> bool:
    """Whether this process executes all code that comes with what it opens."""
    _all_trusted[0] = asked
    return asked


@contextmanager
def trusting(asked: bool) -> Iterator[None]:
    """The same within a block."""
    before = code_is_trusted()
    trust_code(asked)
    try:
        yield
    finally:
        trust_code(before)


def code_is_trusted() -> bool:
    """Whether the user has said so."""
    return _all_trusted[0]


def unread_words(folder: Folder, files: Iterable[tuple[Folder, Extension]]) -> str:
    """That a folder has files that this user never ran."""
    words = f"{folder} comes with Python code that has never run on this machine as you. Read it, then give --trust-code:"
    return "\n".join([words, *(f"  {file} (sha256 {one.sha256})" for file, one in files)])


def trust_file() -> Path:
    """Where the contents stand that this user has run, a line each; no cache, so that nothing that empties one takes it away."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sweepvote" / "trusted"


def trusted() -> set[str]:
    """sha256 of every content that this user has run on this machine, or this process has executed."""
    known = {one.sha256 for one in _loaded.values()}
    with suppress(OSError, ValueError, RuntimeError):
        known |= {line.split()[0] for line in trust_file().read_text().splitlines() if line.strip()}
    return known


def trust(extensions: Iterable[Extension]) -> None:
    """Note that this user has run these files. A home that cannot be written stays as it is: then the question comes again."""
    with suppress(OSError, ValueError, RuntimeError):
        file = trust_file()
        known = file.read_text() if file.is_file() else ""
        lines = "".join(f"{one.sha256}  {one.name}\n" for one in extensions if one.sha256 not in known)
        if lines:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as stream:
                stream.write(lines)
