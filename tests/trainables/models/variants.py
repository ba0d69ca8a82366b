"""Kinds of networks, for tests that hold for all of them."""

from tests.conftest import nightly_after

# Sections of settings that change the network, each alone, and many together.
VARIANTS: dict[str, dict] = {
    "plain": {},
    "two backbones": {"model": {"second": "test_efficientnet"}},
    "drop_path": {"model": {"drop_path": 0.3}},
    "neck": {"model": {"neck": "batchnorm"}},
    "hidden": {"model": {"hidden": 12, "dropout": 0.2}},
    "dropout samples": {"model": {"dropout": 0.5, "dropout_samples": 3}},
    "arcface": {"loss": {"name": "arcface"}},
    "cosface": {"loss": {"name": "cosface", "scale": 10.0}},
    "ldam": {"loss": {"name": "ldam"}},
    "coral": {"task": "heads", "loss": {"ordinal": "coral"}},
    "number": {"task": "heads", "loss": {"ordinal": "number", "regression": 0.5}},
    "regression": {"loss": {"regression": 0.5}},
    "edges mixed": {"model": {"edges": "mix"}},
    "edges in the stem": {"model": {"edges": "stem"}},
    "frozen backbone": {"model": {"freeze": "backbone"}},
    "frozen stages": {"model": {"freeze": "stages", "train_stages": 2}},
    "frozen for an epoch": {"model": {"freeze": "backbone", "unfreeze_epoch": 1}},
    "attention pooling": {
        "pool": {"name": "attention", "attention_heads": 2, "mlp_ratio": 1.0},
        "model": {"dropout": 0.2, "neck": "batchnorm"},
    },
    "residual attention": {"task": "heads", "pool": {"name": "residual_attention"}, "model": {"dropout": 0.2}},
    "residual attention, frozen": {
        "task": [["mask", "gender"], ["age"]],
        "pool": {"name": "residual_attention", "residual": 0.5, "temperature": 3.0},
        "model": {"freeze": "backbone"},
        "loss": {"regression": 0.5},
    },
    "all at once": {
        "task": "heads",
        "model": {
            "second": "test_vit",
            "freeze": "stages",
            "train_stages": 1,
            "edges": "mix",
            "drop_path": 0.1,
            "neck": "batchnorm",
            "hidden": 12,
            "dropout": 0.2,
            "dropout_samples": 2,
        },
        "loss": {"name": "arcface", "ordinal": "coral", "regression": 0.1},
    },
}

# Stages of one network of each family, and the beginning of the last stage's parameters.
FAMILIES: dict[str, tuple[int, str]] = {
    "resnet10t": (5, "layer4."),
    "googlenet": (10, "inception5b."),
    "resnext26ts": (5, "stages.3."),
    "densenet121": (5, "features."),
    "efficientnet_b0": (8, "blocks.6."),
    "regnetx_002": (5, "s4."),
    "eca_nfnet_l0": (5, "stages.3."),
    "mobilenetv2_050": (8, "blocks.6."),
    "mobilenetv3_small_050": (8, "conv_head."),
    "mobilevitv2_050": (6, "stages.4."),
    "test_vit": (7, "blocks.5."),
    "deit3_small_patch16_224": (13, "blocks.11."),
    "beit_base_patch16_224": (13, "blocks.11."),
    "beitv2_base_patch16_224": (13, "blocks.11."),
    "swin_tiny_patch4_window7_224": (5, "layers.3."),
    "convnext_atto": (5, "stages.3."),
    "caformer_s18": (5, "stages.3."),
    "coatnet_pico_rw_224": (5, "stages.3."),
}

BACKBONES = ("test_resnet", "test_vit", "test_efficientnet")
# On every push each variant with one of the small backbones, these in turn; each with all of them with `-m nightly`.
EVERY_VARIANT = nightly_after(
    len(VARIANTS),
    [(variant, BACKBONES[(place + turn) % len(BACKBONES)]) for turn in range(len(BACKBONES)) for place, variant in enumerate(VARIANTS)],
)


def with_backbone(variant: str, backbone: str, **model) -> dict[str, dict]:
    """The sections of a variant, for one backbone."""
    sections = VARIANTS[variant]
    merged = {**sections.get("model", {}), "backbone": backbone, **model}
    if backbone == "test_efficientnet":
        # None of its blocks has a way around it.
        merged.pop("drop_path", None)
    return sections | {"model": merged}
