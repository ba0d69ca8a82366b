"""Zero-shot heads: made of texts by CLIP's text tower, so that a trial knows its classes before it has seen an image of them.

A class's logit is the cosine between the embeddings of the image and of the class's texts, times CLIP's own scale. That of a joint class is
the sum of those of its values, so one head for several targets answers as heads of their own do.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021 (arXiv 2103.00020), section 3.1.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.data.targets import Scheme, Task
from trainables.features import kept
from trainables.models.assemble import Classifier
from trainables.models.backbone import build_backbone, read_state
from trainables.models.clip import TextTower, projection_of, text_tower
from trainables.models.heads import UnitProjection
from trainables.models.settings import ModelConfig, weights_file
from trainables.registry import ConfigError, Mistake
from trainables.texts import PATH, texts_of

FORMAT = 1  # of embeddings in the cache, and of how they are computed


@dataclass(frozen=True, eq=False)
class Words:
    """What zero-shot heads are made of."""

    state: Mapping[str, Tensor]  # of a file of open_clip's
    tower: TextTower  # in that file
    texts: Mapping[str, list[list[str]]]  # by target, for each of its values

    def give(self, model: Classifier, task: Task) -> None:
        """Make the heads of a model that has the file's image tower. Raises: ConfigError where the two towers do not fit together."""
        projection = projection_of(self.state, model.backbone, self.tower.embedding)
        slopes = {name: _slopes(self.tower, values) @ projection.double().numpy() for name, values in self.texts.items()}
        trunk = model.heads.trunk
        assert isinstance(trunk, UnitProjection), "which `build_heads` has seen to"
        trunk.project_by(projection)
        for layer, scheme in zip(model.heads.layers, task.head_schemes, strict=True):
            assert isinstance(layer, nn.Linear), "which `build_parts` has seen to"
            ids = scheme.split(np.arange(scheme.classes))
            rows = np.sum([slopes[name][column] for name, column in zip(scheme.names, ids.T, strict=True)], axis=0)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(rows))
                layer.bias.zero_()


def read_words(config: TrialConfig, task: Task, scheme: Scheme) -> Words:
    """What the heads of a trial are made of.

    Args:
        scheme: of the data.
    Raises: ConfigError with all that is wrong with the texts, the file and the backbone.
    """
    model, mistakes = config.model, []
    state, tower, texts = {}, None, {}
    if model.second:
        words = f"{model.second} is a second network, and zero_shot reads images with the one tower of its file; leave it out"
        mistakes.append(Mistake("model/second", words))
    with _noted(mistakes):
        texts = texts_of(model.texts, task, scheme)
    with _noted(mistakes):
        file = _file_of(model)
        state = read_state(file)
        # Both towers of a CLIP have the same GELU.
        tower = text_tower(state, file, quick="quickgelu" in model.backbone)
        mistakes += _too_long(texts, tower)
    if not tower or mistakes:
        with _noted(mistakes):
            if state:
                build_backbone(model.model_copy(update={"second": ""}), (config.view.height, config.view.width))
        raise ConfigError(mistakes)
    return Words(state, tower, texts)


@contextmanager
def _noted(mistakes: list[Mistake]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        mistakes += error.mistakes


def _file_of(model: ModelConfig) -> Path:
    if (file := weights_file(model.weights, model.backbone)) is None:
        message = f"is {model.weights}, and model/heads: zero_shot needs a file of open_clip's, with both towers of a CLIP; give its path"
        raise ConfigError([Mistake("model/weights", message)])
    return file


def _too_long(texts: Mapping[str, list[list[str]]], tower: TextTower) -> list[Mistake]:
    every = dict.fromkeys(text for values in texts.values() for value in values for text in value)
    long = {text: tokens for text in every if (tokens := tower.count(text)) > tower.length}
    return [Mistake(PATH, f"{text!r} has {tokens} tokens, and its tower takes {tower.length}; shorten it") for text, tokens in long.items()]


def _slopes(tower: TextTower, values: Sequence[Sequence[str]]) -> np.ndarray:
    """What embeddings of images are multiplied by for the logits of some values (values, embedding).

    Args:
        values: the texts of each, whose mean embedding stands for it.
    """
    found = embedded(tower, [text for value in values for text in value])
    each = np.split(found, np.cumsum([len(value) for value in values])[:-1])
    means = np.stack([one.mean(axis=0) for one in each])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    # What all have in common changes no probability, and would take up the digits of half precision.
    return tower.scale * (means - means.mean(axis=0))


def embedded(tower: TextTower, texts: Sequence[str]) -> np.ndarray:
    """Embeddings (texts, embedding) of length 1, from the cache where another trial has read the same."""
    digest = hashlib.sha256(f"{FORMAT} {version('open_clip_torch')} {torch.__version__} {torch.get_num_threads()} {texts}".encode())
    digest.update(str(tower.network).encode())
    for name, weights in tower.network.state_dict().items():
        digest.update(name.encode() + weights.numpy().tobytes())

    def compute() -> dict[str, np.ndarray]:
        return {"embeddings": tower.embed(texts).numpy()}

    def usable(arrays: Mapping[str, np.ndarray]) -> bool:
        return arrays["embeddings"].shape == (len(texts), tower.embedding)

    return kept(digest.hexdigest(), compute, usable)["embeddings"].astype(np.float64)
