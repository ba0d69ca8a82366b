"""The page of the images that are answered wrongly."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from analysis.figures.confusion import confusion_figure
from analysis.mistakes.find import Answered, Mistakes
from analysis.pages.confusion import ALL, taken_for
from analysis.pages.gathering import Gathering, gathering
from analysis.pages.page import inline, render, thumbnail
from analysis.pages.tables import percent
from trainables.data.images import Images

SHOWN = 200  # images of a kind, at most
CLASSES = 60  # of a confusion matrix that can be told apart on a page


@dataclass(frozen=True)
class Image:
    """One image and what is answered for it."""

    kind: str  # error or disagreement
    rank: int
    name: str
    short: str  # without the folders
    source: str  # a data URI; empty where it cannot be opened
    true: str
    answers: tuple[tuple[str, bool], ...]  # in words, and whether each is right
    note: str

    @property
    def pair(self) -> str:
        """What is taken for what: the same for errors of one kind."""
        return f"{self.true} → {self.answers[0][0]}"


def images_of(found: Mistakes, images: Images, progress: Callable[[int], None] = lambda images: None) -> list[Image]:
    """The most confident errors, then the images on which members disagree most, each with its picture.

    Args:
        progress: called with 1 for each image.
    """

    def image(kind: str, rank: int, name: str, true: str, answers: tuple[tuple[str, bool], ...], note: str) -> Image:
        progress(1)
        return Image(kind, rank, name, PurePosixPath(name).name, thumbnail(images.root / name), true, answers, note)

    errors = [
        image("error", rank, one.image, one.true, ((one.predicted, False),), f"confidence {percent(one.probability)}")
        for rank, one in enumerate(found.errors[:SHOWN], start=1)
    ]
    apart = [
        image(
            "disagreement",
            rank,
            one.image,
            one.true,
            tuple((f"{votes} x {name}", name == one.true) for name, votes in one.tally),
            f"divergence {one.divergence:.2f}",
        )
        for rank, one in enumerate(found.disagreements[:SHOWN], start=1)
    ]
    return [*errors, *apart]


def page(title: str, answered: Answered, found: Mistakes, images: list[Image]) -> bytes:
    """The page, whole: no file and no network beside it."""
    side = {"holdout": "test"}.get(answered.side, answered.side)
    several = len(answered.scheme.names) > 1
    shown = [(one, one.name or ALL) for one in found.confusions if one.name or several]
    rows = [Gathering(one.name, one.images, one.groups, one.errors, one.rate, one.elsewhere, one.interval) for one in found.subgroups]
    return render(
        "mistakes/page.html.jinja",
        title=title,
        side=side,
        count=len(answered.sample.ids),
        errors=len(found.errors),
        disagreements=len(found.disagreements),
        members=len(answered.members),
        images=images,
        tables=[table for one, name in shown if (table := taken_for(name, one.scheme, one.counts)).rows],
        gathering=gathering(rows),
        matrices=[
            (name, inline(figure, f"matrix-{place}"), figure.get_figwidth())
            for place, (one, name) in enumerate(shown)
            if one.scheme.classes <= CLASSES
            for figure in [confusion_figure(one.counts, one.scheme)]
        ],
    )
