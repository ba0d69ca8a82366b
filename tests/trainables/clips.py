"""CLIPs with random weights, as open_clip makes them, for the smallest image tower that timm has."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import open_clip
import torch
from open_clip import CLIP
from timm.models._registry import _model_entrypoints

BACKBONE = "vit_xsmall_patch16_clip_224"
SIDE = 32  # pixels of its images
VISION = {"image_size": SIDE, "layers": 10, "width": 256, "patch_size": 16}
TINY = {"layers": 2, "width": 64}  # in place of these, where timm's tower is made so, too
TEXT = {"width": 64, "heads": 1, "layers": 2}


def clip(quick_gelu: bool = False, **vision) -> CLIP:
    """A CLIP that tells images and texts apart, which one with small first weights does not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIP(24, VISION | vision, TEXT, quick_gelu=quick_gelu, init_logit_scale=math.log(100))
        for name, parameter in model.named_parameters():
            if name.endswith(("token_embedding.weight", "positional_embedding")):
                parameter.data.mul_(20)
    return model.eval()


@contextmanager
def tiny_tower() -> Iterator[None]:
    """timm's tower in TINY."""
    made = _model_entrypoints[BACKBONE]
    _model_entrypoints[BACKBONE] = partial(made, depth=TINY["layers"], embed_dim=TINY["width"], num_heads=1)
    yield
    _model_entrypoints[BACKBONE] = made


def saved(model: CLIP, file: Path) -> Path:
    """The file with all its weights."""
    torch.save(model.state_dict(), file)
    return file


def logits_of(model: CLIP, images: torch.Tensor, texts: list[list[str]]) -> torch.Tensor:
    """What open_clip says of normalised images (n, 3, height, width): logits (n, classes); a class is the mean of its texts."""
    with torch.inference_mode():
        each = [model.encode_text(open_clip.tokenize(some), normalize=True).mean(dim=0) for some in texts]
        classes = torch.stack([one / one.norm() for one in each])
        return model.logit_scale.exp() * model.encode_image(images, normalize=True) @ classes.T
