"""GoogLeNet, which timm does not have, from torchvision: a name among timm's."""

from typing import Any

from timm.models import register_model
from torch import Tensor, nn
from torchvision.models.googlenet import GoogLeNet

BLOCKS = [f"inception{block}" for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
STEM = ["conv1", "maxpool1", "conv2", "conv3", "maxpool2"]
LAYERS = [*STEM, *BLOCKS[:2], "maxpool3", *BLOCKS[2:7], "maxpool4", *BLOCKS[7:]]

# torchvision's weights were trained on colours from -1 to 1. A file of them has the classifiers, too, which are left out.
CARD: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "classifier": ("fc", "aux1", "aux2"), "first_conv": "conv1.conv"}
default_cfgs = {"googlenet": CARD}  # where timm looks for it


class GoogLeNetFeatures(GoogLeNet):
    """Images (n, 3, height, width) to features (n, 1024), without the auxiliary classifiers.

    These bring gradients to the lower layers of a network without BatchNorm, and this one has it.
    Source: Szegedy et al., Going Deeper with Convolutions, CVPR 2015; with BatchNorm: Ioffe and Szegedy, ICML 2015.
    """

    feature_info = [{"module": name} for name in BLOCKS]

    def __init__(self) -> None:
        super().__init__(aux_logits=False, init_weights=False)
        del self.fc, self.dropout
        self.pooled = True
        # pyrefly: ignore[bad-argument-type]
        self.pretrained_cfg = {"architecture": "googlenet", **CARD}

    def reset_classifier(self, num_classes: int, global_pool: str) -> None:
        """As timm's networks have it; without a pool the features are a map (n, 1024, height, width)."""
        self.pooled = bool(global_pool)

    # pyrefly: ignore[bad-override]  one tensor, as there are no auxiliary classifiers
    def forward(self, images: Tensor) -> Tensor:
        for name in LAYERS:
            images = self.get_submodule(name)(images)
        return self.avgpool(images).flatten(1) if self.pooled else images


@register_model
def googlenet(**settings: Any) -> nn.Module:
    """Raises: TypeError for settings that it does not know, as timm's networks do."""
    if "drop_path_rate" in settings:
        raise TypeError("GoogLeNet has no drop_path_rate")
    return GoogLeNetFeatures()
