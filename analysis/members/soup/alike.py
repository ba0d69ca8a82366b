"""Which trials are similar: the mean of their weights is a network that works."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from analysis.members.trials import Trial, task_words
from trainables.data.images import LeftOut
from trainables.data.splits import NO_FOLD
from trainables.data.targets import Task
from trainables.data.views import View
from trainables.losses import CosineHeadSettings
from trainables.metrics import Metric
from trainables.models.settings import ModelConfig
from trainables.storage import local_file


@dataclass(frozen=True)
class Kind:
    """What networks must share so that the mean of their weights is a network that works."""

    task: Task
    view: View
    weights: tuple[str, ...]  # which each backbone began from
    seed: int | None  # of hidden layers, whose units another seed would put in another order; None: there are none
    scale: float | None  # by which heads multiply cosines; None: they compute none
    colours: tuple[float, ...]  # means and deviations that images are normalised by
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]  # name, type and shape


def find_groups(trials: Sequence[Trial], metric: Metric) -> tuple[list[tuple[Trial, ...]], list[LeftOut]]:
    """Groups of two or more similar trials, each best on validation first, and the trials that are in none, with the reasons."""
    random, whole, folds, fit = [], [], [], []
    for trial in trials:
        config = trial.record.config
        if config.model.weights == "none":
            random.append(trial)
        elif len(trial.models) > 1:
            folds.append(trial)
        elif config.data.fold == NO_FOLD:
            whole.append(trial)
        else:
            fit.append(trial)
    alike: dict[Kind, list[Trial]] = {}
    for trial in fit:
        alike.setdefault(kind_of(trial), []).append(trial)
    groups = [tuple(sorted(group, key=lambda trial: -metric.sign * trial.score)) for group in alike.values() if len(group) > 1]
    alone = [group[0] for group in alike.values() if len(group) == 1]
    reasons = {
        "trials began from random weights (model/weights is none), and the mean of such networks is worth nothing": random,
        "configurations have one model for each fold, validated on different groups: give the search instead": folds,
        "refits on all data, for which a soup has no validation images: give the search alone": whole,
        "trials that no other is similar to in tensors, first weights, task and view": alone,
    }
    return groups, [LeftOut(reason, tuple(described(one) for one in found)) for reason, found in reasons.items() if found]


def kind_of(trial: Trial) -> Kind:
    """What the trial's network is made of and began from."""
    config = trial.record.config
    with local_file(trial.models[0]) as file, safe_open(file, framework="pt") as reader:
        slices = {name: reader.get_slice(name) for name in sorted(reader.keys())}
        tensors = tuple((name, str(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items())
        colours = tuple(value for name in ("mean", "std") for value in reader.get_tensor(name).flatten().tolist())
    return Kind(
        task=trial.task,
        view=View.of(config.view),
        weights=first_weights(config.model),
        # Linear heads of any beginning may be averaged: the mean of linear maps gives the mean of their logits.
        seed=config.seed if config.model.hidden else None,
        scale=config.loss.scale if isinstance(config.loss, CosineHeadSettings) else None,
        colours=colours,
        tensors=tensors,
    )


def first_weights(model: ModelConfig) -> tuple[str, ...]:
    """What each backbone began from: a file, or timm's weights of that name."""
    names = [name for name in (model.backbone, model.second) if name]
    if model.weights == "imagenet":
        return tuple(f"imagenet {name}" for name in names)
    return tuple(str(Path(model.weights.replace("{backbone}", name)).resolve()) for name in names)


def described(trial: Trial) -> str:
    return f"{trial.name} ({kind_words(trial)})"


def kind_words(trial: Trial) -> str:
    """What a trial's network is: `resnet10t, joint, 80x60, from faces.safetensors`."""
    config, view = trial.record.config, View.of(trial.record.config.view)
    backbones = " and ".join(filter(None, (config.model.backbone, config.model.second)))
    began = config.model.weights if config.model.weights in ("imagenet", "none") else Path(config.model.weights).name
    return f"{backbones}, {task_words(trial)}, {view}, from {began.replace('{backbone}', config.model.backbone)}"
