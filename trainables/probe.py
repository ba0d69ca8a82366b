"""Linear probes: heads that are fitted at once, by scikit-learn, to what a network that has not been trained here gives.

A trial whose backbone is frozen for ever ends there; any other begins with such heads, so that its first steps do not spoil what the
backbone knows.

Sources: Alain and Bengio, Understanding Intermediate Layers Using Linear Classifier Probes, 2016; Kumar et al., Fine-Tuning Can Distort
Pretrained Features and Underperform Out-of-Distribution, ICLR 2022 (arXiv 2202.10054).
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.data.targets import Kind
from trainables.data.training import count_shown
from trainables.features import Features, features_of, kept
from trainables.loop import DivergedError, Epoch, Parts, Progress, Scores, activated, fit, peak_memory
from trainables.models.heads import NumberHead
from trainables.record import EpochReport

FITTED = 1  # format of fitted heads in the cache, and of what is fitted
FOLDS = 3  # of the training groups, which choose how much weights are held back
STRENGTHS = tuple(10.0**power for power in range(-4, 1))  # C of logistic regression, the most held back first
ALPHAS = tuple(10.0**power for power in range(5, -1, -1))  # of ridge regression, likewise
BLOCK = 1024  # images whose neighbours are looked for at a time
NEVER = -20.0  # the logit of a class without a training image

Linear = tuple[np.ndarray, np.ndarray]  # weights (columns, features) and biases (columns,)
Groups = Sequence[tuple[np.ndarray, np.ndarray]]  # positions that fit, and that choose, for each fold


def epochs_of(
    config: TrialConfig, parts: Parts, progress: Progress = Progress(), known_scores: Sequence[float | None] = ()
) -> Iterator[Epoch]:
    """The epochs of a trial, see `fit`: those of its training, or the only one of a probe."""
    fits = config.model.heads == "probe"
    if (fits or config.model.is_probe) and not progress.epoch:
        start = perf_counter()
        features = probe_features(parts)
        if fits:
            fit_heads(parts, features)
        if config.model.is_probe:
            yield _only_epoch(parts, features, start, known_scores)
    if not config.model.is_probe:
        yield from fit(parts, config.train, epochs=config.epochs, seed=config.seed, progress=progress, known_scores=known_scores)


def probe_features(parts: Parts) -> tuple[Features, Features]:
    """Of the training images, and of the validation images. Raises: DivergedError where one is not finite."""
    images, own = parts.batches.images, parts.validation.rows
    rows, sources = parts.batches.rows[: len(images)], images.source
    model, where, edges = parts.model, (parts.device, parts.precision), parts.validation.edges
    # Those of the run's own images at once, so that another fold finds them in the cache.
    first = sources == 0
    found = features_of(model, parts.views[0], np.concatenate([rows[first], own]), *where, edges)
    train = np.empty((len(images), found.values.shape[1]), dtype=np.float32)
    train[first], valid = np.split(found.values, [int(first.sum())])
    for source in range(1, len(parts.views)):
        if (of_source := sources == source).any():
            train[of_source] = features_of(model, parts.views[source], rows[of_source], *where, edges).values
    if not np.isfinite(found.values).all():
        raise DivergedError("features of the network are NaN or infinite before it is trained")
    return replace(found, values=train), replace(found, values=valid)


def fit_heads(parts: Parts, features: tuple[Features, Features], some: np.ndarray | slice = slice(None)) -> None:
    """Give every head of the model the weights of the linear model that fits the training images.

    Args:
        some: positions of the training images that are fitted; all of them by default.
    """
    from threadpoolctl import threadpool_limits

    images, heads = parts.batches.images.take(some), parts.model.heads
    values = features[0].values[some].astype(np.float64)
    middle, scale = values.mean(axis=0), values.std(axis=0)
    scale[scale < 1e-9] = 1.0
    standard = (values - middle) / scale
    folds = inner_folds(images.groups)
    weights = images.weights / images.weights.mean()
    # One thread: the bits do not depend on how many cores there are.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the least held back weights have not settled: others are chosen then
        for layer, kind, target in zip(heads.layers, heads.kinds, images.targets, strict=True):
            linear = linear_of(layer)
            if isinstance(layer, NumberHead):
                target = (target - layer.number.mean.item()) / layer.number.std.item()
            slopes, biases = fitted(kind, standard, target, linear.out_features, folds, weights)
            # Standardisation goes into the layer, which then takes features as they are.
            slopes = slopes / scale
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(slopes))
                linear.bias.copy_(torch.from_numpy(biases - slopes @ middle))
    if parts.average:
        parts.evaluated.heads.load_state_dict(heads.state_dict())


def linear_of(layer: nn.Module) -> nn.Linear:
    """The linear layer of a head."""
    found = layer.number.layer if isinstance(layer, NumberHead) else layer
    assert isinstance(found, nn.Linear), "which `build_parts` has seen to"
    return found


def inner_folds(groups: np.ndarray) -> Groups:
    """Folds of training images by whole groups; none where there is one group."""
    from sklearn.model_selection import GroupKFold

    count = min(FOLDS, len(np.unique(groups)))
    return list(GroupKFold(count).split(groups, groups=groups)) if count > 1 else []


def fit_classes(features: np.ndarray, target: np.ndarray, classes: int, folds: Groups, weights: np.ndarray) -> Linear:
    """Multinomial logistic regression, whose C has the lowest log loss on inner folds.

    Args:
        features: (n, features), standardised.
        target: class ids (n,), or rows (n, classes), whose most probable class counts.
        weights: (n,) with which images count.
    """
    ids = target.argmax(axis=1) if target.ndim == 2 else target
    slopes, biases = np.zeros((classes, features.shape[1])), np.full(classes, NEVER)
    present = np.unique(ids)
    if len(present) == 1:
        biases[present] = 0.0
        return slopes, biases

    def loss(strength: float, inside: np.ndarray, outside: np.ndarray) -> float:
        if len(np.unique(ids[inside])) < 2:
            return math.inf
        model = _logistic(strength, features[inside], ids[inside], weights[inside])
        chances = np.full((len(outside), classes), 1e-6)
        chances[:, model.classes_] = model.predict_proba(features[outside])
        return float(-(weights[outside] * np.log(chances[np.arange(len(outside)), ids[outside]].clip(1e-6))).sum())

    model = _logistic(_best(STRENGTHS, folds, loss), features, ids, weights)
    if len(present) == 2:
        # One row for two classes: half of it for, half of it against.
        slopes[present] = np.concatenate([-model.coef_, model.coef_]) / 2
        biases[present] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        slopes[present], biases[present] = model.coef_, model.intercept_
    return slopes, biases


def fit_tags(features: np.ndarray, target: np.ndarray, tags: int, folds: Groups, weights: np.ndarray) -> Linear:
    """A logistic regression for each tag, with one C that has the lowest log loss on inner folds over all of them.

    A tag that all images have, or none, is predicted with (images with it + 1) / (images + 2).
    """
    there = target > 0.5

    def each(strength: float, rows: np.ndarray) -> Linear:
        slopes, biases = np.zeros((tags, features.shape[1])), np.empty(tags)
        for tag in range(tags):
            own = there[rows, tag]
            if own.all() or not own.any():
                biases[tag] = math.log((own.sum() + 1) / (len(own) - own.sum() + 1))
            else:
                model = _logistic(strength, features[rows], own, weights[rows])
                slopes[tag], biases[tag] = model.coef_[0], model.intercept_[0]
        return slopes, biases

    def loss(strength: float, inside: np.ndarray, outside: np.ndarray) -> float:
        slopes, biases = each(strength, inside)
        logits = features[outside] @ slopes.T + biases
        # log(1 + exp(x)) - x where the tag is there
        return float((weights[outside, None] * (np.logaddexp(0, logits) - logits * there[outside])).sum())

    return each(_best(STRENGTHS, folds, loss), np.arange(len(features)))


def fit_number(features: np.ndarray, target: np.ndarray, columns: int, folds: Groups, weights: np.ndarray) -> Linear:
    """Ridge regression, whose alpha has the lowest squared error on inner folds; images without the number are left out."""
    from sklearn.linear_model import Ridge

    numbers = target.reshape(len(target))
    known = np.isfinite(numbers)

    def ridge(alpha: float, rows: np.ndarray) -> Ridge:
        rows = rows[known[rows]]
        return Ridge(alpha=alpha, solver="cholesky").fit(features[rows], numbers[rows], sample_weight=weights[rows])

    def loss(alpha: float, inside: np.ndarray, outside: np.ndarray) -> float:
        outside = outside[known[outside]]
        return float((weights[outside] * (ridge(alpha, inside).predict(features[outside]) - numbers[outside]) ** 2).sum())

    model = ridge(_best(ALPHAS, folds, loss), np.arange(len(features)))
    return model.coef_[None], np.array([model.intercept_])


def fitted(kind: Kind, features: np.ndarray, target: np.ndarray, columns: int, folds: Groups, weights: np.ndarray) -> Linear:
    """The weights of a head as its kind is fitted, from the cache where another trial has fitted the same images.

    Many trials of a search begin with the same heads, whose fit takes as long as half an epoch.
    """
    import sklearn

    digest = hashlib.sha256(f"{kind} {columns} {FITTED} {sklearn.__version__}".encode())
    for array in (features, target, weights, *(positions for fold in folds for positions in fold)):
        digest.update(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes())

    def compute() -> dict[str, np.ndarray]:
        slopes, biases = FITS[kind](features, target, columns, folds, weights)
        return {"slopes": slopes, "biases": biases}

    def usable(arrays: Mapping[str, np.ndarray]) -> bool:
        return arrays["slopes"].shape == (columns, features.shape[1]) and arrays["biases"].shape == (columns,)

    found = kept(digest.hexdigest(), compute, usable)
    return found["slopes"], found["biases"]


FITS: dict[Kind, Callable[[np.ndarray, np.ndarray, int, Groups, np.ndarray], Linear]] = {
    "classes": fit_classes,
    "tags": fit_tags,
    "number": fit_number,
}


def _best(values: Sequence[float], folds: Groups, loss: Callable[[float, np.ndarray, np.ndarray], float]) -> float:
    """The value with the lowest loss, the first of several; that in the middle where there are no folds."""
    if not folds:
        return values[len(values) // 2]
    return min(values, key=lambda value: sum(loss(value, *fold) for fold in folds))


def _logistic(strength: float, features: np.ndarray, ids: np.ndarray, weights: np.ndarray):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=300).fit(features, ids, sample_weight=weights)


@torch.inference_mode()
def answers_of(parts: Parts, features: Features) -> list[Tensor]:
    """What the heads predict (n, columns) float32 of features."""
    model = parts.evaluated
    heads = model.heads.eval()
    logits = heads(torch.from_numpy(features.values).to(parts.device)).logits
    return [activated(head, kind).cpu() for head, kind in zip(logits, heads.kinds, strict=True)]


def nearest(parts: Parts, features: tuple[Features, Features], count: int = 20) -> list[np.ndarray]:
    """What the nearest training images, by the cosine of their features, have in common (n, columns) per head: shares of classes and tags,
    or the mean of numbers, weighted by exp(cosine / 0.07).

    Source: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018.
    """
    train, valid = (one.values / np.maximum(np.linalg.norm(one.values, axis=1, keepdims=True), 1e-9) for one in features)
    count, found = min(count, len(train)), []
    for start in range(0, len(valid), BLOCK):
        cosines = valid[start : start + BLOCK] @ train.T
        near = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        weights = np.exp(np.take_along_axis(cosines, near, axis=1) / 0.07 - 1 / 0.07)
        found.append((near, weights / weights.sum(axis=1, keepdims=True)))
    rows, weights = (np.concatenate(both) for both in zip(*found, strict=True))
    heads = []
    for kind, target, layer in zip(parts.model.heads.kinds, parts.batches.images.targets, parts.model.heads.layers, strict=True):
        if kind == "classes" and target.ndim == 1:
            answer = np.zeros((len(valid), linear_of(layer).out_features))
            np.add.at(answer, (np.arange(len(valid))[:, None], target[rows]), weights)
        else:
            answer = (weights[..., None] * target[rows]).sum(axis=1)
        heads.append(answer.astype(np.float32))
    return heads


def _only_epoch(parts: Parts, features: tuple[Features, Features], start: float, known_scores: Sequence[float | None]) -> Epoch:
    train, valid = features
    images = parts.batches.images
    answers = [answer.numpy() for answer in answers_of(parts, valid)]
    scores = Scores.of(parts, answers)
    progress = Progress().after(1, 0, known_scores[0] if known_scores else scores.score, parts.metric)
    report = EpochReport(
        epoch=1,
        train_loss=_train_loss(parts, train),
        score=known_scores[0] if known_scores else scores.score,
        accuracy=scores.accuracy,
        target_scores=scores.target_scores,
        lr=0.0,
        seconds=perf_counter() - start,
        photos=len(images),
        distinct=len(images),
        largest_repeat=1,
        images_per_second=1 / max(train.seconds, 1e-9),
        peak_memory=peak_memory(parts.device),
        micro_batch=parts.micro_batch,
        best_epoch=1,
        last=True,
        shown=count_shown(images, np.arange(len(images)), parts.task),
    )
    return Epoch(report, answers, progress)


def _train_loss(parts: Parts, features: Features) -> float:
    """Of the training images, by the losses that would train the heads."""
    model = parts.evaluated
    with torch.inference_mode():
        logits = model.heads.eval()(torch.from_numpy(features.values).to(parts.device)).logits
        targets = [torch.from_numpy(target).to(parts.device) for target in parts.batches.images.targets]
        return float(sum(loss(one, target).item() for loss, one, target in zip(parts.losses, logits, targets, strict=True)))
