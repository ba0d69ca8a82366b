"""What would help most, as `analysis.advise` leaves it in the run's folder and as the report shows it, in words."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from analysis.evaluation.ceiling import Ceiling, TargetNoise
from analysis.evaluation.learning import Curve
from analysis.evaluation.needs import SCORED, Need
from analysis.evaluation.search.ends import RangeEnd
from analysis.evaluation.search.space import words
from trainables.data.names import some
from trainables.data.targets import Kind
from trainables.metrics import Metric
from trainables.record import read_json, write_json
from trainables.storage import Folder

ADVICE = "advice.json"
NOISE = "suspects/noise.json"  # what the search for label issues estimated of each target
LIMITING = 0.5  # share of what is missing to a perfect score, from which on wrong labels are what limits it


@dataclass(frozen=True)
class Learning:
    """The learning curve, and of what."""

    of: str  # the configuration in words
    curve: Curve


@dataclass(frozen=True)
class Advice:
    """All that was found out. What is not known has the reason in its place."""

    metric: str
    kind: Kind  # of the targets that the metric scores
    trial: str  # the best one
    score: float  # its score on validation
    learning: Learning | str
    ceiling: Ceiling | str
    ends: tuple[RangeEnd, ...] | str
    needs: tuple[Need, ...] | str


ADVICES = TypeAdapter(Advice)
NOISES = TypeAdapter(tuple[TargetNoise, ...])


def read_advice(file: Folder) -> Advice:
    """What the command found. Raises: one of DAMAGE."""
    return ADVICES.validate_python(read_json(file, "advice"))


def write_advice(run: Folder, advice: Advice) -> Folder:
    write_json(run / ADVICE, ADVICES.dump_python(advice, mode="json"))
    return run / ADVICE


def read_noise(file: Folder) -> tuple[TargetNoise, ...]:
    """What is known of wrong labels. Raises: one of DAMAGE."""
    return NOISES.validate_python(read_json(file, "noise")["targets"])


def write_noise(run: Folder, noise: Sequence[TargetNoise]) -> Folder:
    write_json(run / NOISE, {"targets": [asdict(one) for one in noise]})
    return run / NOISE


# In words


def advice_lines(found: Advice, metric: Metric) -> list[str]:
    """A sentence on each topic, first where something can be done, last where something is not known."""
    learning, ceiling, ends, classes = found.learning, found.ceiling, found.ends, found.needs
    each = [
        (2, f"Whether more images would help is not known: {learning}.")
        if isinstance(learning, str)
        else (0 if learning.curve.helps else 1, learning_words(learning, metric)),
        (2, f"The highest score that can be measured is not known: {ceiling}.")
        if isinstance(ceiling, str)
        else (0 if limits(ceiling, found.score, metric) else 1, ceiling_words(ceiling, found.score, metric)),
        (2, f"Whether a range ends too soon is not known: {ends}.") if isinstance(ends, str) else (0 if ends else 1, ends_words(ends)),
        (2, f"Which classes need images is not known: {classes}.")
        if isinstance(classes, str)
        else (0 if classes else 1, needs_words(classes, found.kind)),
    ]
    return [line for _, line in sorted(each, key=lambda one: one[0])]


def learning_words(learning: Learning, metric: Metric) -> str:
    """Whether twice the images would help."""
    curve = learning.curve
    expected = f"{_signed(curve.gain, metric)} {metric.title} expected (95 % CI {_between(curve.gain_interval, metric)})"
    if curve.helps:
        return f"Twice the training groups would help: {expected}."
    return f"Whether twice the training groups would help cannot be told: {expected}."


def learning_note(learning: Learning, metric: Metric) -> str:
    """What that was measured with, and what the last doubling gave."""
    curve = learning.curve
    last = f"From half of the groups to all of them it was {_signed(curve.last, metric)} ({_between(curve.last_interval, metric)})"
    return f"{last}, by {learning.of}; what trains the whole network may gain more."


def ceiling_words(ceiling: Ceiling, score: float, metric: Metric) -> str:
    """The highest score that can be measured, and whether labels are what limits it."""
    low, high = ceiling.interval
    shares = ", ".join(f"{one.wrong:.1%} of {one.target}" for one in sorted(ceiling.noise, key=lambda one: -one.wrong)[:3])
    top = f"With the labels as they are (wrong: {shares}) no {metric.title} {'above' if metric.sign > 0 else 'below'} {ceiling.score:.3f}"
    what = "labels are what limits it" if limits(ceiling, score, metric) else "labels are not what limits it"
    return f"{top} can be measured (95 % CI {low:.3f} to {high:.3f}); the best trial has {score:.3f}: {what}."


def limits(ceiling: Ceiling, score: float, metric: Metric) -> bool:
    """Whether wrong labels are half or more of what is missing to a perfect score."""
    perfect = metric.bounds[1] if metric.sign > 0 else metric.bounds[0]
    return metric.sign * (perfect - ceiling.score) >= LIMITING * metric.sign * (perfect - score)


def ends_words(ends: Sequence[RangeEnd]) -> str:
    """Which settings have their best values at an end."""
    if not ends:
        return "No searched setting has its best values at an end of its range."
    each = [f"{one.path} ({words(one.best)}, {one.end} end {words(one.limit)}; try {words(one.beyond)})" for one in ends]
    return f"Best at the end of its range, so that better may lie beyond: {'; '.join(each)}."


def needs_words(found: Sequence[Need], kind: Kind) -> str:
    """Which classes need images."""
    what = "tag" if kind == "tags" else "class"
    if not found:
        return f"No {what} with few groups scores below the mean of all."
    each = [f"{one.name} ({one.groups} groups, {SCORED[kind]} {one.score:.2f})" for one in found]
    return f"{'Tags' if kind == 'tags' else 'Classes'} that need images most: {some(each)}."


def _signed(gain: float, metric: Metric) -> str:
    # A gain is above 0 where the score is better, an error that falls is written as it falls.
    return f"{metric.sign * gain:+.3f}"


def _between(interval: tuple[float, float], metric: Metric) -> str:
    low, high = sorted(metric.sign * end for end in interval)
    return f"{low:+.3f} to {high:+.3f}"
