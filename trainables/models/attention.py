"""Attention over the positions of an image: one query that pools them, or one for each class."""

import torch
import torch.nn.functional as F
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn

from trainables.registry import ConfigError, Mistake


class ResidualAttention(nn.Module):
    """A map (n, positions, features) to logits (n, classes) float32: of each class the mean of its scores over the positions, and with
    weight `residual` their mean weighted by their own softmax.

    Weight vectors have length 1 and there is no bias, as in the code of the paper, whose single attention of a temperature this is.

    Source: Zhu and Wu, Residual Attention: A Simple but Effective Method for Multi-Label Recognition, ICCV 2021.
    """

    def __init__(self, features: int, classes: int, residual: float, temperature: float):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(classes, features)))
        self.residual = residual
        self.temperature = temperature

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            scores = F.linear(features.float(), F.normalize(self.weight))
            attention = (self.temperature * scores).softmax(dim=1)
            return scores.mean(dim=1) + self.residual * (attention * scores).sum(dim=1)


def attention_pool(features: int, heads: int, mlp_ratio: float) -> nn.Module:
    """Of each position (n, positions, features) to (n, features). Raises: ConfigError for heads that cannot share the features."""
    if features % heads:
        near = max(count for count in range(1, heads) if features % count == 0)
        message = f"{heads} cannot share the {features} features of this backbone evenly; use {near}"
        raise ConfigError([Mistake("pool/attention_heads", message)])
    return AttentionPoolLatent(features, num_heads=heads, mlp_ratio=mlp_ratio, norm_layer=nn.LayerNorm)
