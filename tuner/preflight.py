"""Checks before a search: every value that a space can take, then one training step of drawn configurations."""

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search_spaces.schema import Choice, Space, SpaceError, nested
from trainables.config import TrialConfig, choosers, setting_paths
from trainables.data.corrections import check_relabel
from trainables.data.sampling import SAMPLERS, SamplerConfig, WeightedSettings
from trainables.data.settings import DataConfig
from trainables.data.splits import NO_FOLD
from trainables.data.targets import Scheme, read_task
from trainables.data.views import View
from trainables.losses import LOSSES
from trainables.metrics import probabilities_missing
from trainables.registry import ConfigError, Mistake, nearest
from trainables.semi import FOR_CLASSES, NO_UNLABELLED, SEMI, SemiConfig, UnlabelledSettings
from trainables.texts import texts_of, without_reader
from tuner.searchers.random import random_draws
from tuner.settings import RunSettings, metrics_of, run_mistakes

DRAWS = 200
# Settings whose meaning depends on those of other sections.
NEEDS = {
    "labels/extra": ("data/extra", "data/pseudo"),
    "labels/confidence": ("data/pseudo",),
    "labels/jitter": ("loss/regression",),
}


def check_space(space: Space, scheme: Scheme, corrections: Collection[str] = ()) -> list[tuple[str, str]]:
    """Every (path, message) that is wrong with the names and values of a space, without building anything.

    Args:
        corrections: names of the lists of them that come with the data.
    """
    mistakes = run_mistakes(space)
    known = set(setting_paths())
    own = {"epochs": "set run/epochs instead", "metric": "set run/metric instead", "seed": "give --seed instead"}
    everything = [*space.fixed, *(parameter.path for parameter in space.parameters)]
    for path in everything:
        if path in own:
            mistakes.append((path, f"belongs to the run, not to the space; {own[path]}"))
        elif path not in known:
            mistakes.append((path, _no_setting(path, space)))
    mistakes += [(p.path, "is fixed for a run and cannot be searched") for p in space.parameters if p.path.startswith("data/")]
    if space.fixed.get("data/fold") == NO_FOLD:
        mistakes.append(
            ("data/fold", "is -1 (no validation split), and a search needs validation scores; only tuner.refit --all-data uses it")
        )
    if space.fixed.get("data/only", NO_FOLD) != NO_FOLD:
        mistakes.append(("data/only", "is for refits alone, which tuner.refit --all-data --last-epochs N makes; leave it out"))
    required = ("model/backbone", "optimizer/lr")
    mistakes += [(path, "is required; it has no default") for path in required if path not in everything]

    entries = choosers()
    for path, values in values_of(space).items():
        if path in known and path not in own:
            # A setting that only some entries have is checked with one of these.
            owner = {name: having[0] for name, chooser in entries.items() if (having := chooser.having(path))}
            for value in values:
                mistakes += _value_mistakes(path, value, owner, scheme, corrections)
    mistakes += _unused_weights(space)
    mistakes += _semi_mistakes(space, scheme)
    mistakes += _texts_mistakes(space, scheme)
    for parameter in space.parameters:
        needs = NEEDS.get(parameter.path)
        if needs and not any(any(values_of(space).get(path, ())) for path in needs):
            mistakes.append((parameter.path, f"is searched but has no effect without {' or '.join(needs)}; set that, or remove this"))
    try:
        covered = covered_targets(tasks_of(space), scheme)
        mistakes += _metric_mistakes(space, scheme.part(covered))
    except ConfigError as error:
        mistakes += [(mistake.path, mistake.message) for mistake in error.mistakes]
    return list(dict.fromkeys(mistakes))


def check_data(space: Space) -> list[tuple[str, str]]:
    """Every (path, message) that is wrong with the section `data` of a space, of which nothing else has to be there."""
    known, mistakes = set(setting_paths()), []
    for path, values in values_of(space).items():
        if path.startswith("data/"):
            wrong = [one for value in values for one in _value_mistakes(path, value, {}, Scheme(()), ())]
            mistakes += wrong if path in known else [(path, _no_setting(path, space))]
    return mistakes


def _metric_mistakes(space: Space, scheme: Scheme) -> list[tuple[str, str]]:
    try:
        settings = RunSettings.model_validate(space.run)
    except ValidationError:
        return []  # which `run_mistakes` tells
    try:
        metric, _ = metrics_of(settings.metric, settings.costs, settings.also, scheme)
    except ConfigError as error:
        return [(mistake.path, mistake.message) for mistake in error.mistakes]
    losses = [name for name in values_of(space).get("loss/name", ()) if name in LOSSES and not LOSSES[name].settings.meaningful]
    words = [probabilities_missing(metric, "it", name) for name in losses]
    return [("loss/name", message) for message in words if message]


def views_of(space: Space) -> list[View]:
    """Every view that the space can draw. Raises: SpaceError when there are infinitely many."""
    configs = (_config_with(values).view for values in space.grid("view"))
    return sorted({View.of(config) for config in configs}, key=str)


def valid_splits(space: Space) -> DataConfig:
    """The section `data` of a space without the values that are wrong, which `check_space` reports."""
    given = nested(space.fixed).get("data", {})
    try:
        return DataConfig(**given)
    except ValidationError as error:
        wrong = {detail["loc"][0] for detail in error.errors()}
        if "cuts" in wrong:
            wrong.add("ordinal")  # nothing can be cut by them
        return DataConfig(**{name: value for name, value in given.items() if name not in wrong})


def values_of(space: Space) -> dict[str, list[Any]]:
    """The values to check of every path: fixed ones, choices, ends of ranges."""
    values = {path: [value] for path, value in space.fixed.items()}
    return values | {parameter.path: list(parameter.domain.ends()) for parameter in space.parameters}


def tasks_of(space: Space) -> list[Any]:
    """What trials can be asked to predict."""
    return values_of(space).get("task", [TrialConfig.model_fields["task"].default])


def draw(space: Space, fixed: dict[str, Any], seed: int, count: int = DRAWS) -> list[dict[str, Any]]:
    """Configurations drawn at random, the space's `start` first. Raises: SpaceError for combinations that cannot be trained."""
    drawn, mistakes = [], []
    for values in random_draws(space, fixed, seed=seed, count=count):
        try:
            TrialConfig.from_values(values)
            drawn.append(values)
        except ConfigError as error:
            mistakes += error.mistakes
    refuse(space, mistakes)
    return drawn


def cover(space: Space, drawn: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """As few of the drawn configurations as show every choice and every conditional value at least once."""
    searched = {parameter.path: parameter.domain for parameter in space.parameters}

    def shows(values: dict[str, Any]) -> set[tuple[str, str]]:
        items = space.drawn(values).items()
        return {(path, str(value) if isinstance(searched[path], Choice) else "") for path, value in items}

    # The first start configuration is rehearsed whatever it adds.
    left = [(values, shows(values)) for values in drawn]
    chosen = [left[0]]
    missing = set().union(*(shown for _, shown in left)) - chosen[0][1]
    while missing:
        best = max(left, key=lambda entry: len(entry[1] & missing))
        chosen.append(best)
        missing -= best[1]
    return [values for values, _ in chosen]


def covered_targets(tasks: Iterable[Any], scheme: Scheme) -> tuple[str, ...]:
    """The targets, or questions about some, that trials predict, each alone or several of them together.

    Raises: ConfigError when no metric scores all trials, and when answers to several questions leave a target open.
    """
    parts = [read_task(task, scheme).scheme for task in tasks]
    names = tuple(dict.fromkeys(name for part in parts for name in part.names))
    told, mistakes = scheme.told(names), []
    if len({part.kinds for part in parts}) > 1:
        sets = "; ".join(dict.fromkeys(f"{', '.join(part.names)} ({' and '.join(part.kinds)})" for part in parts))
        mistakes.append(f"no metric scores all trials, as they predict {sets}; search them in separate runs")
    for name in told.names:
        about = scheme.about((name,))
        if len(asked := [one for one in names if scheme.about((one,)) == about]) > 1 and name not in scheme.names:
            mistakes.append(
                f"{' and '.join(asked)} leave the value of {about[0]} open; add what tells it, or {about[0]} itself, or ask one"
            )
    if mistakes:
        raise ConfigError([Mistake("task", message) for message in mistakes])
    return told.names


def refuse(space: Space, mistakes: list[Mistake]) -> None:
    """Raises: SpaceError with each mistake once, at its file and line."""
    if mistakes:
        raise SpaceError([f"{space.places.get(mistake.path, space.file)}: {mistake}" for mistake in dict.fromkeys(mistakes)])


def _no_setting(path: str, space: Space) -> str:
    section = path.partition("/")[0]
    for name, chooser in choosers().items():
        if name.startswith(f"{section}/"):
            given = [one for one in values_of(space).get(name, [chooser.default]) if one in chooser.settings]
            return chooser.refusal(path, given or [chooser.default])
    return f"is not a setting{nearest(path, sorted(setting_paths())) or '; docs/space.md lists them all'}"


def _unused_weights(space: Space) -> list[tuple[str, str]]:
    names = [one for one in values_of(space).get("sampler/name", [SamplerConfig().name]) if one in SAMPLERS]
    if not space.fixed.get("data/weights") or any(issubclass(SAMPLERS[name].settings, WeightedSettings) for name in names):
        return []
    readers = ", ".join(name for name, entry in SAMPLERS.items() if issubclass(entry.settings, WeightedSettings))
    given = " or ".join(names)
    return [("data/weights", f"is used only by sampler/name {readers}, and here it is {given}; choose {readers}, or remove this")]


def _semi_mistakes(space: Space, scheme: Scheme) -> list[tuple[str, str]]:
    names = [one for one in values_of(space).get("semi/name", [SemiConfig().name]) if one in SEMI]
    learning = [one for one in names if issubclass(SEMI[one].settings, UnlabelledSettings)]
    if not learning:
        readers = ", ".join(name for name, entry in SEMI.items() if issubclass(entry.settings, UnlabelledSettings))
        given = [("data/unlabelled", f"is used only by semi/name {readers}; choose {readers}, or remove this")]
        return given if space.fixed.get("data/unlabelled") else []
    mistakes = [] if space.fixed.get("data/unlabelled") else [("semi/name", f"{' and '.join(learning)} {NO_UNLABELLED}")]
    others: dict[str, None] = {}
    for task in tasks_of(space):
        with suppress(ConfigError):  # which is told of at the task itself
            others |= dict.fromkeys(one.name for one in read_task(task, scheme).scheme.targets if one.kind != "classes")
    return mistakes + ([("semi/name", f"{' and '.join(learning)} {FOR_CLASSES}: {', '.join(others)}; write none")] if others else [])


def _texts_mistakes(space: Space, scheme: Scheme) -> list[tuple[str, str]]:
    values = values_of(space)
    if "zero_shot" not in values.get("model/heads", ()):
        return [("model/texts", "is used only by model/heads zero_shot; choose that, or remove this")] if "model/texts" in values else []
    mistakes = without_reader()
    for changes in [{"model/texts": texts} for texts in values.get("model/texts", ())] or [{}]:
        for task in tasks_of(space):
            with suppress(ConfigError):  # which is told of at the task, or the texts, themselves
                texts, asked = _config_with(changes).model.texts, read_task(task, scheme)
                try:
                    texts_of(texts, asked, scheme)
                except ConfigError as error:
                    mistakes += error.mistakes
    return [(mistake.path, mistake.message) for mistake in mistakes]


def _check_backbone(name: str, path: str) -> None:
    """Raises: ConfigError for a network that timm does not have. timm takes seconds to import, and most names can be read in its source."""
    if name not in _networks():
        from trainables.models.backbone import check_backbone

        check_backbone(name, path)


@cache
def _networks() -> frozenset[str]:
    """Names of timm's networks as its source registers them."""
    timm = find_spec("timm")
    folders = timm.submodule_search_locations if timm else None
    sources = (file.read_text() for folder in folders or () for file in (Path(folder) / "models").glob("*.py"))
    return frozenset(name for source in sources for name in re.findall(r"^@register_model\ndef (\w+)", source, re.MULTILINE))


def _value_mistakes(path: str, value: Any, owner: Mapping[str, str], scheme: Scheme, corrections: Collection[str]) -> list[tuple[str, str]]:
    try:
        TrialConfig.from_values(nested({**_a_valid_configuration(), **owner, path: value}))
        if path in ("model/backbone", "model/second") and value:
            _check_backbone(value, path)
        elif path == "task":
            read_task(value, scheme)
        elif path == "labels/relabel":
            check_relabel(value, corrections)
    except ConfigError as error:
        # Whether it fits the other values, the drawn configurations show.
        return [(mistake.path, mistake.message) for mistake in error.mistakes if mistake.path == path]
    return []


def _a_valid_configuration() -> dict[str, Any]:
    return {"epochs": 1, "model/backbone": "any", "optimizer/lr": 1.0}


def _config_with(values: Mapping[str, Any]) -> TrialConfig:
    return TrialConfig.from_values(nested({**_a_valid_configuration(), **values}))
