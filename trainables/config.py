"""What one trial is told: frozen sections, made once by `TrialConfig.from_values`.

Section and field names are the public interface: YAML, `--set`, records, tables and plots use the same `section/field` paths.
Each field says what it means; `python -m search_spaces.describe` prints them as a page.
Fields that only some choices use say so; the preflight refuses a space that draws one where nothing reads it.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from trainables.data.settings import DataConfig, LabelsConfig
from trainables.registry import ConfigError, Count, Mistake, Positive, Section, Share, Side, Statistics, ascending, nearest, setting

UNIONS = {  # fields of several types, and how to write one
    "task": "joint, heads, one attribute, or a list of lists of attributes",
    "view/size": "whole pixels from 16 up: n, or [height, width]",
    "normalize": "imagenet, dataset, backbone, or [[r, g, b], [r, g, b]]: means and standard deviations above 0, on the scale 0 to 1",
    "loss/alpha": "none, inverse, effective, or a list with one weight above 0 for each class of the head",
}


class ViewConfig(Section):
    """The deterministic geometry of an input, the same in training, validation and inference."""

    crop: str = setting("what is cut out first", "none")
    fraction: Annotated[float, Field(gt=0, le=1)] = setting("center, and face where no face is found: share of each side that stays", 0.8)
    box: Annotated[tuple[Side, Side], Field(strict=False)] = setting(
        "box: [height, width] in pixels of the photo, around its middle", (320, 256)
    )
    margin: Annotated[float, Field(ge=0, le=2)] = setting("face: what is added on each side, as a share of the face's box", 0.4)
    fit: Literal["stretch", "cover", "contain"] = setting(
        "where the crop's aspect is not that of the size: stretch it, cut the longer side (cover), or add black bars (contain)", "stretch"
    )
    size: Side | Annotated[tuple[Side, Side], Field(strict=False)] = setting("pixels: n, or [height, width]", 64)

    @property
    def height(self) -> int:
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        return self.size if isinstance(self.size, int) else self.size[1]


class AugmentConfig(Section):
    """Random changes to training photos; 0 is off."""

    most: Annotated[int, Field(ge=0)] = setting(
        "largest number of the changes below that one photo gets, drawn anew each time; 0: all. The policy's come on top", 0
    )
    flip: Share = setting("probability of a left-right flip", 0.0)
    rotate: Annotated[float, Field(ge=0, le=180)] = setting("degrees to either side", 0.0)
    shift: Share = setting("largest shift, as a share of the side", 0.0)
    scale: Annotated[float, Field(ge=0, lt=1)] = setting("largest change of scale to either side", 0.0)
    zoom: Annotated[float, Field(ge=0, lt=1)] = setting("RandomResizedCrop: largest share of the area that is cut away", 0.0)
    brightness: Share = setting("largest relative change", 0.0)
    contrast: Share = setting("largest relative change", 0.0)
    saturation: Share = setting("largest relative change", 0.0)
    hue: Annotated[float, Field(ge=0, le=0.5)] = setting("largest turn of the colour circle, of which 1 is all", 0.0)
    pca: Share = setting("FancyPCA: lighting noise along the colours' main axes, as a share of their own deviation", 0.0)
    gray: Share = setting("probability of a photo without colours", 0.0)
    clahe: Share = setting("probability of local contrast equalisation", 0.0)
    sharpen: Share = setting("probability of sharpening", 0.0)
    blur: Share = setting("probability of one of Gaussian, median and motion blur", 0.0)
    noise: Share = setting("largest standard deviation of Gaussian noise, on the scale 0 to 1", 0.0)
    elastic: Share = setting("probability of an elastic distortion", 0.0)
    distort: Share = setting("grid distortion: largest change of a cell's width, as a share of it", 0.0)
    tiles: Share = setting("probability of RandomGridShuffle: 2 x 2 tiles change places", 0.0)
    dropout: Share = setting("probability of coarse dropout (cutout): a few black boxes", 0.0)
    grid_dropout: Share = setting("probability of a grid of black boxes", 0.0)
    erase: Share = setting("probability of one erased rectangle", 0.0)
    policy: str = setting("further changes drawn from a fixed list", "none")
    ops: Count = setting("rand: changes from the list for each photo", 2)
    magnitude: Share = setting("rand: strength of each, of the strongest in the list", 0.3)


class MixConfig(Section):
    """Mixing of two photos and of their targets."""

    name: str = setting("how photos of a batch are mixed", "none")
    prob: Share = setting("share of the batches that are mixed", 0.5)
    low: Share = setting("cutmix_vertical, cutmix_intra: smallest share of the width kept from the photo itself", 0.46)
    high: Share = setting("cutmix_vertical, cutmix_intra: largest", 0.54)
    alpha: Positive = setting("mixup, cutmix: both parameters of the Beta distribution of the share kept", 0.2)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"mix/low is {self.low}, above mix/high, which is {self.high}; lower one or raise the other")
        return self


class SamplerConfig(Section):
    """Which training photos an epoch shows, and how often."""

    name: str = setting("how photos are drawn, by the classes of the trial's own task", "shuffle")
    power: Share = setting("weighted: 1 draws all classes alike often, 0 draws them as often as they are", 1.0)


class ModelConfig(Section):
    """The network."""

    backbone: str = setting("any timm name")
    second: str = setting("a second backbone beside it, whose features are concatenated; empty: none", "")
    weights: str = setting("imagenet, none, or a file with the backbone's state dict; {backbone} in it stands for the name", "imagenet")
    freeze: Literal["none", "backbone", "stages"] = setting(
        "what keeps its first weights: nothing, all but the heads, or all stages but the last few", "none"
    )
    train_stages: Count = setting("stages: how many of the last stages train", 1)
    unfreeze_epoch: Annotated[int, Field(ge=0)] = setting("backbone, stages: epochs after which everything trains; 0: never", 0)
    edges: Literal["none", "mix", "stem"] = setting(
        "a fourth channel of Canny edges: brought to three by a 1x1 convolution (mix), or taken by a wider first layer (stem)", "none"
    )
    drop_path: Annotated[float, Field(ge=0, lt=1)] = setting("probability of leaving out a residual block, the last one's", 0.0)
    neck: Literal["none", "batchnorm"] = setting("what stands between features and heads", "none")
    hidden: Annotated[int, Field(ge=0)] = setting("units of two hidden layers before the heads; 0: none", 0)
    dropout: Annotated[float, Field(ge=0, lt=1)] = setting("before the heads", 0.0)
    dropout_samples: Count = setting("dropout masks whose logits are averaged in training", 1)

    @property
    def sees_edges(self) -> bool:
        """Whether the network wants a channel of edges beside the colours."""
        return self.edges != "none"


class LossConfig(Section):
    """What training makes small."""

    name: str = setting("the loss of every head", "cross_entropy")
    alpha: Literal["none", "inverse", "effective"] | Annotated[tuple[Positive, ...], Field(strict=False)] = setting(
        "cross_entropy, focal: weights of the classes: none, 1/n, 1/effective number, or a list of them", "none"
    )
    beta: Annotated[float, Field(ge=0, lt=1)] = setting("loss/alpha effective: how slowly further photos of a class stop to count", 0.999)
    smoothing: Annotated[float, Field(ge=0, lt=1)] = setting("cross_entropy: share of the target spread over all classes", 0.0)
    gamma: Annotated[float, Field(ge=0)] = setting("focal: 0 is plain cross-entropy", 2.0)
    share: Share = setting("ce_f1: share of soft F1 in the sum", 0.5)
    cosine: Positive = setting("cosine_ce: weight of the cross-entropy beside the cosine distance", 0.1)
    reverse: Positive = setting("symmetric_ce: weight of the reversed cross-entropy", 1.0)
    scale: Positive = setting("arcface, cosface, ldam: what cosines are multiplied by to be logits", 30.0)
    margin: Annotated[float, Field(ge=0, le=1.5)] = setting("arcface: radians; cosface: cosine; ldam: the margin of the rarest class", 0.3)
    ordinal: Literal["none", "coral"] = setting("how heads of an ordinal attribute alone are trained", "none")
    regression: Annotated[float, Field(ge=0)] = setting(
        "weight of the SmoothL1 distance between a predicted number and the photo's (years), beside the classes", 0.0
    )


class OptimizerConfig(Section):
    """How gradients change the weights."""

    name: str = setting("the rule", "adamw")
    lr: Positive = setting("peak of the learning rate")
    weight_decay: Annotated[float, Field(ge=0)] = setting("never on norms and biases", 0.01)
    momentum: Annotated[float, Field(ge=0, lt=1)] = setting("sgd, madgrad; 0 is none", 0.9)
    nesterov: bool = setting("sgd: look ahead along the momentum", False)
    layer_decay: Annotated[float, Field(gt=0, le=1)] = setting("learning rate of each layer, as a share of that of the layer above it", 1.0)
    sam: Annotated[float, Field(ge=0)] = setting("radius of sharpness-aware minimization, which takes two passes a step; 0 is off", 0.0)


class ScheduleConfig(Section):
    """The learning rate over the trial's steps."""

    name: str = setting("the curve", "cosine")
    warmup: Annotated[float, Field(ge=0, lt=1)] = setting(
        "share of all steps in which the learning rate climbs to its peak; cyclic, one_cycle: of a cycle, 0 standing for 0.5 and 0.3", 0.0
    )
    floor: Annotated[float, Field(ge=0, lt=1)] = setting(
        "cosine, restarts, cyclic, one_cycle, poly: lowest learning rate, as a share of the peak", 0.0
    )
    every: Count = setting("step: epochs between two drops", 5)
    milestones: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(strict=False, min_length=1)] = setting(
        "multi_step: shares of the trial after which the learning rate drops", (0.5, 0.75)
    )
    factor: Annotated[float, Field(gt=0, lt=1)] = setting(
        "step, multi_step, plateau: what a drop multiplies by; exponential: an epoch", 0.1
    )
    patience: Annotated[int, Field(ge=0)] = setting("plateau: epochs without a better score before a drop", 2)
    power: Positive = setting("poly: 1 is a straight line", 1.0)
    cycles: Count = setting("restarts, cyclic: how often the curve is run through", 2)
    decay: Annotated[float, Field(gt=0, le=1)] = setting("restarts, cyclic: peak of each cycle, as a share of the one before", 1.0)

    @field_validator("milestones")
    @classmethod
    def _ascending(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        return ascending(milestones)


class TrainConfig(Section):
    """The loop."""

    batch_size: Annotated[int, Field(ge=2)] = setting("photos of a batch; one alone has no batch statistics", 64)
    accumulate: Count = setting("batches per optimizer step", 1)
    clip: Annotated[float, Field(ge=0)] = setting("largest norm of the gradient; 0 is off", 0.0)
    patience: Annotated[int, Field(ge=0)] = setting("epochs without a better score before the trial ends itself; 0 is never", 0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting("auto: bf16 or fp16 on CUDA, fp32 elsewhere", "auto")
    ema: Annotated[float, Field(ge=0, lt=1)] = setting(
        "decay of the moving average of the weights that is validated and kept; 0 is off", 0.0
    )
    channels_last: bool = setting("memory layout; nearly twice as fast for most convolutions", True)
    compile: bool = setting("whether torch compiles the network on a GPU, which pays in long trials", False)


class TrialConfig(Section):
    """Everything that decides what a trial computes, on one device type."""

    task: str | list[list[str]] = setting("joint, heads, one attribute, or a list of lists of attributes", "joint")
    normalize: Literal["imagenet", "dataset", "backbone"] | Statistics = setting(
        "channel means and deviations: ImageNet's, the training photos', those of the backbone's weights, or given", "imagenet"
    )
    epochs: Count = setting("of a trial that nothing stops")
    seed: Annotated[int, Field(ge=0)] = setting("of everything random", 0)
    metric: str = setting("what the best epoch, and the trial among others, is chosen by", "f1_macro")
    data: DataConfig = DataConfig()
    labels: LabelsConfig = LabelsConfig()
    view: ViewConfig = ViewConfig()
    augment: AugmentConfig = AugmentConfig()
    mix: MixConfig = MixConfig()
    sampler: SamplerConfig = SamplerConfig()
    model: ModelConfig
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()

    @field_validator("normalize")
    @classmethod
    def _deviations(cls, normalize: Any) -> Any:
        if not isinstance(normalize, str) and min(normalize[1]) <= 0:
            raise ValueError("a deviation must be above 0")
        return normalize

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
