"""Groups that no split may separate although their names differ: an id in two folders, one image under two names.

What separated them would be trained on with one and scored with the other.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from trainables.data.images import Images, LeftOut


def tie_copies(images: Images, digests: Mapping[str, str]) -> Images:
    """The images with their groups tied where they share an image of the same content; the copies are named in `left_out`.

    Args:
        digests: of every image's file.
    """
    same = defaultdict(list)
    for index, name in enumerate(images.ids):
        same[digests[name]].append(index)
    copies = [indices for indices in same.values() if len(np.unique(images.groups[indices])) > 1]
    if not copies:
        return images
    ties = tuple(tuple(np.unique(images.groups[indices]).tolist()) for indices in copies)
    words = "images of which one file is in several groups"
    words += "; no split separates such groups" if images.given is None else ""
    found = LeftOut(words, tuple(" = ".join(images.ids[index] for index in indices) for indices in copies))
    differ = [indices for indices in copies if _differ(images, indices)]
    names = images.described() if differ else []
    twofold = LeftOut(
        "images of which one file has several labels; remove the wrong ones",
        tuple(" = ".join(f"{images.ids[index]} ({names[index]})" for index in indices) for indices in differ),
    )
    return replace(images, ties=(*images.ties, *ties), left_out=(*images.left_out, *filter(lambda item: item.names, (found, twofold))))


def _differ(images: Images, indices: list[int]) -> bool:
    truths = [images.truth(images.scheme.of_kind(kind))[indices] for kind in images.scheme.kinds]
    return any(len(np.unique(truth, axis=0)) > 1 for truth in truths)


def first_of_tied(groups: np.ndarray, ties: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """For each of the ascending groups (n,) the place of the first one that it is tied to, directly or by others; its own without ties."""
    above: dict[int, int] = {}

    def top(group: int) -> int:
        while group in above:
            group = above[group]
        return group

    for tie in ties:
        first, *others = sorted({top(group) for group in tie})
        above |= dict.fromkeys(others, first)
    tops = np.array([top(group) for group in groups.tolist()])
    _, first, place = np.unique(tops, return_index=True, return_inverse=True)
    return first[place]


def merge_tied(images: Images) -> Images:
    """The images with tied groups as one, under the number of the first."""
    if not images.ties:
        return images
    groups, place = np.unique(images.groups, return_inverse=True)
    return replace(images, groups=groups[first_of_tied(groups, images.ties)][place], ties=())
