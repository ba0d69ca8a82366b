"""What holds for every entry of every registry."""

from typing import Any

import numpy as np
import pytest
import timm
import torch

from trainables.config import CHOOSERS, REGISTRIES, TrialConfig, section, settings_of
from trainables.data.augment import build_augment
from trainables.data.sampling import build_sampler
from trainables.data.views import View
from trainables.losses import LOSSES, Head
from trainables.mixing import build_mixer
from trainables.models.freezing import build_freeze
from trainables.models.settings import POOLS
from trainables.optimizers import build_optimizer
from trainables.registry import Section
from trainables.schedules import build_schedule
from trainables.semi import build_semi

BUILD = {
    "view": View.of,
    "augment": build_augment,
    "mix": build_mixer,
    "semi": build_semi,
    "sampler": build_sampler,
    "model": lambda settings: build_freeze(settings, timm.create_model("test_resnet", num_classes=0)),
    "pool": lambda settings: (
        POOLS[settings.name].build(settings, 16),
        POOLS[settings.name].head and POOLS[settings.name].head(settings, 16, 3),
    ),
    "loss": lambda settings: LOSSES[settings.name].build(settings, Head("classes", np.array([50.0, 10.0, 10.0]), 70)),
    "optimizer": lambda settings: build_optimizer(settings, torch.nn.Linear(2, 2)),
    "schedule": lambda settings: build_schedule(settings, 0.1, 10, 5),
}
GIVEN = {  # what makes every setting matter, or has no default
    "model": {"backbone": "test_resnet"},
    "optimizer": {"lr": 0.1},
    "cross_entropy": {"alpha": "effective"},
    "focal": {"alpha": "effective"},
}
every_entry = pytest.mark.parametrize(
    ("name", "entry"), [(path.partition("/")[0], one) for path, table in REGISTRIES.items() for one in table]
)


def settings_with(name: str, entry: str) -> Section:
    return section(name, **{CHOOSERS[name]: entry}, **GIVEN.get(name, {}), **GIVEN.get(entry, {}))


def noting(settings: Section) -> tuple[Section, set[str]]:
    """The same settings, and the names of those that were read since."""
    read: set[str] = set()

    class Noting(type(settings)):
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    noted = Noting.model_construct(**dict(settings))
    read.clear()
    return noted, read


@every_entry
def test_an_entry_of_a_registry_reads_all_of_its_own_settings(name, entry):
    settings, read = noting(settings_with(name, entry))
    BUILD[name](settings)
    own = settings_of(name, entry).keys() - TrialConfig.model_fields[name].annotation.model_fields.keys()
    assert own <= read


@every_entry
def test_the_settings_of_an_entry_derive_from_those_of_its_section_and_all_but_what_must_be_given_have_a_default(name, entry):
    shared = TrialConfig.model_fields[name].annotation
    settings = REGISTRIES[f"{name}/{CHOOSERS[name]}"][entry].settings
    assert issubclass(settings, shared)
    assert all(not field.is_required() for field_name, field in settings.model_fields.items() if field_name not in shared.model_fields)
