"""The setting `model/texts`: what stands for each class in words."""

from importlib.util import find_spec

from trainables.data.targets import Scheme, Target, Task
from trainables.models.settings import PLACE, Texts
from trainables.registry import ConfigError, Mistake, nearest

PATH = "model/texts"
INSTALL = "zero_shot reads texts with open_clip, which is not installed: pip install open_clip_torch, or uv run --extra clip ..."
KINDS = {"tags": "tags", "number": "a number"}  # that no texts name


def texts_of(given: Texts, task: Task, scheme: Scheme) -> dict[str, list[list[str]]]:
    """For each target of a task the texts of its values, in the order of their ids: those of a value's own list, else the templates with
    the value's name, whose underscores become spaces.

    Args:
        given: as model/texts.
        scheme: of the data, of whose targets the task may leave some out.
    Raises: ConfigError naming targets that are no classes, templates without {class}, classes without a text, and lists of what is no
        class, or the class of several targets, or of another list.
    """
    templates, lists = [one for one in given if isinstance(one, str)], [one for one in given if not isinstance(one, str)]
    wanted = [(target, value) for target in task.scheme.of_kind("classes").targets for value in target.values]
    known = {target.name: target for target in (*scheme.of_kind("classes").targets, *task.scheme.of_kind("classes").targets)}
    spelt = [(target, value) for target in known.values() for value in target.values]
    mistakes = [
        Mistake("model/heads", f"zero_shot is for classes, and {target.name} is {KINDS[target.kind]}; choose random or probe")
        for target in task.scheme.targets
        if target.kind in KINDS
    ]
    mistakes += [Mistake(PATH, f"{one!r} has no {PLACE} in it, where a class's name belongs") for one in templates if PLACE not in one]
    own: dict[tuple[str, str], list[str]] = {}
    for name, *texts in lists:
        found = [(target.name, value) for target, value in spelt if name in (value, _in_full(target, value))]
        if len(found) == 1 and found[0] not in own:
            own[found[0]] = texts
        elif len(found) == 1:
            mistakes.append(Mistake(PATH, f"{name} has two lists; write all its texts in one"))
        elif found:
            mistakes.append(Mistake(PATH, f"{name!r} is a class of several targets; write {' or '.join(map('='.join, found))}"))
        else:
            names = [spelling for target, value in spelt for spelling in (value, _in_full(target, value))]
            there = nearest(name, names) or f"; there are {', '.join(_in_full(*one) for one in spelt)}"
            mistakes.append(Mistake(PATH, f"{name!r} is no class{there}"))
    without = [_in_full(target, value) for target, value in wanted if not templates and (target.name, value) not in own]
    if without:
        fix = f"add a list [class, text, ...] for each, or a text with {PLACE} for all"
        mistakes.append(Mistake(PATH, f"there is no text for {', '.join(without)}; {fix}"))
    if mistakes:
        raise ConfigError(mistakes)
    return {
        target.name: [
            own.get((target.name, value)) or [one.replace(PLACE, value.replace("_", " ")) for one in templates] for value in target.values
        ]
        for target in task.scheme.targets
    }


def without_reader() -> list[Mistake]:
    """The mistake of asking for heads of texts where nothing is installed that reads them."""
    return [] if find_spec("open_clip") else [Mistake("model/heads", INSTALL)]


def _in_full(target: Target, value: str) -> str:
    return f"{target.name}={value}"
