"""What one trial is told: frozen sections, made once by `TrialConfig.from_values`.

Section and field names are the public interface: YAML, `--set`, records, tables and plots use the same `section/field` paths.
Fields that only some choices use say so; the preflight refuses a space that draws one where nothing reads it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=16)]


UNIONS = {  # fields of several types, and how to write one
    "task": "joint, heads, one attribute, or a list of lists of attributes",
    "view/size": "whole pixels from 16 up: n, or [height, width]",
}


class ConfigError(ValueError):
    """A configuration that cannot be trained; `mistakes` holds every (path, message) found."""

    def __init__(self, mistakes: list["Mistake"]):
        self.mistakes = mistakes
        super().__init__("\n".join(str(mistake) for mistake in mistakes))


@dataclass(frozen=True)
class Mistake:
    """One thing wrong with a setting: where (`loss/gamma`) and what, with the mend."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class Section(BaseModel):
    # Tuples among the fields lift `strict` for themselves: YAML and JSON know lists only.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """How photos become labels and sides. Fixed for a run: trials on different sides cannot be compared."""

    cuts: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = (30, 60)  # first year of each age class but the first
    holdout: Annotated[float, Field(gt=0, lt=0.5)] = 0.15  # share of the people that the search never sees
    folds: Annotated[int, Field(ge=2)] = 5  # equal parts of the other people; one of them validates
    fold: Annotated[int, Field(ge=0)] = 0  # which one

    @field_validator("cuts")
    @classmethod
    def _ascending(cls, cuts: tuple[int, ...]) -> tuple[int, ...]:
        if list(cuts) != sorted(set(cuts)):
            raise ValueError("the years must ascend")
        return cuts


class ViewConfig(Section):
    """The deterministic geometry of an input, the same in training, validation and inference."""

    crop: str = "none"
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.8  # center: share of each side that stays
    size: Side | Annotated[tuple[Side, Side], Field(strict=False)] = 64  # pixels: n, or [height, width]

    @property
    def height(self) -> int:
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        return self.size if isinstance(self.size, int) else self.size[1]


class AugmentConfig(Section):
    """Random changes to training photos; 0 is off."""

    flip: Share = 0.0  # probability of a left-right flip
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees to either side
    brightness: Share = 0.0  # largest relative change
    contrast: Share = 0.0  # largest relative change
    erase: Share = 0.0  # probability of one erased rectangle


class MixConfig(Section):
    """Mixing of two photos and of their targets."""

    name: str = "none"
    prob: Share = 0.5  # share of the batches that are mixed
    low: Share = 0.46  # cutmix_vertical: smallest share of the width kept from the photo itself
    high: Share = 0.54  # cutmix_vertical: largest
    alpha: Positive = 0.2  # mixup: both parameters of the Beta distribution

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"mix/low is {self.low}, above mix/high, which is {self.high}; lower one or raise the other")
        return self


class SamplerConfig(Section):
    name: str = "shuffle"
    power: Share = 1.0  # weighted: 1 draws all classes alike often, 0 draws as shuffle does


class ModelConfig(Section):
    backbone: str  # any timm name
    weights: str = "imagenet"  # imagenet, none, or a file with the backbone's state dict; {backbone} in it stands for the name
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # before the heads


class LossConfig(Section):
    name: str = "cross_entropy"
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0  # cross_entropy: share of the target spread over all classes
    gamma: Annotated[float, Field(ge=0)] = 2.0  # focal: 0 is plain cross-entropy


class OptimizerConfig(Section):
    name: str = "adamw"
    lr: Positive
    weight_decay: Annotated[float, Field(ge=0)] = 0.01  # never on norms and biases
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # sgd


class ScheduleConfig(Section):
    name: str = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of all steps in which the learning rate climbs to its peak
    every: Count = 5  # step: epochs between two drops
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1  # step, plateau: what a drop multiplies by
    patience: Annotated[int, Field(ge=0)] = 2  # plateau: epochs without a better score before a drop


class TrainConfig(Section):
    batch_size: Annotated[int, Field(ge=2)] = 64  # one photo has no batch statistics
    accumulate: Count = 1  # batches per optimizer step
    clip: Annotated[float, Field(ge=0)] = 0.0  # largest norm of the gradient; 0 is off
    patience: Annotated[int, Field(ge=0)] = 0  # epochs without a better score before the trial ends itself; 0 is never
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 or fp16 on CUDA, fp32 elsewhere


class TrialConfig(Section):
    """Everything that decides what a trial computes, on one device type."""

    task: str | list[list[str]] = "joint"  # joint, heads, one attribute, or a list of lists of attributes
    normalize: Literal["imagenet", "dataset"] = "imagenet"
    epochs: Count
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataConfig = DataConfig()
    view: ViewConfig = ViewConfig()
    augment: AugmentConfig = AugmentConfig()
    mix: MixConfig = MixConfig()
    sampler: SamplerConfig = SamplerConfig()
    model: ModelConfig
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The one door from a nested dict to settings.

        Raises: ConfigError naming every unknown key (with the nearest known one) and every value outside its meaning.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            # A value that fits no member of a union is reported once for each; the first says enough.
            mistakes = {mistake.path: mistake for mistake in reversed([_mistake(detail) for detail in error.errors()])}
            raise ConfigError(list(reversed(mistakes.values()))) from None

    def values(self) -> dict[str, Any]:
        """The nested dict of plain values, defaults included, that `from_values` takes back."""
        return self.model_dump(mode="json")


def setting_paths(section: type[BaseModel] = TrialConfig, prefix: str = "") -> Iterator[str]:
    """Every `section/field` path there is, in the order of declaration."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_paths(field.annotation, f"{prefix}{name}/")
        else:
            yield prefix + name


def nearest(name: str, known: list[str]) -> str:
    """A hint for a misspelt name: `; did you mean loss/smoothing?`, or nothing where no known name is near."""
    close = get_close_matches(name, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _mistake(detail: Mapping[str, Any]) -> Mistake:
    known = list(setting_paths())
    sections = {path.split("/")[0] for path in known}
    # Members of a union appear in pydantic's location as type names; only the words of our paths are wanted.
    words = [part for part in detail["loc"] if isinstance(part, str)]
    path = words[0] if words[0] not in sections or len(words) == 1 else "/".join(words[:2])
    path = words[0] if words[0] in known else path
    if detail["type"] == "extra_forbidden":
        return Mistake(path, f"is not a setting{nearest(path, known + sorted(sections)) or '; see the README for the names there are'}")
    if path in UNIONS:
        return Mistake(path, f"write {UNIONS[path]}, got {detail['input']!r}")
    if detail["type"] == "missing":
        return Mistake(path, "must be given; every experiment has to decide it")
    message = detail["msg"].removeprefix("Value error, ")
    got = "" if isinstance(detail["input"], Mapping) else f", got {detail['input']!r}"
    return Mistake(path, f"{message[0].lower()}{message[1:]}{got}")


class Watched:
    """A stand-in for a config that notes in `read` the path of every setting somebody looks at.

    The preflight builds a trial from one to prove that no drawn setting is ignored.
    """

    def __init__(self, section: Section, read: set[str], prefix: str = ""):
        self._section, self._read, self._prefix = section, read, prefix

    def __getattr__(self, name: str) -> Any:
        computed = getattr(type(self._section), name, None)
        if isinstance(computed, property):
            return computed.fget(self)
        value = getattr(self._section, name)
        path = self._prefix + name
        if isinstance(value, Section):
            return Watched(value, self._read, path + "/")
        if name in type(self._section).model_fields:
            self._read.add(path)
        return value
