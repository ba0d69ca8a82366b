"""Heads: one linear softmax layer per group of attributes."""

import torch
from torch import nn


class Heads(nn.Module):
    """Features (n, features) to a list of logits, (n, classes) per head."""

    def __init__(self, features: int, classes: list[int], dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(nn.Linear(features, count) for count in classes)

    def forward(self, features: torch.Tensor) -> list[torch.Tensor]:
        features = self.dropout(features)
        return [layer(features) for layer in self.layers]
