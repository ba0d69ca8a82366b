"""Does an early score predict the final one? A pruner stops trials by early scores, so its choice is as good as these."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from types import MappingProxyType

import pandas as pd

from analysis.evaluation.fidelity import MISLEADING, Fidelity

FEWEST = 3  # trials for a correlation: two are always in full agreement or in none
ENOUGH = 8  # trials for an evaluation: a true correlation of 0.8 shows below 0.3 by chance in one sample of 20, with 5 trials in one of 10
NORMAL_80 = 0.8416  # that the standard normal distribution is below in 80 of 100 draws
CERTAIN = 1 - 1e-9  # a correlation of 1 has no finite transform
NONE_STOPPED: Mapping[int, Sequence[float]] = MappingProxyType({})
TELLING = 0.5  # what an advised epoch must reach; well above MISLEADING, else the next search would be as likely to be warned


def measure(
    curves: Mapping[int, Sequence[float]],
    backbones: Mapping[int, str],
    rungs: Iterable[int],
    stopped: Mapping[int, Sequence[float]] = NONE_STOPPED,
) -> list[Fidelity]:
    """The rank correlation between the score at each rung and the score at the trial's last epoch.

    Trials that passed are a selected sample: their early scores lie close together, which makes the correlation among them lower
    than among all trials. How much closer than those of all is known, so it is corrected for that. Trials that may not be stopped
    (`run/keep_running`), or a search with `run/pruner: none`, are needed as well: only there is a bad start seen that ends well.

    Args:
        curves: trial number -> score of every epoch, for trials that ran to the end. A trial whose last epoch is the rung or
            earlier is left out of that rung: there its early score is its final one.
        backbones: trial number -> backbone, for at least these trials.
        rungs: epochs, counted from 1.
        stopped: likewise, for trials that the pruner stopped.

    Returns: by epoch, over all trials first, then for each backbone by name where there are several.
    Sources: Spearman, The Proof and Measurement of Association between Two Things, 1904; ties get their mean rank. The correction is case 2
    of Thorndike, Personnel Selection, 1949.
    """
    names = sorted({backbones[number] for number in curves})
    groups = (None, *names) if len(names) > 1 else (None,)

    def of(trials: Mapping[int, Sequence[float]], backbone: str | None) -> list[Sequence[float]]:
        return [curve for number, curve in trials.items() if backbone in (None, backbones[number])]

    return [_fidelity(epoch, backbone, of(curves, backbone), of(stopped, backbone)) for epoch in sorted(set(rungs)) for backbone in groups]


def warning(
    curves: Mapping[int, Sequence[float]],
    backbones: Mapping[int, str],
    rungs: Iterable[int],
    stopped: Mapping[int, Sequence[float]] = NONE_STOPPED,
) -> str | None:
    """A message where early scores mislead the pruner, with the option that fixes it; None where they do not, or with too few trials.

    A rung misleads where the correlation is significantly below 0.3 over at least 8 trials, be it of all or of one backbone: of so few
    trials a correlation of 0.5 is seen below 0.3 in one search of five, by chance. The advised `run/grace`
    is the earliest later epoch before the last at which it is at least 0.5 wherever it misled, each over at least 8 of the trials.
    """
    evaluated = _evaluated(measure(curves, backbones, rungs, stopped))
    misled = [found for found, correlation in evaluated if _at_most(found, correlation) < MISLEADING]
    if not misled:
        return None
    where = ", ".join(_place(found) for found in misled)
    telling = _telling_epoch(curves, backbones, misled, stopped)
    if telling is None:
        fix = f"use --no-early-stopping, since no later epoch before the last is known to reach {TELLING}"
    else:
        fix = f"use --set run/grace={telling}, the earliest later epoch that reaches {TELLING}"
    return f"Early scores mislead the pruner: their rank correlation with the final epoch is {where}. For the next search {fix}."


def highest(correlation: float, trials: int) -> float:
    """Upper bound of the true correlation, with 80 % confidence, where so many trials (4 or more) have this one.

    Source: Fisher, On the probable error of a coefficient of correlation deduced from a small sample, Metron, 1921.
    """
    return math.tanh(math.atanh(max(-CERTAIN, min(correlation, CERTAIN))) + NORMAL_80 / math.sqrt(trials - 3))


def unrestricted(correlation: float, restriction: float) -> float:
    """Spearman's correlation among all trials, from that among trials whose early scores are so many times closer together.

    The inverse with 1 / restriction. Thorndike's formula is for Pearson's, to and from which it is converted as for normal variables.
    """
    among = 2 * math.sin(math.pi * correlation / 6)
    among_all = among * restriction / math.sqrt(1 + among**2 * (restriction**2 - 1))
    return _spearman(among_all)


def _at_most(found: Fidelity, correlation: float) -> float:
    among = unrestricted(correlation, 1 / found.restriction)
    return unrestricted(highest(among, found.trials), found.restriction)


def line(fidelities: Iterable[Fidelity]) -> str | None:
    """What the live table shows, over all trials: `rank correlation with the final epoch: epoch 1: 0.45, epoch 3: 0.82 (9 trials)`."""
    found = [fidelity for fidelity in fidelities if fidelity.backbone is None and fidelity.correlation is not None]
    if not found:
        return None
    rungs = ", ".join(f"epoch {fidelity.epoch}: {fidelity.correlation:z.2f}" for fidelity in found)
    # Trials that ended before a rung are missing there.
    trials = " to ".join(str(count) for count in sorted({found[0].trials, found[-1].trials}))
    return f"rank correlation with the final epoch: {rungs} ({trials} trials)"


def _fidelity(epoch: int, backbone: str | None, curves: Sequence[Sequence[float]], stopped: Sequence[Sequence[float]]) -> Fidelity:
    beyond = [curve for curve in curves if len(curve) > epoch]
    early, final = pd.Series([curve[epoch - 1] for curve in beyond]), pd.Series([curve[-1] for curve in beyond])
    if len(beyond) < FEWEST or early.nunique() == 1 or final.nunique() == 1:
        return Fidelity(epoch, backbone, len(beyond), None)
    others = [curve[epoch - 1] for curve in stopped if len(curve) >= epoch]
    if not others:
        # pandas has the method by name, but needs SciPy for it.
        return Fidelity(epoch, backbone, len(beyond), float(early.rank().corr(final.rank())))
    everyone = _normal_scores(pd.concat([early, pd.Series(others)], ignore_index=True))
    own = everyone[: len(early)]
    restriction = float(everyone.std(ddof=0) / own.std(ddof=0))
    return Fidelity(epoch, backbone, len(beyond), unrestricted(_spearman(own.corr(_normal_scores(final))), restriction), restriction)


def _normal_scores(values: pd.Series) -> pd.Series:
    """Where the values would lie were they normal. A trial that diverged is then one bad trial, however bad."""
    return ((values.rank() - 0.5) / len(values)).map(NormalDist().inv_cdf)


def _spearman(pearson: float) -> float:
    """Spearman's correlation of normal variables with this one of Pearson's."""
    return 6 / math.pi * math.asin(max(-0.5, min(pearson / 2, 0.5)))


def _telling_epoch(
    curves: Mapping[int, Sequence[float]],
    backbones: Mapping[int, str],
    misled: Sequence[Fidelity],
    stopped: Mapping[int, Sequence[float]],
) -> int | None:
    groups = {found.backbone for found in misled}
    # Beyond all rungs that misled: a new grace must not leave one of them in place.
    later = range(max(found.epoch for found in misled) + 1, max(map(len, curves.values())))
    for epoch in later:
        evaluated = _evaluated(measure(curves, backbones, [epoch], stopped))
        if groups <= {found.backbone for found, correlation in evaluated if correlation >= TELLING}:
            return epoch
    return None


def _evaluated(fidelities: Iterable[Fidelity]) -> list[tuple[Fidelity, float]]:
    """Those with enough trials for an evaluation, and their correlations."""
    return [(one, one.correlation) for one in fidelities if one.trials >= ENOUGH and one.correlation is not None]


def _place(fidelity: Fidelity) -> str:
    of = f" of {fidelity.backbone}" if fidelity.backbone else ""
    return f"{fidelity.correlation:z.2f} at epoch {fidelity.epoch} over {fidelity.trials} trials{of}"
