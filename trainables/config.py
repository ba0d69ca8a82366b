"""The settings of one trial: frozen sections, made once by `TrialConfig.from_values`.

Section and field names are the public interface: YAML, `--set`, records, tables and plots use the same `section/field` paths.
Each field says what it means; `python -m search_spaces.describe` prints them as a page.

In most sections one field names an entry of a registry, and the settings that there are depend on it: what all entries share stands in the
section's class, the others with their entry. The registry is looked up when a configuration is made, so an entry may be added at any time.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, ValidatorFunctionWrapHandler, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from search_spaces.schema import Chooser, nested
from trainables.data.augment import POLICIES, AugmentConfig
from trainables.data.sampling import SAMPLERS, SamplerConfig
from trainables.data.settings import BEFORE, DataConfig, LabelsConfig
from trainables.data.views import CROPS, ViewConfig
from trainables.losses import LOSSES, LossConfig
from trainables.mixing import MIXERS, MixConfig
from trainables.models.settings import FREEZES, POOLS, ModelConfig, PoolConfig
from trainables.optimizers import OPTIMIZERS, OptimizerConfig
from trainables.registry import ConfigError, Count, Entry, Mistake, Section, Statistics, UnknownEntryError, choose, nearest, setting
from trainables.schedules import SCHEDULES, ScheduleConfig
from trainables.semi import SEMI, SemiConfig

# Which names there are, by the setting that chooses one. The other settings of its section are those of the entry.
REGISTRIES: dict[str, Mapping[str, Entry[Section]]] = {
    "view/crop": CROPS,
    "augment/policy": POLICIES,
    "mix/name": MIXERS,
    "semi/name": SEMI,
    "sampler/name": SAMPLERS,
    "model/freeze": FREEZES,
    "pool/name": POOLS,
    "loss/name": LOSSES,
    "optimizer/name": OPTIMIZERS,
    "schedule/name": SCHEDULES,
}
CHOOSERS = dict(path.split("/") for path in REGISTRIES)  # by section


class TrainConfig(Section):
    """The loop."""

    batch_size: Annotated[int, Field(ge=2)] = setting("images per batch; a single one has no batch statistics", 64)
    accumulate: Count = setting("batches per optimizer step", 1)
    clip: Annotated[float, Field(ge=0)] = setting("largest norm of the gradient; 0 is off", 0.0)
    patience: Annotated[int, Field(ge=0)] = setting("epochs without a better score before the trial ends early; 0 is never", 0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting("auto: bf16 or fp16 on CUDA, fp32 elsewhere", "auto")
    ema: Annotated[float, Field(ge=0, lt=1)] = setting(
        "decay of the moving average of the weights that is validated and kept; 0 is off", 0.0
    )
    channels_last: bool = setting("memory layout; nearly twice as fast for most convolutions", True)
    compile: bool = setting("whether torch.compile is used on a GPU, which is worth it in long trials", False)


class TrialConfig(Section):
    """Everything that decides what a trial computes, on one device type."""

    task: str | list[list[str]] = setting(
        "what is predicted, and by how many heads",
        "joint",
        "joint, heads, one target, a question (years<30, colour=red), or a list of lists of these",
    )
    normalize: Literal["imagenet", "dataset", "backbone"] | Statistics = setting(
        "channel means and standard deviations: ImageNet's, the training images', those of the backbone's weights, or given",
        "imagenet",
        "imagenet, dataset, backbone, or [[r, g, b], [r, g, b]]: means and standard deviations above 0, on the scale 0 to 1",
    )
    epochs: Count = setting("maximum epochs")
    seed: Annotated[int, Field(ge=0)] = setting("of everything random", 0)
    metric: str = setting("by which the best epoch and the best trials are chosen", "f1_macro")
    data: DataConfig = DataConfig()
    labels: LabelsConfig = LabelsConfig()
    # Where an entry is chosen, the section is of the entry's class: the default {} becomes that of the default entry.
    view: SerializeAsAny[ViewConfig] = Field({}, validate_default=True)
    augment: SerializeAsAny[AugmentConfig] = Field({}, validate_default=True)
    mix: SerializeAsAny[MixConfig] = Field({}, validate_default=True)
    semi: SerializeAsAny[SemiConfig] = Field({}, validate_default=True)
    sampler: SerializeAsAny[SamplerConfig] = Field({}, validate_default=True)
    model: SerializeAsAny[ModelConfig]
    pool: SerializeAsAny[PoolConfig] = Field({}, validate_default=True)
    loss: SerializeAsAny[LossConfig] = Field({}, validate_default=True)
    optimizer: SerializeAsAny[OptimizerConfig]
    schedule: SerializeAsAny[ScheduleConfig] = Field({}, validate_default=True)
    train: TrainConfig = TrainConfig()

    @field_validator("normalize")
    @classmethod
    def _deviations(cls, normalize: Any) -> Any:
        if not isinstance(normalize, str) and min(normalize[1]) <= 0:
            raise ValueError("a standard deviation must be above 0")
        return normalize

    @field_validator(*CHOOSERS, mode="wrap")
    @classmethod
    def _of_its_entry(cls, given: Any, shared: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Section:
        if not isinstance(given, Mapping):
            return shared(given)
        field = info.field_name or ""  # pydantic names it wherever a field is validated
        name = _chosen(field, given)
        if not isinstance(name, str):
            return shared(given)
        return _entry(field, name).settings.model_validate(given)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Settings from a nested dict, the only strict way.

        Raises: ConfigError naming every setting that does not exist or that its entry does not have (with the nearest names) and every
            value outside its meaning.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            # A value that fits no member of a union is reported once for each; the first says enough.
            mistakes = {mistake.path: mistake for mistake in reversed([_mistake(detail, values) for detail in error.errors()])}
            raise ConfigError(list(reversed(mistakes.values()))) from None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """The settings of a record, which an earlier version may have written, and by path what is kept aside.

        Kept aside is what is no setting, or not one of the chosen entry; a setting that is missing has its default.
        Raises: UnknownEntryError where an entry is chosen that no registry has; ConfigError for invalid values, and for missing ones
            without a default.
        """
        if gone := list(_unknown_entries(values)):
            raise UnknownEntryError(gone)
        known: dict[str, Any] = {}
        aside: dict[str, Any] = {}
        for name, value in values.items():
            if name not in cls.model_fields:
                aside |= {f"{name}/{field}": one for field, one in value.items()} if isinstance(value, Mapping) else {name: value}
            elif isinstance(value, Mapping) and name in SECTIONS:
                fields = settings_of(name, _chosen(name, value))
                known[name] = {field: one for field, one in value.items() if field in fields}
                aside |= {f"{name}/{field}": one for field, one in value.items() if field not in fields}
            else:
                known[name] = value
        known["data"] = BEFORE | known.get("data", {})
        return cls.from_values(known), aside

    def values(self) -> dict[str, Any]:
        """The nested dict of plain values that `from_values` takes back: all that the chosen entries have, defaults included."""
        return self.model_dump(mode="json")


SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in TrialConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}


def settings_of(section: str, entry: str | None = None) -> dict[str, FieldInfo]:
    """The settings of a section by name: those of one entry, or without an entry's name those that any has."""
    shared = SECTIONS[section]
    if section not in CHOOSERS:
        return shared.model_fields
    table = REGISTRIES[f"{section}/{CHOOSERS[section]}"]
    if entry is not None:
        return (table[entry].settings if entry in table else shared).model_fields
    return shared.model_fields | {name: field for one in table.values() for name, field in one.settings.model_fields.items()}


def setting_paths() -> Iterator[str]:
    """Every `section/field` path that any configuration has, in the order of declaration."""
    for name in TrialConfig.model_fields:
        yield from (f"{name}/{field}" for field in settings_of(name)) if name in SECTIONS else [name]


def default_of(path: str, values: Mapping[str, Any]) -> Any:
    """The default of a setting in a configuration that has these values by path; None where it has none."""
    section, _, field = path.rpartition("/")
    if section:
        fields = settings_of(section, _chosen(section, nested(values).get(section, {}))) if section in SECTIONS else {}
    else:
        fields = TrialConfig.model_fields
    return None if field not in fields or fields[field].is_required() else fields[field].default


def choosers() -> dict[str, Chooser]:
    """For `read_space`: by the path that names an entry, the entry's settings."""
    found = {}
    for path, table in REGISTRIES.items():
        section, chooser = path.split("/")
        fields = {name: [one for one in entry.settings.model_fields if one != chooser] for name, entry in table.items()}
        settings = {name: tuple(f"{section}/{one}" for one in own) for name, own in fields.items()}
        found[path] = Chooser(settings_of(section)[chooser].default, settings)
    return found


def section(name: str, /, **values: Any) -> Section:
    """One section of a configuration by itself: `section("loss", name="focal", gamma=1.0)`. Raises: ConfigError."""
    chosen = _chosen(name, values)
    model = SECTIONS[name]
    if chosen is not None:
        model = choose(REGISTRIES[f"{name}/{CHOOSERS[name]}"], chosen, f"{name}/{CHOOSERS[name]}").settings
    try:
        return model.model_validate(values)
    except ValidationError as error:
        details = [{**detail, "loc": (name, *detail["loc"])} for detail in error.errors()]
        raise ConfigError([_mistake(detail, {name: values}) for detail in details]) from None


def _chosen(section: str, given: Mapping[str, Any]) -> Any:
    """The name of the entry whose settings the section has; None: the section is that of no registry."""
    field = CHOOSERS.get(section)
    return field and given.get(field, SECTIONS[section].model_fields[field].default)


def _unknown_entries(values: Mapping[str, Any]) -> Iterator[Mistake]:
    for section, field in CHOOSERS.items():
        given = values.get(section)
        name = _chosen(section, given) if isinstance(given, Mapping) else None
        if isinstance(name, str) and name not in REGISTRIES[f"{section}/{field}"]:
            yield Mistake(f"{section}/{field}", f"{name!r} is not in this version")


def _entry(section: str, name: str) -> Entry[Section]:
    """Raises: ValidationError, at the setting that chooses, for a name that does not exist."""
    field = CHOOSERS[section]
    try:
        return choose(REGISTRIES[f"{section}/{field}"], name, f"{section}/{field}")
    except ConfigError as error:
        (mistake,) = error.mistakes
        detail = InitErrorDetails(type=PydanticCustomError("no_entry", "{words}", {"words": mistake.message}), loc=(field,), input=name)
        raise ValidationError.from_exception_data(section, [detail]) from None


def _mistake(detail: Mapping[str, Any], values: Mapping[str, Any]) -> Mistake:
    # Members of a union appear in pydantic's location as type names; only the words of our paths are kept.
    words = [part for part in detail["loc"] if isinstance(part, str)]
    in_section = words[0] in SECTIONS
    path = "/".join(words[:2]) if in_section else words[0]
    if detail["type"] == "extra_forbidden":
        return Mistake(path, _no_setting(path, values))
    if detail["type"] == "missing":
        return Mistake(path, "is required; it has no default")
    if detail["type"] == "no_entry":
        return Mistake(path, detail["msg"])
    found = settings_of(words[0]).get(words[1]) if in_section and len(words) > 1 else TrialConfig.model_fields.get(path)
    if found and isinstance(found.json_schema_extra, dict):
        return Mistake(path, f"write {found.json_schema_extra['values']}; got {detail['input']!r}")
    message = detail["msg"].removeprefix("Value error, ")
    got = "" if isinstance(detail["input"], Mapping) else f", got {detail['input']!r}"
    return Mistake(path, f"{message[0].lower()}{message[1:]}{got}")


def _no_setting(path: str, values: Mapping[str, Any]) -> str:
    section, _, field = path.partition("/")
    if not field:
        known = [*setting_paths(), *SECTIONS]
        return f"is not a setting{nearest(path, known) or '; docs/space.md lists them all'}"
    if section in CHOOSERS:
        return choosers()[f"{section}/{CHOOSERS[section]}"].refusal(path, [_chosen(section, values[section])])
    return f"is not a setting{nearest(path, list(setting_paths())) or f'; {section} has ' + ', '.join(settings_of(section))}"
