"""Classes that have an order from one number: how probable each is, and the cuts between them that fit best."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor, nn

SCALES = 0.01, 10.0  # of the noise around a predicted number, in its standard deviations
CLOSEST = 1e-3  # distance of two cuts, likewise: where they meet, the class between has a probability of 0


def log_bands(above: Tensor, distances: Tensor) -> Tensor:
    """Log-probabilities (n, classes) of ordered classes, P(y > k) being the sigmoid of how far above the k-th cut something is.

    Args:
        above: (n, classes - 1), descending in each row.
        distances: (classes - 2,) between two neighbours of a row, above 0.
    """
    beyond, within = F.logsigmoid(above), F.logsigmoid(-above)
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): its logarithm has no difference of near equals.
    between = beyond[:, :-1] + within[:, 1:] + (-torch.expm1(-distances)).log()
    return torch.cat([within[:, :1], between, beyond[:, -1:]], dim=1)


class Cuts(nn.Module):
    """A predicted number (n,) to logits (n, classes) float32 of the classes that it is cut into.

    P(y > k) is the sigmoid of the number's distance from the k-th cut, divided by a scale. Cuts and scale are no parameters: they are
    fitted to numbers of images whose classes are known, so they undo what a prediction is wrong by near a cut, such as that it tends to the
    mean. Logits are log-probabilities.

    Source: McCullagh, Regression Models for Ordinal Data, Journal of the Royal Statistical Society B, 1980.
    """

    def __init__(self, first: Sequence[int], std: float):
        """
        Args:
            first: the smallest whole number of each class but the lowest.
            std: standard deviation of the numbers.
        """
        super().__init__()
        self._nominal, self._std = np.array(first, dtype=np.float64) - 0.5, std
        self.register_buffer("cuts", torch.tensor(self._nominal, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(std / 4))

    def forward(self, number: Tensor) -> Tensor:
        with torch.autocast(number.device.type, enabled=False):
            return log_bands((number.float()[:, None] - self.cuts) / self.scale, self.cuts.diff() / self.scale)

    def fit(self, numbers: np.ndarray, classes: np.ndarray) -> None:
        """Take the cuts and the scale of the greatest likelihood; they stay as they are where a number is not finite.

        Each cut also has one image at the place where the data cuts, half of it on either side, so a class that no image has leaves its
        cut near there.

        Args:
            numbers: (n,) predicted.
            classes: (n,) true class ids.
        """
        if not np.isfinite(numbers).all():
            return
        place, nominal = (torch.from_numpy((given - self._nominal[0]) / self._std) for given in (numbers.astype(np.float64), self._nominal))
        known = torch.from_numpy(classes.astype(np.int64))

        def read(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Cuts, their distances and the scale, in standard deviations from the first nominal cut."""
            distances = values[1:-1].exp()
            return torch.cat([values[:1], values[:1] + distances.cumsum(0)]), distances, values[-1].exp()

        def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
            given = torch.from_numpy(values).requires_grad_()
            cuts, distances, scale = read(given)
            told = log_bands((place[:, None] - cuts) / scale, distances / scale).gather(1, known[:, None])
            off = (nominal - cuts) / scale
            found = -(told.sum() + 0.5 * (F.logsigmoid(off) + F.logsigmoid(-off)).sum()) / (len(known) + len(off))
            (slope,) = torch.autograd.grad(found, given)
            return found.item(), slope.numpy()

        gaps = np.log(np.diff(self._nominal) / self._std)
        bounds = [(None, None), *[(math.log(CLOSEST), None)] * len(gaps), tuple(map(math.log, SCALES))]
        with torch.enable_grad():
            best = minimize(loss, np.array([0.0, *gaps, math.log(0.25)]), jac=True, method="L-BFGS-B", bounds=bounds).x
        cuts, _, scale = read(torch.from_numpy(best))
        self.cuts.copy_((self._nominal[0] + self._std * cuts).float())
        self.scale.copy_((self._std * scale).float())
