from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES = 18


@pytest.fixture(scope="session")
def batch() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Logits (n, 18) of -10 to 10, class ids (n,) and mixed rows (n, 18), by seed."""

    def make(seed: int, images: int = 12) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        logits = (4 * torch.randn(images, CLASSES, generator=generator)).clamp(-10, 10)
        ids = torch.randint(CLASSES, (images,), generator=generator)
        rows = torch.lerp(F.one_hot(ids, CLASSES).float(), F.one_hot(ids.flip(0), CLASSES).float(), 0.3)
        return logits, ids, rows

    return make
