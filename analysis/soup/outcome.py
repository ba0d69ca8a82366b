"""The soups of a group of similar trials, and what each is worth beside the best of these alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

from analysis.evaluation.uncertainty import Gain, paired_gain
from analysis.members.soup.average import RECIPES, MakeSoup, Soup
from analysis.members.trials import Sample, Trial
from trainables.metrics import Metric
from trainables.seeding import generator


@dataclass(frozen=True, eq=False)
class Outcome:
    """The soups of a group of similar trials."""

    metric: Metric
    trials: tuple[Trial, ...]  # best first
    single: Soup  # of the best one alone
    soups: Mapping[str, Soup]  # by recipe
    gains: Mapping[str, Gain]
    seconds: float

    @property
    def kept(self) -> str:
        """The recipe whose soup becomes a trial: the better one, if it has several ingredients and is not below the best trial; or ''."""
        scores = {name: self.metric.sign * soup.score for name, soup in self.soups.items() if len(soup.ingredients) > 1}
        worth = [name for name, score in scores.items() if score >= self.metric.sign * self.single.score]
        return max(worth, key=scores.__getitem__, default="")


def make_soups(group: tuple[Trial, ...], make_soup: MakeSoup, sample: Sample, metric: Metric, *, top: int, seed: int) -> Outcome:
    """A soup by each recipe.

    Args:
        seed: of the bootstrap.
    """
    start = perf_counter()
    single = make_soup(group[:1])
    soups = {name: recipe(group, single, make_soup, top, metric) for name, recipe in RECIPES.items()}
    gains = {name: gain(soup, single, sample, metric, seed) for name, soup in soups.items()}
    return Outcome(metric, group, single, soups, gains, perf_counter() - start)


def gain(soup: Soup, single: Soup, sample: Sample, metric: Metric, seed: int) -> Gain:
    """The soup's gain over one trial; the seed draws the groups."""
    scheme = single.ingredients[0].task.scheme
    ours, its = (sample.evidence(metric, scheme, one.answer) for one in (soup, single))
    return paired_gain(ours, its, generator(seed, "bootstrap"))
