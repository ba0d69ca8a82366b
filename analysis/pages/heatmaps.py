"""Heat maps as pages show them: over the image, in colours."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from analysis.evaluation.answering import choose_device
from analysis.members.heatmaps import Asked, Place, Question, heat_maps
from analysis.members.predictions import Source
from analysis.pages.page import THUMBNAIL, jpeg_uri
from trainables.data.decoding import UNREADABLE, read_image
from trainables.data.targets import Scheme
from trainables.data.views import faces_of
from trainables.progress import progress_bar

WORDS = (
    "The coloured copies are heat maps (Grad-CAM): the brighter a part of the image, the more it raises what is predicted or suggested. "
    "They are coarse, and say where the models look, not why."
)


@dataclass(frozen=True)
class Heat:
    """One heat map as a page shows it."""

    name: str  # of the image
    source: str  # a data URI
    words: str  # what it is of


@dataclass(frozen=True)
class Heats:
    """The heat maps of a page, and what is said of them."""

    heats: Mapping[Question, Heat]
    notes: tuple[str, ...] = ()  # why models have none

    def of(self, questions: Sequence[Question]) -> tuple[Heat, ...]:
        """Those that there are, in the order of the questions."""
        return tuple(self.heats[question] for question in questions if question in self.heats)

    @property
    def lines(self) -> tuple[str, ...]:
        """Sentences for the page."""
        if self.heats:
            return (WORDS, *(f"No heat map of {note}." for note in self.notes))
        return tuple(f"There are no heat maps: {note}." for note in self.notes)


NONE = Heats({})


def draw_heats(asked: Sequence[Asked], source: Source, root: Path, scheme: Scheme) -> Heats:
    """The heat maps of images, under a progress bar. Images that cannot be opened have none.

    Args:
        root: ids of images are paths below this folder.
        scheme: of the targets that are asked for.
    """
    if not asked:
        return NONE
    device = choose_device()
    views = list(source.files.files)
    opened = {}
    for name in dict.fromkeys(question.image for one in asked for question in one.questions):
        with suppress(*UNREADABLE):
            image = read_image(root / name)
            opened[name] = thumbnail_of(image), Place(image.size, faces_of(image, views))
    asked = [
        Asked(one.trial, one.file, {question: part for question, part in one.questions.items() if question.image in opened})
        for one in asked
    ]
    with progress_bar("drawing heat maps", sum(len(one.questions) for one in asked)) as progress:
        places = {name: place for name, (_, place) in opened.items()}
        found = heat_maps(asked, source, places, THUMBNAIL, device, progress)
    heats = {
        question: Heat(question.image, jpeg_uri(coloured(opened[question.image][0], one)), question.words(scheme))
        for question, one in found.maps.items()
    }
    return Heats(heats, found.problems)


def thumbnail_of(image: Image.Image, side: int = THUMBNAIL) -> Image.Image:
    """A copy whose longer side is as long as that of a heat map."""
    small = image.copy()
    small.thumbnail((side, side))
    return small


def coloured(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """The image in grey with a heat map (height, width), 0 to 1, over it: dark where that is 0, yellow where it is 1."""
    import cv2
    from pytorch_grad_cam.utils.image import show_cam_on_image

    laid = cv2.resize(heat, image.size)
    # Of the scales one that is even to the eye, and to those who tell red from green badly.
    pixels = np.asarray(image.convert("L").convert("RGB"), dtype=np.float32) / 255
    return Image.fromarray(show_cam_on_image(pixels, laid, use_rgb=True, colormap=cv2.COLORMAP_INFERNO, image_weight=0.5))
