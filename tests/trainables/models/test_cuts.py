import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit

from tests.conftest import nightly_after
from trainables.models.cuts import Cuts


def drawn(seed: int, cuts: list[float], scale: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, and classes whose borders are these cuts, blurred by logistic noise."""
    rng = np.random.default_rng(seed)
    numbers = rng.uniform(15, 70, count)
    return numbers.astype(np.float32), np.digitize(numbers + rng.logistic(0, scale, count), cuts)


def likelihood(values: np.ndarray, numbers: np.ndarray, classes: np.ndarray) -> float:
    """The log-likelihood of cuts and, last, a scale, by differences of sigmoids."""
    *cuts, scale = values
    beyond = np.column_stack([np.ones(len(numbers)), *(expit((numbers - cut) / scale) for cut in cuts), np.zeros(len(numbers))])
    return float(np.log(beyond[np.arange(len(numbers)), classes] - beyond[np.arange(len(numbers)), classes + 1]).sum())


@pytest.mark.parametrize("seed", nightly_after(2, range(10)))
@pytest.mark.parametrize(
    ("nominal", "true", "scale"), [((30, 60), [33.0, 52.0], 2.0), ((30,), [24.0], 4.0), ((20, 40, 50), [25.0, 36.0, 55.0], 1.0)]
)
def test_the_cuts_and_the_scale_that_made_classes_of_numbers_are_found_again(seed, nominal, true, scale):
    cuts = Cuts(nominal, 15.0)
    cuts.fit(*drawn(seed, true, scale))
    np.testing.assert_allclose(cuts.cuts.numpy(), true, atol=0.8)
    assert cuts.scale.item() == pytest.approx(scale, rel=0.15)


@pytest.mark.parametrize("seed", nightly_after(2, range(10)))
def test_no_other_cuts_and_scale_are_more_likely(seed):
    numbers, classes = drawn(seed, [33.0, 52.0], 3.0, count=600)
    cuts = Cuts((30, 60), 15.0)
    cuts.fit(numbers, classes)
    found = np.array([*cuts.cuts.tolist(), cuts.scale.item()])
    best = minimize(
        lambda values: -likelihood(values, numbers, classes), found + [2.0, -2.0, 0.5], method="Nelder-Mead", options={"maxiter": 2000}
    )
    # The image that stands at each nominal cut holds the fitted ones back a little.
    assert likelihood(found, numbers, classes) > -best.fun - 1.0
    np.testing.assert_allclose(found, best.x, atol=0.6)


def test_logits_are_logarithms_of_differences_of_sigmoids():
    numbers, classes = drawn(0, [33.0, 52.0], 3.0, count=50)
    cuts = Cuts((30, 60), 15.0)
    cuts.fit(numbers, classes)
    told = cuts(torch.from_numpy(numbers)).gather(1, torch.from_numpy(classes)[:, None]).sum().item()
    assert told == pytest.approx(likelihood(np.array([*cuts.cuts.tolist(), cuts.scale.item()]), numbers, classes), rel=1e-4)


@pytest.mark.parametrize("seed", nightly_after(4, range(30)))
def test_cuts_ascend_and_are_finite_whatever_the_numbers_are_worth(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    numbers, classes = rng.normal(40, rng.choice([0.0, 1e-3, 30.0]), count), rng.integers(rng.integers(1, 4), size=count)
    cuts = Cuts((30, 60), 15.0)
    cuts.fit(numbers.astype(np.float32), classes)
    first, second = cuts.cuts.tolist()
    assert np.isfinite([first, second, cuts.scale.item()]).all() and first < second and cuts.scale.item() > 0
    logits = cuts(torch.linspace(-100, 200, 31))
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.logsumexp(dim=1), torch.zeros(31), atol=1e-4, rtol=0)


def test_classes_that_numbers_separate_are_told_with_little_doubt_and_a_class_that_is_absent_keeps_its_cut_near():
    cuts = Cuts((30, 60), 15.0)
    cuts.fit(np.array([20.0] * 50 + [40.0] * 50, dtype=np.float32), np.repeat([0, 1], 50))
    assert 20 < cuts.cuts[0] < 40 and 50 < cuts.cuts[1] < 75
    assert cuts(torch.tensor([20.0, 40.0])).argmax(dim=1).tolist() == [0, 1]


def test_the_same_numbers_give_the_same_bits_and_numbers_that_are_none_change_nothing():
    one, other = Cuts((30, 60), 15.0), Cuts((30, 60), 15.0)
    numbers, classes = drawn(3, [28.0, 61.0], 2.0, count=300)
    one.fit(numbers, classes)
    other.fit(np.full(3, np.nan, dtype=np.float32), np.zeros(3, dtype=int))
    assert other.cuts.tolist() == [29.5, 59.5]
    other.fit(numbers, classes)
    assert torch.equal(one.cuts, other.cuts) and torch.equal(one.scale, other.scale)
