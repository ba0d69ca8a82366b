"""The sections `model` and `pool` of a configuration. Apart from what builds networks, so that a space is checked without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from trainables.registry import Count, Entry, Positive, Registry, Section, setting

if TYPE_CHECKING:
    from torch import nn


PLACE = "{class}"  # where a text has the name of a class


def _listed(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


Texts = Annotated[
    tuple[str | Annotated[tuple[str, ...], Field(strict=False, min_length=2)], ...], BeforeValidator(_listed), Field(strict=False)
]


class ModelConfig(Section):
    """The network."""

    backbone: str = setting("any timm name, or googlenet")
    second: str = setting("a second backbone, whose features are concatenated to the first's; empty: none", "")
    weights: str = setting("imagenet, none, or a file with the backbone's state dict; {backbone} in it stands for the name", "imagenet")
    freeze: str = setting("what keeps its initial weights: nothing, all but the heads, or all stages but the last few", "none")
    edges: Literal["none", "mix", "stem"] = setting(
        "a fourth channel of Canny edges: brought to three by a 1x1 convolution (mix), or taken by a wider first layer (stem)", "none"
    )
    heads: Literal["random", "probe", "zero_shot"] = setting(
        "first weights of the heads: random, fitted to the untrained backbone's features at once (linear probe), or made of texts by the "
        "text tower of CLIP (zero_shot), which model/weights has to be a file of; with a backbone frozen for ever the trial ends there",
        "random",
    )
    texts: Texts = setting(
        "model/heads zero_shot: the texts of every class, whose mean stands for it; a class with a list of its own has those",
        (f"a photo of a {PLACE}.",),
        f"a text with {PLACE}, or a list of such texts and of lists [class, text, ...]; a class of several targets is target=class",
    )
    drop_path: Annotated[float, Field(ge=0, lt=1)] = setting("stochastic depth: probability of dropping the last residual block", 0.0)
    neck: Literal["none", "batchnorm"] = setting("layer between features and heads", "none")
    hidden: Annotated[int, Field(ge=0)] = setting("units of two hidden layers before the heads; 0: none", 0)
    dropout: Annotated[float, Field(ge=0, lt=1)] = setting("probability of dropout before the heads", 0.0)
    dropout_samples: Count = setting("dropout masks whose logits are averaged in training", 1)

    @property
    def sees_edges(self) -> bool:
        """Whether the network takes a channel of edges beside the colours."""
        return self.edges != "none"

    @property
    def is_probe(self) -> bool:
        """Whether nothing trains after the heads got their first weights."""
        return False

    @property
    def is_zero_shot(self) -> bool:
        """Whether the heads are made of texts."""
        return self.heads == "zero_shot"


def weights_file(weights: str, backbone: str) -> Path | None:
    """The file that model/weights names for a backbone; None where it says imagenet, or none."""
    return None if weights in ("imagenet", "none") else Path(weights.replace("{backbone}", backbone))


class FrozenSettings(ModelConfig):
    unfreeze_epoch: Annotated[int, Field(ge=0)] = setting("epochs after which everything trains; 0: never", 0)

    @property
    def for_ever(self) -> bool:
        """Whether what is frozen never trains."""
        return self.unfreeze_epoch == 0

    @property
    def is_probe(self) -> bool:
        """Whether nothing trains after the heads got their first weights."""
        return self.heads != "random" and self.freeze == "backbone" and self.for_ever


class FrozenStagesSettings(FrozenSettings):
    train_stages: Count = setting("how many of the last stages train", 1)


# What is built: settings, the stages of a network, each a list of parameters' names -> those that keep their weights
FREEZES: Registry[Entry[ModelConfig]] = Registry(
    {
        "none": Entry(ModelConfig, lambda config, stages: []),
        "backbone": Entry(FrozenSettings, lambda config, stages: stages),
        "stages": Entry(FrozenStagesSettings, lambda config, stages: stages[: -config.train_stages]),
    },
    Entry,
    ModelConfig,
)


class PoolConfig(Section):
    """How what a backbone says of each position of an image becomes what the heads get."""

    name: str = setting("the backbone's own pooling, or one that is learned with the heads", "own")


class AttentionSettings(PoolConfig):
    """A learned query attends to the positions. Source: Lee et al., Set Transformer, ICML 2019; Zhai et al., SigLIP, ICCV 2023."""

    attention_heads: Count = setting("heads of the attention, among which the features are shared", 8)
    mlp_ratio: Positive = setting("units of the layer behind the attention, as a multiple of the features", 4.0)


class ResidualSettings(PoolConfig):
    """Each class, or tag, attends to positions of its own. Source: Zhu and Wu, Residual Attention (CSRA), ICCV 2021."""

    residual: Annotated[float, Field(ge=0)] = setting("weight of a class's attention beside the mean over all positions (lambda)", 0.1)
    temperature: Positive = setting("of the attention: the higher, the more the highest position counts alone", 1.0)


def _attention(config: AttentionSettings, features: int) -> nn.Module:
    from trainables.models.attention import attention_pool

    return attention_pool(features, config.attention_heads, config.mlp_ratio)


def _every_position(config: PoolConfig, features: int) -> nn.Module:
    from torch.nn import Identity

    return Identity()


def _residual_head(config: ResidualSettings, features: int, classes: int) -> nn.Module:
    from trainables.models.attention import ResidualAttention

    return ResidualAttention(features, classes, config.residual, config.temperature)


@dataclass(frozen=True)
class Pool(Entry[PoolConfig]):
    """One way to pool: `build` makes, of its settings and the number of features, what takes (n, positions, features) to the heads."""

    own: bool = False  # whether the backbone pools by itself
    head: Callable[[Any, int, int], nn.Module] | None = None  # of settings, features and classes: in place of a linear head


POOLS: Registry[Pool] = Registry(
    {
        "own": Pool(PoolConfig, _every_position, own=True),
        "attention": Pool(AttentionSettings, _attention),
        "residual_attention": Pool(ResidualSettings, _every_position, head=_residual_head),
    },
    Pool,
    PoolConfig,
)
