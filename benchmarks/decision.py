"""Does the rule that lets a vote answer help? What it gains in truth over the best single model, in worlds where the truth is known.

A world has trials, validation groups on which everything is chosen, and so many other images that scores there are the true ones. It is
simulated, or consists of small scikit-learn models on scikit-learn's handwritten digits. With --run a world is a draw from a finished run:
half of its validation groups, on which all is chosen among all of its trials, whose weights need not have been kept; the other half scores.
The rules are the two of analysis.ensemble: the candidate with the best nested score answers (the default), or a vote answers only where it
is significantly better than the best single model (--safe).

    uv run python -m benchmarks.decision [--worlds 4] [--kind spread --kind digits] [--groups 40]

    uv run python -m benchmarks.decision --run faces [--worlds 20] [--groups 150]
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import mean
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from analysis.command import read_runs, refusals
from analysis.evaluation.decide import SINGLE, Options, decide
from analysis.evaluation.nested import Candidate, Known, MemberOptions, candidates_of, known_of
from analysis.members.trials import Runs
from trainables.console import open_console
from trainables.data.targets import Classes, Scheme, read_task
from trainables.metrics import DEFAULT, METRICS
from trainables.progress import progress_bar
from trainables.registry import ConfigError, Mistake

LOSS = 0.005  # what a rule may lose in a world before it counts
TEST = 20_000  # images that scores are true on
VOTES = ("soft", "hard", "rank", "weighted", "greedy", "greedy_all")


@dataclass(frozen=True)
class Answers:
    """What trials say of some images."""

    probabilities: np.ndarray  # (trials, n, classes)
    target: np.ndarray  # (n,)
    groups: np.ndarray  # (n,)


@dataclass(frozen=True)
class Kind:
    """A kind of simulated world. Logits are a trial's skill times what can be seen in an image, plus noise of its own."""

    skills: tuple[float, ...]  # of each trial
    groups: int = 150  # for validation
    images: int = 1  # of a group
    classes: int = 6
    own: float = 0.45  # noise that a trial has for itself
    families: int = 0  # whose trials share some noise
    hard: float = 0.7  # noise that all trials see alike, by group
    rarest: float = 0.3  # how common the rarest class is against the commonest

    def world(self, seed: int) -> tuple[Answers, Answers]:
        """The validation groups and the many other ones."""
        rng = np.random.default_rng(seed)
        return self.draw(self.groups, rng), self.draw(TEST // self.images, rng)

    def draw(self, groups: int, rng: np.random.Generator) -> Answers:
        """Images of new groups. Three images in ten show another class than their group's."""
        group = np.repeat(np.arange(groups), self.images)
        images, shares = len(group), np.geomspace(1, self.rarest, self.classes)
        shares /= shares.sum()
        target = rng.choice(self.classes, size=groups, p=shares)[group]
        if self.images > 1:
            target = np.where(rng.random(images) < 0.3, rng.choice(self.classes, size=images, p=shares), target)

        def noise(of_group: float, of_image: float) -> np.ndarray:
            shared = rng.standard_normal((groups, self.classes))[group]
            return of_group * shared + of_image * rng.standard_normal((images, self.classes))

        seen = 2.2 * np.eye(self.classes)[target] + noise(self.hard, 0.7)
        families = [0.6 * noise(0, 1) for _ in range(self.families)] or [np.zeros((images, self.classes))]
        logits = [skill * seen + self.own * noise(0.7, 0.9) + families[number % len(families)] for number, skill in enumerate(self.skills)]
        return Answers(np.stack([softmax(1.2 * one) for one in logits]), target, group)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) of logits."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def between(high: float, low: float, count: int = 20) -> tuple[float, ...]:
    """Skills from high to low."""
    return tuple(np.linspace(high, low, count).tolist())


KINDS: dict[str, Kind] = {
    "equal": Kind((1.0,) * 20),
    "a few good ones": Kind((*(1.1,) * 3, *(0.6,) * 17)),
    "spread": Kind(between(1.3, 0.5)),
    "correlated": Kind(between(1.2, 0.8), own=0.2, families=4),
    "alike": Kind(between(1.2, 0.6), own=0.2),
    "one far ahead": Kind((1.6, *between(0.8, 0.4, 19)), own=0.3, families=2),
    "many classes": Kind(between(1.2, 0.7), groups=300, classes=30, own=0.5, rarest=0.2),
    "few groups": Kind(between(1.2, 0.8), groups=40, own=0.3, families=4),
    "groups of images": Kind(between(1.2, 0.7), groups=120, images=5, classes=12, hard=1.0, rarest=0.1),
}
DIGITS = "digits"


def digits(seed: int, groups: int = 200) -> tuple[Answers, Answers]:
    """Small models of several families, each with settings and pixels drawn for it, on noisy digits: 250 images train them."""
    from sklearn.datasets import load_digits
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(seed)
    pixels: np.ndarray
    target: np.ndarray
    # pyrefly: ignore[bad-assignment]  the stubs say nothing of what return_X_y changes
    pixels, target = load_digits(return_X_y=True)
    order = rng.permutation(len(target))
    pixels, target = (pixels / 16 + 0.35 * rng.standard_normal(pixels.shape))[order], target[order]
    families: list[Callable[[], Any]] = [
        lambda: LogisticRegression(C=10 ** rng.uniform(-2, 1), max_iter=200),
        lambda: GaussianNB(var_smoothing=10 ** rng.uniform(-3, 0)),
        lambda: KNeighborsClassifier(int(rng.integers(3, 16))),
        lambda: DecisionTreeClassifier(max_depth=int(rng.integers(3, 9)), random_state=seed),
        lambda: ExtraTreesClassifier(int(rng.integers(5, 40)), random_state=seed),
    ]
    found = []
    for _ in range(24):
        seen = rng.choice(pixels.shape[1], size=rng.integers(16, 64), replace=False)
        model = families[rng.integers(len(families))]().fit(pixels[:250, seen], target[:250])
        found.append(model.predict_proba(pixels[250:, seen]))
    probabilities, target = np.stack(found), target[250:]
    parts = slice(0, groups), slice(groups, None)
    valid, test = (Answers(probabilities[:, part], target[part], np.arange(len(target))[part]) for part in parts)
    return valid, test


Candidates = Mapping[str, Candidate]


def as_known(valid: Answers, test: Answers) -> tuple[Candidates, Known, Known]:
    """The trials of a world, its validation groups and the other ones."""
    trials, _, classes = valid.probabilities.shape
    scheme, metric = Scheme((Classes("class", tuple(map(str, range(classes)))),)), METRICS[DEFAULT]
    task, names = read_task("joint", scheme), [f"trial/{number}" for number in range(trials)]
    first, second = (
        Known(metric, scheme, one.target[:, None], one.groups, dict(zip(names, one.probabilities, strict=True))) for one in (valid, test)
    )
    return {name: Candidate(task, {"backbone": name, "task": "joint"}) for name in names}, first, second


def halves(runs: Runs, seed: int, groups: int | None) -> tuple[Candidates, Known, Known]:
    """Likewise, of finished runs: so many of their validation groups, half by default, and the others."""
    known, rng = known_of(runs), np.random.default_rng(seed)
    names = rng.permutation(np.unique(known.groups))
    chosen = np.isin(known.groups, names[: groups or len(names) // 2])
    candidates = {name: replace(candidate, votes=True) for name, candidate in candidates_of(runs).items()}
    return candidates, known.take(np.flatnonzero(chosen)), known.take(np.flatnonzero(~chosen))


def outcome(candidates: Candidates, valid: Known, test: Known) -> dict[str, float]:
    """The true gain over the best single model of each vote, and of what each rule lets answer; `single`: its true score."""

    def no_transforms(names: object, trials: object) -> Mapping[str, Any]:
        raise AssertionError("no step is tried")

    metric = valid.metric
    decision = decide(Options(MemberOptions(top=min(3, len(candidates))), steps=()), candidates, valid, no_transforms)
    true = {name: metric.score(test.truth(one.scheme), one(test.predicted)) for name, one in decision.pipelines.items()}
    rules = {"new": true[decision.choice.answer], "safe": true[replace(decision.choice, safe=True).answer]}
    gains = {name: metric.sign * (score - true[SINGLE]) for name, score in (true | rules).items() if name != SINGLE}
    return {"single": true[SINGLE], **gains}


def main(
    worlds: Annotated[int, typer.Option(min=1, help="Worlds of each kind.")] = 4,
    kind: Annotated[list[str] | None, typer.Option(help=f"{', '.join(KINDS)}, {DIGITS}; repeat it. Default: all.")] = None,
    groups: Annotated[int | None, typer.Option(min=10, help="Validation groups. Default: each kind's own; half of a run's.")] = None,
    run: Annotated[list[str] | None, typer.Option(help="A finished run in place of all kinds; repeat it for runs of one split.")] = None,
) -> None:
    """Print, by kind of world, the mean true gain over the best single model and the share of worlds that lose more than 0.005 by it."""
    columns = ("new", "safe", *VOTES)
    table = Table("world", "best single", "new rule", "--safe", *VOTES)
    rows: dict[str, list[dict[str, float]]] = {}
    start = perf_counter()
    draws = of_runs(run, groups) if run else {name: of_kind(name, groups) for name in kind or [*KINDS, DIGITS]}
    with progress_bar("deciding", len(draws) * worlds) as done:
        for name, draw in draws.items():
            rows[name] = []
            for seed in range(worlds):
                rows[name].append(outcome(*draw(seed)))
                done(1)
    rows["all"] = [row for found in rows.values() for row in found]
    for name, found in rows.items():
        table.add_row(name, f"{mean(row['single'] for row in found):.3f}", *(words(found, column) for column in columns))
    open_console(width=160).print(table)
    whole = rows["all"]
    figures = {
        f"{name}_{what}": value for name in ("new", "safe") for what, value in zip(("gain", "losses"), figure(whole, name), strict=True)
    }
    print(json.dumps({**figures, "worlds": len(whole), "groups": groups, "seconds": round(perf_counter() - start)}))


Draw = Callable[[int], tuple[Candidates, Known, Known]]  # by seed


def of_runs(names: list[str], groups: int | None) -> dict[str, Draw]:
    """Worlds of finished runs."""
    with refusals():
        runs = read_runs(names)
        count = len(np.unique(runs.valid.groups))
        if groups is not None and groups >= count:
            raise ConfigError([Mistake("--groups", f"{groups} of {count} validation groups leave none to score; give fewer")])
        return {", ".join(names): lambda seed: halves(runs, seed, groups)}


def of_kind(name: str, groups: int | None) -> Draw:
    """Worlds that are simulated, or of digits."""
    if name == DIGITS:
        return lambda seed: as_known(*digits(seed))
    kind = KINDS[name] if groups is None else replace(KINDS[name], groups=groups)
    return lambda seed: as_known(*kind.world(seed))


def figure(found: list[dict[str, float]], name: str) -> tuple[float, float]:
    """The mean true gain and the share of losses, over the worlds in which this was tried."""
    gains = np.array([row[name] for row in found if name in row])
    return round(float(gains.mean()), 4), round(float((gains < -LOSS).mean()), 3)


def words(found: list[dict[str, float]], name: str) -> str:
    """`+0.021 (4 %)`, or `-` where it was not tried."""
    if not any(name in row for row in found):
        return "-"
    gain, losses = figure(found, name)
    return f"{gain:+.3f} ({100 * losses:.0f} %)"


if __name__ == "__main__":
    typer.run(main)
