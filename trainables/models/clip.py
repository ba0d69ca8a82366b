"""Files of open_clip, which hold both towers of a CLIP: that of images, for a network of timm's, and that of texts, as open_clip builds it.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021 (arXiv 2103.00020).
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.registry import ConfigError, Mistake
from trainables.texts import without_reader

IMAGES = "visual."  # what the names of an image tower begin with
SCALE = "logit_scale"
TEXTS = ("token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias", "text_projection")
BLOCK = "transformer.resblocks."  # what the other names of a text tower begin with
HEAD = 64  # channels of each of its heads of attention, in all that open_clip lays out so
PASS = 64  # texts that go through it at a time


@dataclass(frozen=True, eq=False)
class TextTower:
    """A text tower, ready to read."""

    network: nn.Module  # tokens (n, length) to embeddings (n, embedding)
    scale: float  # by which the cosines of embeddings of texts and images are multiplied
    length: int  # tokens of a text at most, its first and last among them
    embedding: int

    def count(self, text: str) -> int:
        """The tokens of a text, its first and last among them."""
        return len(_tokenizer().encode(text)) + 2

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (n, embedding) float32 of length 1."""
        passes = (texts[start : start + PASS] for start in range(0, len(texts), PASS))
        return torch.cat([F.normalize(self.network(_tokenizer()(list(some), self.length)), dim=1) for some in passes])


@cache
def _tokenizer() -> Any:
    """CLIP's, which has one vocabulary."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def is_clip(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is one of open_clip's."""
    return any(name.startswith(IMAGES) for name in state)


def text_tower(state: Mapping[str, Tensor], file: Path, quick: bool) -> TextTower:
    """The text tower of a state dict of open_clip's.

    Args:
        file: that it is from.
        quick: whether it has OpenAI's approximation of GELU, which weights do not tell.
    Raises: ConfigError where there is none, or open_clip is not installed.
    """
    missing = [name for name in (*TEXTS, SCALE) if name not in state]
    mistakes = without_reader()
    if missing:
        words = f"{file} has no text tower: {', '.join(missing)} missing; give a state dict of open_clip's CLIP, which has both towers"
        mistakes.append(Mistake("model/weights", words))
    if mistakes:
        raise ConfigError(mistakes)
    from open_clip.transformer import QuickGELU, TextTransformer

    weights = {name: value.float() for name, value in state.items() if name in TEXTS or name.startswith(BLOCK)}
    (length, width), (_, embedding) = weights["positional_embedding"].shape, weights["text_projection"].shape
    try:
        # Its first weights are drawn, and what else a trial draws must not depend on that.
        with torch.random.fork_rng(devices=[]):
            network = TextTransformer(
                context_length=length,
                vocab_size=_tokenizer().vocab_size,
                width=width,
                heads=max(1, width // HEAD),
                layers=len({name.removeprefix(BLOCK).partition(".")[0] for name in weights if name.startswith(BLOCK)}),
                output_dim=embedding,
                act_layer=QuickGELU if quick else nn.GELU,
            )
        network.load_state_dict(weights)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[-1].strip()
        raise ConfigError([Mistake("model/weights", f"{file} has another text tower than open_clip's CLIP: {why}")]) from None
    return TextTower(network.eval(), float(state[SCALE].float().exp()), length, embedding)


def image_tower(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The image tower by timm's names and for the network's size, its projection as the weights of a classifier.

    Raises: ConfigError where timm knows no such tower for the network.
    """
    # What timm reads weights of this family with; open_clip's are one of the forms that they come in.
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    found = dict(state)
    if convert:
        # Some look for what other towers have not.
        with suppress(KeyError, AttributeError):
            found = convert(dict(state), network)
    if is_clip(found):
        name = network.pretrained_cfg["architecture"]
        message = f"{name} is not the image tower of this file of open_clip's; for ViT-B-32, say, that is vit_base_patch32_clip_224"
        raise ConfigError([Mistake("model/backbone", message)])
    return found


def projection_of(state: Mapping[str, Tensor], network: nn.Module, embedding: int) -> Tensor:
    """The matrix (embedding, features) that makes an embedding of an image's features.

    Args:
        embedding: numbers of a text's embedding.
    Raises: ConfigError where an image's has others, or a matrix alone does not make it.
    """
    tower = image_tower(state, network)
    layer = next((name for name in classifiers(network) if f"{name}.weight" in tower), None)
    if layer is None or tower[f"{layer}.bias"].any():
        name = network.pretrained_cfg["architecture"]
        message = f"{name} makes embeddings by more than a matrix, and zero_shot makes linear heads; use a ViT or ConvNeXt of CLIP's"
        raise ConfigError([Mistake("model/backbone", message)])
    projection = tower[f"{layer}.weight"].float()
    if len(projection) != embedding:
        message = f"embeddings have {len(projection)} numbers of an image and {embedding} of a text; give a file of one CLIP"
        raise ConfigError([Mistake("model/weights", message)])
    return projection


def classifiers(network: nn.Module) -> tuple[str, ...]:
    """The layers that weights of a network may have and a backbone has not."""
    named = network.pretrained_cfg.get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)
