"""Who is drawn: quotas of gender and age as the contest had them, and the few people who carry its files' quirks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

GENDERS = ("male", "female")
PLANTED = {  # quirk -> id of the only person who has it
    "junk": "000001",  # beside the folder one named ._<folder>, inside it a file ._mask1.jpg
    "extensions": "000020",  # mask1.jpeg and mask2.png among the .jpg
    "missing": "000645",  # no mask3
    "suffix": "001498-1",  # an id that is no number
    "twice": "003397",  # two people, two folders, one id
    "modes": "003574",  # mask1.png is RGBA, mask2.png has a palette, mask3.png is grey
    "truncated": "004418",  # normal.jpg lacks its last quarter
}

# People of the contest per gender (male, female) and age band (under 30, 30 to 59, 60 and over): 39 % male, 47 % under 30, 7 % old.
CONTEST = np.array([[549, 410, 83], [732, 817, 109]])
OLDEST = 60  # everybody older is recorded as this


@dataclass(frozen=True)
class Person:
    """Who is drawn; `years` may lie above the age that is written down."""

    id: str
    gender: int
    years: int
    seed: tuple[int, ...]

    @property
    def age(self) -> int:
        return min(self.years, OLDEST)

    @property
    def folder(self) -> str:
        return f"{self.id}_{GENDERS[self.gender]}_Asian_{self.age}"


def cast_people(people: int, seed: tuple[int, ...], planted: Mapping[str, str]) -> list[Person]:
    """Who is drawn: quotas per gender and age band instead of luck, years drawn within a band, ids with gaps."""
    rng = np.random.default_rng(seed)
    bands = np.repeat(np.arange(CONTEST.size), band_counts(people))
    pool = rng.permutation(np.arange(1, max(7000, 3 * people)))
    ids = [id for id in (f"{number:06d}" for number in pool) if id not in planted.values()][:people]
    # The twins in id are the first and the last, so they differ in gender and age; the others stand between, in all bands.
    chosen = [planted["twice"], *(id for quirk, id in planted.items() if quirk != "twice"), planted["twice"]] if planted else []
    for place, id in zip(np.linspace(0, people - 1, len(chosen)).astype(int), chosen, strict=True):
        ids[place] = id
    draws = (_young, _middle, _old)
    # Counted from 1, since numpy takes the seed (s, 0) for (s,).
    return [
        Person(id, int(band) // 3, draws[band % 3](rng), (*seed, index))
        for index, (id, band) in enumerate(zip(ids, bands, strict=True), start=1)
    ]


def band_counts(people: int) -> np.ndarray:
    """People per gender and age band, (6,): the contest's shares, but no band below four where there are people enough."""
    wanted = CONTEST.ravel() / CONTEST.sum() * people
    counts = np.full(CONTEST.size, min(4, people // 12))
    for _ in range(people - counts.sum()):
        counts[np.argmax(wanted - counts)] += 1
    return counts


def _young(rng: np.random.Generator) -> int:
    return int(rng.integers(18, 30))


def _middle(rng: np.random.Generator) -> int:
    return int(rng.integers(50, 60) if rng.random() < 0.8 else rng.integers(30, 50))


def _old(rng: np.random.Generator) -> int:
    return int(rng.integers(60, 79))
