"""Calibration: a trial's probabilities made to mean what they say, so that trials of different losses can be averaged and corrected."""

from dataclasses import dataclass

import numpy as np

from analysis.votes.arrays import Array, library
from analysis.votes.voting import LEAST
from trainables.data.labels import Scheme, Task, compose

LOWEST, HIGHEST = 0.05, 20.0  # the temperatures that are tried
PENALTY = 1e-4  # of a class's number, squared, in nats


@dataclass(frozen=True)
class Calibration:
    """One temperature for each head of a trial."""

    scheme: Scheme  # of everything that the trial predicts
    heads: tuple[tuple[str, ...], ...]  # attribute names per head; together each of the scheme's once
    temperatures: tuple[float, ...]  # one a head; 1 changes nothing, higher ones make it less sure

    def __call__(self, joint: Array) -> Array:
        """Joint probabilities (photos, classes) with each head at its temperature, from those of the trial; heads are independent."""
        changed = [
            (self.scheme.part(head), tempered(self.scheme.marginal(head, joint), temperature))
            for head, temperature in zip(self.heads, self.temperatures, strict=True)
        ]
        return compose(self.scheme, changed)


def tempered(probabilities: Array, temperature: float) -> Array:
    """Probabilities (n, classes) of logits divided by the temperature: the power 1 / temperature, in shares of its sum.

    Which class is the likeliest does not change. A probability of 0 stays 0.
    """
    # Relative to the likeliest class no power can underflow in all classes of a photo.
    powers = (probabilities / library(probabilities).amax(probabilities, axis=1, keepdims=True)) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def log_loss(probabilities: np.ndarray, target: np.ndarray) -> float:
    """Mean negative log probability, in nats, of the true classes (n,)."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(target)), target], LEAST)).mean())


def fit_calibration(task: Task, joint: np.ndarray, labels: np.ndarray) -> Calibration:
    """The temperature of each head that makes its log loss on these photos lowest.

    Args:
        task: of the trial.
        joint: its probabilities (photos, classes of the task's scheme), on photos that it was not trained on.
        labels: attribute ids (photos, attributes of the task's scheme).
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


def bias_corrected(probabilities: np.ndarray, target: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of probabilities after the temperature, and the number added to the logits of each class, that make the log loss lowest.

    What drew or weighed rare classes more often in training makes a model promise too much of them, which no temperature mends.

    Args:
        probabilities: (n, classes) of photos whose true classes are known and that did not train.
        target: those classes (n,).
        others: (k, classes), of the same model.
    Source: Alexandari, Kundaje and Shrikumar, Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at Label Shift
    Adaptation, ICML 2020.
    """
    from scipy.optimize import minimize

    logits = np.log(np.maximum(probabilities, LEAST))
    wanted = np.eye(probabilities.shape[1])[target]

    def loss(fit: np.ndarray) -> tuple[float, np.ndarray]:
        answer = _with_biases(logits, fit)
        error = (answer - wanted) / len(target)
        # The penalty keeps the number of a class that nobody shows finite.
        slope = np.concatenate([[(error * logits).sum() * np.exp(fit[0])], error.sum(axis=0) + 2 * PENALTY * fit[1:]])
        return log_loss(answer, target) + PENALTY * (fit[1:] ** 2).sum(), slope

    bounds = [(-np.log(HIGHEST), -np.log(LOWEST)), *[(None, None)] * probabilities.shape[1]]
    fit = minimize(loss, np.zeros(1 + probabilities.shape[1]), jac=True, bounds=bounds).x
    return _with_biases(logits, fit), _with_biases(np.log(np.maximum(others, LEAST)), fit)


def _with_biases(logits: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """Probabilities of logits (n, classes) times the exponential of the fit's first number, plus its others."""
    from scipy.special import softmax

    return softmax(np.exp(fit[0]) * logits + fit[1:], axis=1)


@dataclass(frozen=True)
class Bin:
    """Photos of which the likeliest class is about equally sure."""

    low: float  # probabilities from above this,
    high: float  # up to and with this
    confidence: float  # mean probability of the likeliest class
    accuracy: float  # share of photos of which this is the true one
    photos: int


@dataclass(frozen=True)
class CalibrationError:
    """How far the probability of the likeliest class is from how often it is right."""

    expected: float  # the mean distance over photos, 0..1
    bins: tuple[Bin, ...]  # those that hold photos, least sure first


def calibration_error(probabilities: np.ndarray, target: np.ndarray, bins: int = 15) -> CalibrationError:
    """The expected calibration error of probabilities (photos, classes) against true classes (photos,), over bins of equal width.

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
