"""Numbers as places between 0 and 1 of their ranges, and back."""

import math

from search_spaces.schema import Float, Numeric


def to_unit(domain: Numeric, value: float) -> float:
    """A number as its place between 0 and 1; steps are the middles of equal parts, on the scale of the domain."""
    low, high = _edges(domain)
    return (_scaled(domain, value) - low) / (high - low)


def from_unit(domain: Numeric, share: float) -> float:
    """The inverse of `to_unit`, at the nearest step."""
    low, high = _edges(domain)
    value = low + share * (high - low)
    value = math.exp(value) if domain.log else value
    if step := _step(domain):
        value = domain.low + round((value - domain.low) / step) * step
    value = min(max(value, domain.low), domain.high)
    return float(value) if isinstance(domain, Float) else round(value)


def _step(domain: Numeric) -> float:
    return domain.step or (0 if isinstance(domain, Float) else 1)


def _edges(domain: Numeric) -> tuple[float, float]:
    half = _step(domain) / 2
    return _scaled(domain, domain.low - half), _scaled(domain, domain.high + half)


def _scaled(domain: Numeric, value: float) -> float:
    return math.log(value) if domain.log else value
