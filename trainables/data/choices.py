"""Tags as choices: whether an image has a tag is a choice of two classes, and what is done with classes can be done with it."""

from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from trainables.data.targets import Classes, Scheme
from trainables.metrics.metric import TAGGED


class Labelled(Protocol):
    """Records of labelled images."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def tags(self) -> np.ndarray | None: ...

    @property
    def scheme(self) -> Scheme: ...


AnyLabelled = TypeVar("AnyLabelled", bound=Labelled)


def tag_choices(scheme: Scheme) -> tuple[Classes, ...]:
    """For each tag a target of two classes: the tag, and its absence."""
    return tuple(Classes(tag, (tag, f"no {tag}")) for target in scheme.of_kind("tags").targets for tag in target.values)


def as_choices(images: AnyLabelled) -> AnyLabelled:
    """The images with their Classes and then their tags, each of these a target of two classes; labels are (n, Classes + tags)."""
    if images.tags is None:
        return images
    scheme = Scheme((*images.scheme.of_kind("classes").targets, *tag_choices(images.scheme)))
    return replace(images, labels=np.hstack([images.labels, np.where(images.tags, 0, 1)]), scheme=scheme, tags=None)


def with_choices(images: AnyLabelled, labels: np.ndarray) -> AnyLabelled:
    """The images with the labels (n, Classes + tags) that `as_choices` would have found: its inverse."""
    if images.tags is None:
        return replace(images, labels=labels)
    count = images.labels.shape[1]
    return replace(images, labels=labels[:, :count], tags=labels[:, count:] == 0)


def choice(answer: np.ndarray, place: int) -> np.ndarray:
    """Probabilities (..., 2) of the tag in this place and of its absence, from those of all tags (..., tags).

    A tag that is exactly on the threshold is there: the first of two equal classes is the most probable one.
    """
    there = answer[..., place]
    return np.stack([there, 2 * TAGGED - there], axis=-1)
