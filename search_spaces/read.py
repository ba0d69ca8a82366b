"""Reads a YAML space, with what it extends, into a checked `Space`; reports every mistake at once, with file and line.

A space is a stack of layers: the file at the end of the `extends:` chain, its children, the `on_cpu:` overlays, the changes from the
command line. A later layer's value replaces an earlier one's at the same path.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from search_spaces.schema import (
    Choice,
    Chooser,
    Domain,
    Float,
    Int,
    Parameter,
    Space,
    SpaceError,
    When,
    as_drawn,
    as_optuna,
    divides,
    holds,
    holds_in,
    is_number,
    same,
    show,
)

FOLDER = Path(__file__).parent
BASES = {"common.yaml", "finetune.yaml"}  # to be extended, no spaces themselves
RESERVED = ("extends", "extensions", "start", "on_cpu")
KINDS = {"choice": ("when",), "float": ("log", "step", "when"), "int": ("log", "step", "when")}  # and the further keys of each

CHANGES, GIVEN = Path("--set"), Path("space")  # stand for a file where there is none: changes, and a space that is a dict

Check = Callable[[Space], list[tuple[str, str]]]


@dataclass(frozen=True)
class Entry:
    """What one layer says about one path."""

    value: Any  # plain, or a Domain; None where it could not be read, and the mistake is noted already
    place: str
    when: When = ()
    layer: int = 0

    def can_be(self, value: Any) -> bool:
        return self.value.holds(value) if isinstance(self.value, Domain) else same(self.value, value)


Layer = dict[str, Entry]


@dataclass(frozen=True)
class Document:
    """One file, read but not yet merged."""

    settings: Layer
    overlay: Layer
    start: list[Layer] | None
    extensions: dict[Path, str]  # where each is named


def shipped_spaces() -> list[str]:
    """The files of the spaces that come with the package, seen from their folder: `effnet.yaml`, `reports/004.yaml`."""
    return sorted(name for file in FOLDER.rglob("*.yaml") if (name := file.relative_to(FOLDER).as_posix()) not in BASES)


def find_shipped(name: str) -> Path:
    """The file of a shipped space, by its name with or without `.yaml`. Raises: SpaceError with the names that there are."""
    known = shipped_spaces()
    if (file := f"{name.removesuffix('.yaml')}.yaml") in known:
        return FOLDER / file
    raise SpaceError([f"{name} is no shipped space{_nearest(name, known)} Shipped are {', '.join(known)}."])


def read_space(
    space: str | Path | Mapping[str, Any],
    *,
    on_cpu: bool = False,
    changes: Sequence[str] = (),
    choosers: Mapping[str, Chooser] | None = None,
    check: Check | None = None,
) -> Space:
    """Read a space and check it.

    Args:
        space: a file, or the name of a shipped space with or without `.yaml`; a file of that name comes first. Or what such a file holds.
        on_cpu: whether the `on_cpu:` overlays are laid over the rest.
        changes: `section/field=value` texts, the value in YAML; they are laid over everything else.
        choosers: the settings that name an entry of a registry, by path. A setting that only some entries have is drawn, or set, only where
            one of them is chosen, as if a `when` said so; where no configuration could have it, that is a mistake.
        check: called with the space built from all that could be read; returns further mistakes as (path, message).

    Start entries are checked with the files. Where an overlay, a change or a child file makes some of their values impossible, those
    values are left out, as the space's `left_out` says.

    Raises: SpaceError with all mistakes, one line each: `effnet.yaml:14: optimizer/lr: low is the text '1e-5', ...`.
    """
    file, text = _source(space)
    mistakes: list[str] = []
    documents = _read_chain(file, text, mistakes)
    files = [document.settings for document in documents]
    overlays = [document.overlay for document in documents]
    changed = _read_changes(changes, mistakes)

    def settings_in(layers: Sequence[Layer]) -> Layer:
        return _with_owners(_settings(_merged(layers, mistakes)), choosers or {}, mistakes)

    # The overlay is verified even where it is not used: a machine without GPU must not be the first to hear of a mistake.
    for layers in files, [*files, *overlays]:
        _parameters(settings_in(layers), mistakes)
    everything = _merged([*files, *(overlays if on_cpu else []), changed], mistakes)
    entries = _with_owners(_settings(everything), choosers or {}, mistakes)
    parameters = _parameters(entries, mistakes)
    fixed = {path: entry for path, entry in entries.items() if not isinstance(entry.value, Domain | None)}
    start, left_out = _fitting_start(documents, settings_in, entries, parameters, mistakes)
    result = Space(
        name=file.stem,
        file=str(file),
        run={path.removeprefix("run/"): entry.value for path, entry in everything.items() if _is_run(path) and entry.value is not None},
        fixed={path: entry.value for path, entry in fixed.items()},
        parameters=parameters,
        start=start,
        places=_places(everything),
        fixed_when={path: entry.when for path, entry in fixed.items() if entry.when},
        left_out=left_out,
    )
    if check:
        unread = {path for path, entry in everything.items() if entry.value is None}
        found = [(path, message) for path, message in check(result) if path not in unread]
        mistakes += [f"{_place_of(path, result.places, file.name)}: {path}: {message}" for path, message in found]
    if mistakes:
        raise SpaceError(sorted(dict.fromkeys(mistakes), key=_file_and_line))
    return result


def find_extensions(space: str | Path | Mapping[str, Any], there: Collection[str] = ()) -> list[Path]:
    """The Python files that a space and all that it extends name under `extensions:`, each seen from the file that names it.

    They are to be executed before the space is read, as its settings may be theirs. What else is wrong with it, `read_space` says.

    Args:
        space: as for `read_space`.
        there: names of files that need not lie beside the space, since the run that it resumes has them; these are not among the answer.
    Raises: SpaceError naming each that is missing or no Python file, and two of one name.
    """
    mistakes: list[str] = []
    documents = _read_chain(*_source(space), [])
    places = {file: place for document in documents for file, place in document.extensions.items()}
    found = {file.resolve(): file for file in places if file.is_file() or file.name not in there}
    for file in found.values():
        others = [other for other in found.values() if other.name == file.name and other != file]
        if file.suffix != ".py":
            mistakes.append(f"{places[file]}: extensions: {file} is no Python file; its name must end in .py.")
        elif not file.is_file():
            mistakes.append(f"{places[file]}: extensions: {file} is missing; a path is seen from the folder of the space that names it.")
        elif others:
            mistakes.append(f"{places[file]}: extensions: {file} and {others[0]} have one name; rename one of them.")
    if mistakes:
        raise SpaceError(sorted(mistakes, key=_file_and_line))
    return list(found.values())


def read_configuration(space: Space, changes: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The searched values, by path, of a configuration that somebody proposes; what is not given is left to be drawn.

    Args:
        changes: `section/field=value` texts, the value in YAML; or values by path.
    Raises: SpaceError with everything that the space cannot draw, and what it can.
    """
    mistakes: list[str] = []
    searched = {parameter.path: parameter.domain for parameter in space.parameters}
    if isinstance(changes, Mapping):
        given = dict(changes)
    else:
        given = {path: entry.value for path, entry in _read_changes(changes, mistakes).items()}
    values = {path: as_drawn(searched[path], value) if path in searched else value for path, value in given.items()}
    mistakes += not_drawn(space, values)
    if not values and not mistakes:
        mistakes.append(f"{CHANGES}: nothing is proposed; give at least one of {', '.join(searched)}")
    if mistakes:
        raise SpaceError(mistakes)
    return {path: value for path, value in values.items() if path in searched}


def not_drawn(space: Space, values: Mapping[str, Any]) -> list[str]:
    """What is wrong with values, by path, that a space is to draw together, one line each; nothing where it can."""
    searched, settled = {parameter.path: parameter for parameter in space.parameters}, space.settled(values)
    flaws = {path: _outside(path, value, space, searched, settled) for path, value in values.items()}
    return [f"{CHANGES}: {path}: {flaw}" for path, flaw in flaws.items() if flaw]


def _outside(path: str, value: Any, space: Space, searched: Mapping[str, Parameter], settled: Mapping[str, Any]) -> str:
    """Why a space cannot draw a value at the path beside the others, or nothing."""
    if value is None:
        return ""
    if isinstance(value, Domain):
        return "a proposal holds single values, no choices or ranges."
    if path in searched:
        parameter = searched[path]
        if not parameter.domain.holds(value):
            return f"is {show(value)}, but it can only be {parameter.domain.describe()} ({parameter.place})."
        unmet = [condition for condition in parameter.when if not holds((condition,), settled)]
        missing = [f"{name} is {' or '.join(map(show, allowed))}" for name, allowed in unmet]
        return f"is drawn only where {' and '.join(missing)}; propose that too." if missing else ""
    if path in space.fixed:
        fixed = space.fixed[path]
        return "" if same(value, fixed) else f"is {show(value)}, but this run does not search it: it is {show(fixed)}."
    return f"is not searched by this run{_nearest(path, searched)} Searched are {', '.join(searched)}."


# Files


def _source(space: str | Path | Mapping[str, Any]) -> tuple[Path, str | None]:
    """The file of a space, and its text where that is in no file. Raises: SpaceError naming the spaces that are shipped."""
    if isinstance(space, Mapping):
        return GIVEN, _as_yaml(space)
    file = _find(str(space), Path())
    if file is None:
        known = shipped_spaces()
        raise SpaceError([f"{space} is neither a file nor a shipped space{_nearest(str(space), known)} Shipped are {', '.join(known)}."])
    return file, None


def _find(name: str, folder: Path) -> Path | None:
    """The file of that name, seen from the folder, or the shipped one."""
    shipped = [one for one in (name, f"{name}.yaml") if one in BASES or one in shipped_spaces()]
    candidates = [folder / name, *(FOLDER / one for one in shipped)]
    return next((file for file in candidates if file.is_file()), None)


def _as_yaml(space: Mapping[str, Any]) -> str:
    """Raises: SpaceError for what YAML has no word for."""
    try:
        return yaml.safe_dump(dict(space), sort_keys=False)
    except yaml.representer.RepresenterError:
        words = "is no plain value; write numbers, texts, true or false, lists and dicts"
        raise SpaceError([f"{GIVEN}: {path}: {value!r} {words}" for path, value in _odd_values(space, "")]) from None


def _odd_values(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """What is no plain value, and where it stands."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _odd_values(inner, f"{path}/{name}" if path else str(name))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _odd_values(inner, path)
    elif type(value) not in (str, int, float, bool, type(None)):
        yield path, value


def _read_chain(file: Path, text: str | None, mistakes: list[str]) -> list[Document]:
    """The documents of a file and of all that it extends, the farthest first. Raises SpaceError where one cannot be read at all.

    Args:
        text: of the first, where that is no file.
    """
    documents: list[Document] = []
    seen: list[Path] = []
    while True:
        seen.append(file.resolve())
        try:
            root = _compose(file.read_text(encoding="utf-8") if text is None else text)
            text = None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SpaceError([*mistakes, f"{_at(file, getattr(error, 'problem_mark', None))}: is not YAML: {_reason(error)}."]) from None
        if not isinstance(root, yaml.MappingNode):
            raise SpaceError([*mistakes, f"{file.name}: must hold settings, such as `task: joint`."])
        mistakes += _repeated_keys(root, file)
        top = dict(_items(root, file, "", mistakes))
        documents.insert(0, _read_document(top, file, mistakes))
        if "extends" not in top:
            return documents
        place, node = top["extends"]
        parent = _find(node.value, file.parent) if isinstance(node, yaml.ScalarNode) else None
        if parent is None:
            shipped = sorted(BASES) + shipped_spaces()
            hint = f"{_nearest(_text_of(node), shipped)} Shipped are {', '.join(shipped)}."
            wrong = f"{_text_of(node)} is neither a file seen from {file.name}'s folder nor a shipped one{hint}"
            raise SpaceError([*mistakes, f"{place}: extends: {wrong}"])
        if parent.resolve() in seen:
            circle = " -> ".join([*(path.name for path in seen[seen.index(parent.resolve()) :]), parent.name])
            raise SpaceError([*mistakes, f"{place}: extends: is circular: {circle}."])
        file = parent


def _read_document(top: dict[str, tuple[str, yaml.Node]], file: Path, mistakes: list[str]) -> Document:
    settings = _read_layer({name: item for name, item in top.items() if name not in RESERVED}, file, mistakes)
    overlay: Layer = {}
    start = None
    if "on_cpu" in top:
        place, node = top["on_cpu"]
        if isinstance(node, yaml.MappingNode):
            items = dict(_items(node, file, "on_cpu/", mistakes))
            mistakes += [
                f"{items[name][0]}: on_cpu/{name}: {name} is not allowed in an overlay; write it at the top level."
                for name in RESERVED
                if name in items
            ]
            overlay = _read_layer({name: item for name, item in items.items() if name not in RESERVED}, file, mistakes)
        else:
            mistakes.append(f"{place}: on_cpu: must hold settings, such as {{view: {{size: 64}}}}.")
    if "start" in top:
        place, node = top["start"]
        if isinstance(node, yaml.SequenceNode) and all(isinstance(entry, yaml.MappingNode) for entry in node.value):
            start = [_read_start(entry, file, mistakes) for entry in node.value]
        else:
            mistakes.append(f"{place}: start: must be a list of configurations, such as [{{loss: {{name: focal}}}}].")
    return Document(settings, overlay, start, _read_extensions(top, file, mistakes))


def _read_extensions(top: dict[str, tuple[str, yaml.Node]], file: Path, mistakes: list[str]) -> dict[Path, str]:
    if "extensions" not in top:
        return {}
    place, node = top["extensions"]
    if isinstance(node, yaml.SequenceNode) and all(isinstance(one, yaml.ScalarNode) and one.value for one in node.value):
        return {file.parent / one.value: _at(file, one.start_mark) for one in node.value}
    mistakes.append(f"{place}: extensions: must be a list of Python files, such as [my_parts.py].")
    return {}


def _read_start(node: yaml.MappingNode, file: Path, mistakes: list[str]) -> Layer:
    entry = _read_layer(dict(_items(node, file, "start/", mistakes)), file, mistakes)
    for path in [path for path, one in entry.items() if isinstance(one.value, Domain)]:
        mistakes.append(f"{entry.pop(path).place}: {path}: a start entry holds single values, no choices or ranges.")
    return entry


def _read_changes(changes: Sequence[str], mistakes: list[str]) -> Layer:
    layer: Layer = {}
    for change in changes:
        path, equals, text = change.partition("=")
        names = path.split("/")
        if not equals or not all(names) or len(names) > 2 or names[0] in RESERVED:
            mistakes.append(f"--set: {change!r} is not section/field=value; write it such as loss/gamma=2.")
            continue
        try:
            node = _compose(text)
        except yaml.YAMLError as error:
            mistakes.append(f"--set: {path}: {text!r} is not YAML: {_reason(error)}.")
            continue
        mistakes += _repeated_keys(node, CHANGES) if node else []
        if node is None:
            mistakes.append(f"--set: {path}: has no value; write {path}=value.")
        elif len(names) == 2:
            layer[path] = _read_entry(path, "--set", node, mistakes)
        else:
            layer |= _read_layer({path: ("--set", node)}, CHANGES, mistakes)
    return layer


# Nodes of YAML


def _compose(text: str) -> yaml.Node | None:
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _construct(node: yaml.Node) -> Any:
    """The plain value of a node. Raises ValueError where it has none."""
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except yaml.YAMLError as error:
        raise ValueError(_reason(error)) from None


def _at(file: Path, mark: yaml.Mark | None) -> str:
    # What is no file has no lines.
    return file.name if mark is None or file in (CHANGES, GIVEN) else f"{file.name}:{mark.line + 1}"


def _reason(error: Exception) -> str:
    return getattr(error, "problem", None) or str(error).splitlines()[0]


def _items(node: yaml.MappingNode, file: Path, prefix: str, mistakes: list[str]) -> Iterator[tuple[str, tuple[str, yaml.Node]]]:
    """(name, (place, node)) of a mapping whose keys are names; what `<<:` merges in comes first, so that the mapping's own values win."""
    mistakes += _merge(node, file)
    for key, value in node.value:
        place = _at(file, key.start_mark)
        if key.tag != "tag:yaml.org,2002:str" or not key.value:
            mistakes.append(f"{place}: {prefix}{_text_of(key)}: is not a name to YAML; names are words.")
        elif "/" in key.value:
            section, _, field = key.value.partition("/")
            mistakes.append(f"{place}: {prefix}{key.value}: a path is not allowed here; write {section}: {{{field}: ...}}.")
        else:
            yield key.value, (place, value)


def _merge(node: yaml.MappingNode, file: Path) -> list[str]:
    """Put what `<<:` names into the mapping."""
    place = _at(file, node.start_mark)
    try:
        yaml.SafeLoader("").flatten_mapping(node)
    except yaml.YAMLError as error:
        node.value = [(key, value) for key, value in node.value if key.tag != "tag:yaml.org,2002:merge"]
        return [f"{place}: <<: cannot be merged: {_reason(error)}."]
    return []


def _text_of(node: yaml.Node) -> str:
    return node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"


def _repeated_keys(node: yaml.Node, file: Path) -> list[str]:
    mistakes = []
    waiting, seen = [("", node)], set()
    while waiting:
        prefix, node = waiting.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(prefix, child) for child in node.value]
            continue
        first: dict[str, int] = {}
        for key, child in node.value:
            name, line = _text_of(key), key.start_mark.line + 1
            if name in first:
                mistakes.append(f"{_at(file, key.start_mark)}: {prefix}{name}: is given twice, first in line {first[name]}; keep one.")
            first.setdefault(name, line)
            waiting.append((f"{prefix}{name}/", child))
    return mistakes


# Entries


def _read_layer(items: Mapping[str, tuple[str, yaml.Node]], file: Path, mistakes: list[str]) -> Layer:
    """The entries of a mapping of sections and fields of the top level."""
    layer: Layer = {}
    for name, (place, node) in items.items():
        if isinstance(node, yaml.MappingNode) and not _kinds(node):
            for field, (inner_place, inner) in _items(node, file, f"{name}/", mistakes):
                layer[f"{name}/{field}"] = _read_entry(f"{name}/{field}", inner_place, inner, mistakes)
        elif name == "run":
            mistakes.append(f"{place}: run: must be a mapping, such as {{trials: 20, epochs: 10}}.")
        else:
            layer[name] = _read_entry(name, place, node, mistakes)
    return layer


def _kinds(node: yaml.MappingNode) -> list[str]:
    return [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value in KINDS]


def _read_entry(path: str, place: str, node: yaml.Node, mistakes: list[str]) -> Entry:
    flaws: list[str] = []
    value, when = None, ()
    try:
        spec = _construct(node)
    except ValueError as error:
        flaws.append(f"cannot be read: {error}.")
    else:
        flaws += _misread(node)
        if not flaws and not isinstance(spec, dict):
            flaws += _flaws(spec)
            value = spec
        elif not flaws and path.startswith("run/") and set(KINDS) & set(spec):
            flaws.append("run settings are not searched; write one value.")
        elif not flaws and path.startswith("run/"):
            value = spec  # a table, such as run/costs
        elif not flaws:
            value, when = _domain(spec, flaws)
    mistakes += [f"{place}: {path}: {flaw}" for flaw in flaws]
    return Entry(None if flaws else value, place, when)


def _misread(node: yaml.Node) -> list[str]:
    """Values that YAML 1.1 takes for something else than they look like, and 1.2 does not: off, 064, 1:30, 5_0."""
    if isinstance(node, yaml.SequenceNode):
        return [flaw for inner in node.value for flaw in _misread(inner)]
    if isinstance(node, yaml.MappingNode):
        return [flaw for _, inner in node.value for flaw in _misread(inner)]
    text, tag = node.value, node.tag.rpartition(":")[2]
    if not isinstance(node, yaml.ScalarNode) or node.style is not None or tag not in ("bool", "int", "float"):
        return []
    if tag == "bool":
        if text.lower() in ("true", "false"):
            return []
        write = "true" if _construct(node) else "none, false or 0"
        return [f"YAML reads {text} as {show(_construct(node))}; write {write}, or '{text}' in quotes for the word."]
    if not re.search(r"[:_xb]|^[-+]?0\d", text):
        return []
    written, read = text.replace("_", ""), _construct(node)
    meant = [] if re.search(r"[:xb]", text) else [float(written) if "." in written else int(written)]
    numbers = " or ".join(dict.fromkeys(map(show, [*meant, read])))
    return [f"YAML reads {text} as {show(read)}; write {numbers}, or '{text}' in quotes for the text."]


def _domain(spec: dict[Any, Any], flaws: list[str]) -> tuple[Domain | None, When]:
    kinds = [kind for kind in KINDS if kind in spec]
    if len(kinds) != 1:
        hint = "." if kinds else next((hint for key in spec if (hint := _nearest(str(key), KINDS)) != "."), ".")
        flaws.append(f"needs exactly one of choice, float and int, and has {' and '.join(kinds) or 'none'}{hint}")
        return None, ()
    (kind,) = kinds
    for key in spec:
        if key not in (kind, *KINDS[kind]):
            flaws.append(f"{kind} has no option {key}{_nearest(str(key), KINDS[kind])} It has {', '.join(KINDS[kind])}.")
    domain = _choice(spec[kind], flaws) if kind == "choice" else _range(kind, spec, flaws)
    return domain, _when(spec.get("when", {}), flaws)


def _choice(values: Any, flaws: list[str]) -> Choice | None:
    if not isinstance(values, list) or not values:
        flaws.append(f"choice needs a list of one value or more, got {show(values)}.")
        return None
    wrong = _flaws(values)
    flaws += wrong
    if wrong:
        return None
    drawn = [as_optuna(value) for value in values]
    flaws += [f"choice holds {show(value)} twice; keep one." for i, value in enumerate(values) if drawn[i] in drawn[:i]]
    return Choice(tuple(values))


def _range(kind: str, spec: dict[str, Any], flaws: list[str]) -> Float | Int | None:
    ends, log, step = spec[kind], spec.get("log", False), spec.get("step")
    if not isinstance(ends, list) or len(ends) != 2:
        flaws.append(f"{kind} needs [low, high], got {show(ends)}.")
        return None
    numbers = {"low": ends[0], "high": ends[1]} | ({"step": step} if "step" in spec else {})
    wrong = [flaw for name, number in numbers.items() if (flaw := _number_flaw(kind, name, number))]
    low, high = ends
    if not wrong:
        if low > high:
            wrong.append(f"low {show(low)} is above high {show(high)}; write [{show(high)}, {show(low)}].")
        if log is True and low <= 0:
            wrong.append(f"low is {show(low)}, and log needs a low above 0.")
        if log is True and step is not None:
            wrong.append("log and step cannot be combined; remove one.")
        if step is not None and step <= 0:
            wrong.append(f"step is {show(step)}, and must be above 0.")
        elif step is not None and low <= high and not divides(step, high - low):
            reached = show(round(low + (high - low) // step * step, 12))
            wrong.append(f"steps of {show(step)} from {show(low)} do not reach high {show(high)}; end at {reached}.")
    if not isinstance(log, bool):
        wrong.append(f"log is {show(log)}; write true or false.")
    flaws += wrong
    if wrong:
        return None
    return Int(low, high, log, step) if kind == "int" else Float(float(low), float(high), log, step)


def _number_flaw(kind: str, name: str, value: Any) -> str:
    if isinstance(value, str):
        hint = _number_hint(value) or (" Remove the quotes." if _is_numeral(value) else "")
        return f"{name} is the text {value!r}, not a number.{hint}"
    if not is_number(value) or not math.isfinite(value):
        return f"{name} is {show(value)}, not a number."
    if kind == "int" and not isinstance(value, int):
        return f"{name} is {value}, and an int range has integers only; write {value:.0f}, or float instead of int."
    return ""


def _when(conditions: Any, flaws: list[str]) -> When:
    if not isinstance(conditions, dict):
        flaws.append("when needs names and values, such as {loss/name: focal}.")
        return ()
    flaws += [flaw for value in conditions.values() for flaw in _flaws(value)]
    flaws += [f"when names {name} without a value; give one or more." for name, value in conditions.items() if value == []]
    return tuple((str(name), tuple(value) if isinstance(value, list) else (value,)) for name, value in conditions.items())


def _flaws(value: Any) -> list[str]:
    """What is wrong with a plain value: a number, a text, true or false, or a list of such values."""
    if isinstance(value, list):
        return [flaw for inner in value for flaw in _flaws(inner)]
    if value is None:
        return ["has no value; give one, or remove the name."]
    if isinstance(value, str):
        hint = _number_hint(value)
        return [f"is the text {value!r}, not a number.{hint}"] if hint else []
    if not isinstance(value, int | float) or not math.isfinite(value):
        return [f"{show(value)} is neither a number, a text, true or false, nor a list of such values."]
    return []


def _number_hint(text: str) -> str:
    """How to write a number that YAML takes for text; empty for what is a text or, but for its quotes, a number to YAML."""
    if not _is_numeral(text) or not isinstance(yaml.safe_load(text), str):
        return ""
    mantissa, _, exponent = text.lower().partition("e")
    return f" YAML reads {text} as text; write {float(mantissa)}{f'e{int(exponent):+d}' if exponent else ''}."


def _is_numeral(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return any(letter.isdigit() for letter in text)  # nan and inf are words here


# Layers into a space


def _merged(layers: Sequence[Layer], mistakes: list[str]) -> Layer:
    merged: Layer = {}
    for number, layer in enumerate(layers):
        merged |= {path: replace(entry, layer=number) for path, entry in layer.items()}
    for path in [path for path in merged if _section(path) in merged]:
        entry, section = merged.pop(path), _section(path)
        mistakes.append(f"{entry.place}: {path}: {section} is a value ({merged[section].place}) and cannot be a section too; keep one.")
    # Section by section, as one file would say it: then a space draws alike when it is read from many files and from one.
    sections = dict.fromkeys(map(_section, merged))
    return {path: merged[path] for section in sections for path in merged if _section(path) == section}


def _section(path: str) -> str:
    return path.rpartition("/")[0]


def _settings(entries: Layer) -> Layer:
    return {path: entry for path, entry in entries.items() if not _is_run(path)}


def _is_run(path: str) -> bool:
    return path.startswith("run/")


def _with_owners(entries: Layer, choosers: Mapping[str, Chooser], mistakes: list[str]) -> Layer:
    """The entries, where some values of a chooser have the setting and others not with that as a condition.

    Left out are those that no configuration has since a later layer narrowed the chooser; within a layer that is a mistake.
    """
    owned: Layer = {}
    for path, entry in entries.items():
        found = next(((name, chooser) for name, chooser in choosers.items() if chooser.having(path)), None)
        if found is None:
            owned[path] = entry
            continue
        name, chooser = found
        named = entries.get(name)
        possible = [one for one in chooser.settings if (one == chooser.default if named is None else named.can_be(one))]
        having = [one for one in possible if one in chooser.having(path)]
        if len(having) == len(possible):
            owned[path] = entry  # or the chooser has no value that exists, which is a mistake of its own
        elif having:
            owned[path] = replace(entry, when=_narrowed(path, entry, name, having, chooser, mistakes))
        elif named is None or named.layer <= entry.layer:
            mistakes.append(f"{entry.place}: {path}: {chooser.refusal(path, possible)}.")
    return owned


def _narrowed(path: str, entry: Entry, name: str, having: Sequence[str], chooser: Chooser, mistakes: list[str]) -> When:
    """The conditions of an entry, with that of its owners; one on the chooser that the file gives is kept as far as it makes sense."""
    given = dict(entry.when).get(name)
    if given is None:
        return ((name, tuple(having)), *entry.when)
    wrong = [one for one in given if one in chooser.settings and one not in chooser.having(path)]
    if wrong:
        mistakes.append(f"{entry.place}: {path}: when waits for {name} to be {wrong[0]}: {chooser.refusal(path, wrong)}.")
    return entry.when


def _parameters(entries: Layer, mistakes: list[str]) -> tuple[Parameter, ...]:
    """The searched entries in drawing order: as they stand in the file, but each after all that its `when` names.

    Left out are those that can never be drawn since a later layer took a value away that they wait for.
    """
    searched = {path: entry for path, entry in entries.items() if isinstance(entry.value, Domain)}
    for path, entry in entries.items():
        mistakes += [f"{entry.place}: {path}: {flaw}" for flaw in _when_flaws(entry, entries)]
    waiting, ordered = dict(searched), {}
    while waiting:
        ready = next((path for path, entry in waiting.items() if not any(name in waiting for name in _awaited(entry, entries))), None)
        if ready is None:
            circle = _circle(waiting, entries)
            mistakes.append(f"{waiting[circle[0]].place}: {circle[0]}: when is circular: {' -> '.join(circle)}.")
            waiting = {path: entry for path, entry in waiting.items() if path not in circle}
            continue
        entry = waiting.pop(ready)
        if all(_can_hold(entries.get(name), allowed, name in searched and name not in ordered) for name, allowed in entry.when):
            ordered[ready] = Parameter(ready, entry.value, entry.when, entry.place)
    return tuple(ordered.values())


def _awaited(entry: Entry, entries: Layer) -> Iterator[str]:
    """What must be settled before the entry is: all that its `when` names, and what fixed values among them wait for themselves."""
    for name, _ in entry.when:
        yield name
        if name in entries and not isinstance(entries[name].value, Domain):
            yield from (waited for waited, _ in entries[name].when)


def _can_hold(named: Entry | None, allowed: tuple, is_left_out: bool) -> bool:
    return named is not None and not is_left_out and named.value is not None and any(named.can_be(value) for value in allowed)


def _when_flaws(entry: Entry, entries: Layer) -> Iterator[str]:
    for name, allowed in entry.when:
        named = entries.get(name)
        if named is None:
            yield f"when names {name}, which is not in this space{_nearest(name, list(entries))}"
        elif named.value is not None and named.layer <= entry.layer:
            # A later layer may narrow what an earlier one waits for; within a layer it is a slip.
            for value in allowed:
                if not named.can_be(value):
                    yield f"when waits for {name} to be {show(value)}, but it can only be {_can_only_be(named)}."


def _circle(waiting: Layer, entries: Layer) -> list[str]:
    path = [next(iter(waiting))]
    while path[-1] not in path[:-1]:
        path.append(next(name for name in _awaited(waiting[path[-1]], entries) if name in waiting))
    return path[path.index(path[-1]) :]


def _fitting_start(
    documents: Sequence[Document],
    settings_in: Callable[[Sequence[Layer]], Layer],
    entries: Layer,
    parameters: Sequence[Parameter],
    mistakes: list[str],
) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """The start entries of the last document that has some, without the values that do not fit the final space; and which those are."""
    with_start = [(depth, document.start) for depth, document in enumerate(documents, start=1) if document.start is not None]
    if not with_start:
        return (), ()
    depth, starts = with_start[-1]
    written = settings_in([document.settings for document in documents[:depth]])
    searched = {parameter.path for parameter in parameters}
    fixed = {path for path, entry in entries.items() if not isinstance(entry.value, Domain)}
    fitting: list[dict[str, Any]] = []
    left_out: list[str] = []
    for number, start in enumerate(starts, start=1):
        known = {path: one.value for path, one in start.items() if one.value is not None}
        mistakes += [f"{start[path].place}: {path}: {misfit}" for path in known if (misfit := _misfit(path, known, written))]
        fits = {path: value for path, value in known.items() if (path in searched or path in fixed) and not _misfit(path, known, entries)}
        tried = bool(fits.keys() & searched) and fits not in fitting
        if missing := [path for path in known if path not in fits]:
            words = ", ".join(f"{path} {show(known[path])}" for path in missing)
            rest = "" if tried else "; what remains is no further configuration, so it is not tried"
            left_out.append(f"{start[missing[0]].place}: start entry {number} is without what cannot be drawn here: {words}{rest}.")
        if tried:
            fitting.append(fits)
    return tuple(fitting), tuple(left_out)


def _misfit(path: str, start: Mapping[str, Any], entries: Layer) -> str:
    """Why a start entry cannot have its value at the path, or nothing."""
    entry, value = entries.get(path), start[path]
    if entry is None:
        return f"start names {path}, which is not in this space{_nearest(path, list(entries))}"
    if entry.value is None:
        return ""
    if not entry.can_be(value):
        return f"start has {show(value)}, but it can only be {_can_only_be(entry)}."
    for name, allowed in entry.when:
        settled = start.get(name, None if name not in entries or isinstance(entries[name].value, Domain) else entries[name].value)
        if settled is not None and not holds_in(allowed, settled):
            return f"start has {show(value)}, but it is drawn only where {name} is {' or '.join(map(show, allowed))}."
    return ""


def _can_only_be(entry: Entry) -> str:
    return entry.value.describe() if isinstance(entry.value, Domain) else f"{show(entry.value)} ({entry.place})"


def _places(entries: Layer) -> dict[str, str]:
    places = {path: entry.place for path, entry in entries.items()}
    for path, entry in entries.items():
        section, _, _ = path.rpartition("/")
        if section:
            places.setdefault(section, entry.place)
    return places


def _place_of(path: str, places: Mapping[str, str], file: str) -> str:
    return places.get(path) or places.get(path.rpartition("/")[0]) or file


def _file_and_line(mistake: str) -> tuple[str, int]:
    place, _, _ = mistake.partition(": ")
    name, _, line = place.rpartition(":")
    return (name, int(line)) if line.isdecimal() else (place, 0)


def _nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean loss/gamma?`, or a full stop where nothing known is near."""
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else "."
