"""Calibration: a trial's probabilities made to mean what they say, so that trials of different losses can be averaged and corrected."""

from dataclasses import dataclass

import numpy as np

from analysis.votes.arrays import Array, library
from analysis.votes.voting import LEAST
from trainables.data.targets import Scheme, Task, compose
from trainables.metrics.evidence import group_sums

LOWEST, HIGHEST = 0.05, 20.0  # the temperatures that are tried
PENALTY = 1e-4  # of a class's number, squared, in nats
FLAT = 1e-10  # of the steepest direction: a fit is free to lie anywhere along one that is flatter


@dataclass(frozen=True)
class Calibration:
    """One temperature for each head of a trial."""

    scheme: Scheme  # of everything that the trial predicts
    heads: tuple[tuple[str, ...], ...]  # names of targets per head; together each of the scheme's once
    temperatures: tuple[float, ...]  # one a head; 1 changes nothing, higher ones make it less sure

    def __call__(self, joint: Array) -> Array:
        """Joint probabilities (images, classes) with each head at its temperature, from those of the trial; heads are independent."""
        changed = [
            (self.scheme.part(head), tempered(self.scheme.marginal(head, joint), temperature))
            for head, temperature in zip(self.heads, self.temperatures, strict=True)
        ]
        return compose(self.scheme, changed)


def tempered(probabilities: Array, temperature: float) -> Array:
    """Probabilities (n, classes) of logits divided by the temperature: the power 1 / temperature, in shares of its sum.

    Which class is the most probable does not change. A probability of 0 stays 0.
    """
    # Relative to the most probable class no power can underflow in all classes of an image.
    powers = (probabilities / library(probabilities).amax(probabilities, axis=1, keepdims=True)) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def log_loss(probabilities: np.ndarray, target: np.ndarray) -> float:
    """Mean negative log probability, in nats, of the true classes (n,)."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(target)), target], LEAST)).mean())


def fit_calibration(task: Task, joint: np.ndarray, labels: np.ndarray) -> Calibration:
    """The temperature of each head that makes its log loss on these images lowest.

    Args:
        task: of the trial.
        joint: its probabilities (images, classes of the task's scheme), on images that it was not trained on.
        labels: class ids (images, targets of the task's scheme).
    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    targets = task.targets(labels)
    temperatures = tuple(
        _temperature(task.scheme.marginal(head, joint), target) for head, target in zip(task.heads, targets.T, strict=True)
    )
    return Calibration(task.scheme, task.heads, temperatures)


def _temperature(probabilities: np.ndarray, target: np.ndarray) -> float:
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return log_loss(tempered(probabilities, float(np.exp(log_temperature))), target)

    # The loss has one valley over the logarithm of the temperature, which makes halving and doubling equally far.
    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


@dataclass(frozen=True, eq=False)
class BiasCorrection:
    """One sharpness for a model's logits, and a number that is added to each class's."""

    numbers: np.ndarray  # (1 + classes,): the logarithm of what logits are multiplied by, then the biases

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) of logits."""
        from scipy.special import softmax

        return softmax(np.exp(self.numbers[0]) * logits + self.numbers[1:], axis=1)

    def moved(self, by: np.ndarray) -> "BiasCorrection":
        """With other numbers, within the bounds of a fit."""
        numbers = self.numbers + by
        numbers[0] = np.clip(numbers[0], -np.log(HIGHEST), -np.log(LOWEST))
        return BiasCorrection(numbers)


def as_logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits of probabilities; of 0 too."""
    return np.log(np.maximum(probabilities, LEAST))


def bias_correction(logits: np.ndarray, target: np.ndarray) -> BiasCorrection:
    """The temperature, and the number added to the logits of each class, that make the log loss of these images lowest.

    What drew or weighed rare classes more often in training makes a model promise too much of them, which no temperature fixes.

    Args:
        logits: (n, classes) of images whose true classes are known and that did not train.
        target: those classes (n,).
    Source: Alexandari, Kundaje and Shrikumar, Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at Label Shift
    Adaptation, ICML 2020.
    """
    from scipy.optimize import minimize

    classes = logits.shape[1]
    wanted = np.eye(classes)[target]

    def loss(fit: np.ndarray) -> tuple[float, np.ndarray]:
        answer = BiasCorrection(fit)(logits)
        error = (answer - wanted) / len(target)
        # The penalty keeps the number of a class that no image shows finite.
        slope = np.concatenate([[(error * logits).sum() * np.exp(fit[0])], error.sum(axis=0) + 2 * PENALTY * fit[1:]])
        return log_loss(answer, target) + PENALTY * (fit[1:] ** 2).sum(), slope

    bounds = [(-np.log(HIGHEST), -np.log(LOWEST)), *[(None, None)] * classes]
    return BiasCorrection(minimize(loss, np.zeros(1 + classes), jac=True, bounds=bounds).x)


def group_pulls(fitted: BiasCorrection, logits: np.ndarray, target: np.ndarray, group: np.ndarray) -> np.ndarray:
    """By how much the numbers of a fit to these images move (groups, 1 + classes) when a group counts once more, to first order.

    So that a bootstrap over groups need not fit again: one Newton step from the fit, with its Hessian.

    Args:
        group: number of each image's (n,), from 0.
    Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 2.7 (the influence function).
    """
    images, classes = logits.shape
    scaled, answer = np.exp(fitted.numbers[0]) * logits, fitted(logits)
    spread = answer * (scaled - (answer * scaled).sum(axis=1, keepdims=True))
    hessian = np.empty((1 + classes, 1 + classes))
    hessian[0, 0] = (spread * scaled).sum() / images
    hessian[0, 1:] = hessian[1:, 0] = spread.sum(axis=0) / images
    hessian[1:, 1:] = (np.diag(answer.sum(axis=0)) - answer.T @ answer) / images + 2 * PENALTY * np.eye(classes)
    error = answer - np.eye(classes)[target]
    slopes = group_sums(np.column_stack([(error * scaled).sum(axis=1), error]) / images, group)
    # A model that is sure of everything leaves the temperature open: what the Hessian does not tell stays as it is.
    return -slopes @ np.linalg.pinv(hessian, rcond=FLAT, hermitian=True)


@dataclass(frozen=True)
class Bin:
    """Images of which the most probable class is about equally sure."""

    low: float  # probabilities from above this,
    high: float  # up to and with this
    confidence: float  # mean probability of the most probable class
    accuracy: float  # share of images of which this is the true one
    photos: int


@dataclass(frozen=True)
class CalibrationError:
    """How far the probability of the most probable class is from how often it is right."""

    expected: float  # the mean distance over images, 0..1
    bins: tuple[Bin, ...]  # those that hold images, least sure first


def calibration_error(probabilities: np.ndarray, target: np.ndarray, bins: int = 15) -> CalibrationError:
    """The expected calibration error of probabilities (images, classes) against true classes (images,), over bins of equal width.

    Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == target
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found = tuple(
        Bin(float(edges[one]), float(edges[one + 1]), float(confidence[place == one].mean()), float(right[place == one].mean()), int(count))
        for one, count in enumerate(np.bincount(place, minlength=bins))
        if count
    )
    return CalibrationError(sum(one.photos * abs(one.confidence - one.accuracy) for one in found) / len(target), found)
