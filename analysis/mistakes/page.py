"""The page of the images that are answered wrongly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from analysis.figures.confusion import confusion_figure
from analysis.mistakes.find import SHOWN, Answered, Mistakes, tag_errors, worst_first
from analysis.pages.confusion import ALL, taken_for
from analysis.pages.errors import APART, LARGEST, gathering, headline, size_words, votes_words
from analysis.pages.heatmaps import Heat
from analysis.pages.page import inline, render, thumbnail
from analysis.pages.tables import Table, as_percent, table_of
from trainables.data.images import Images

TAG_HEAD = ("tag", "images", "missed", "of them", "wrongly given", "of the others")
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
    heats: tuple[Heat, ...] = ()

    @property
    def pair(self) -> str:
        """What is taken for what: the same for errors of one kind."""
        return f"{self.true} → {self.answers[0][0]}"


def images_of(
    found: Mistakes,
    images: Images,
    heats: Callable[[str, str], tuple[Heat, ...]] = lambda image, about: (),
    progress: Callable[[int], None] = lambda images: None,
) -> list[Image]:
    """The most confident errors, then the images on which members disagree most, each with its picture.

    Args:
        heats: the heat maps of an image, of its id and what is true of it.
        progress: called with 1 for each image.
    """

    def image(kind: str, rank: int, name: str, true: str, answers: tuple[tuple[str, bool], ...], note: str) -> Image:
        progress(1)
        return Image(kind, rank, name, PurePosixPath(name).name, thumbnail(images.root / name), true, answers, note, heats(name, true))

    errors = [
        image("error", rank, one.image, one.true, ((one.predicted, False),), size_words(found.kind, one.size))
        for rank, one in enumerate(found.errors[:SHOWN], start=1)
    ]
    apart = [
        image(
            "disagreement",
            rank,
            one.image,
            one.true,
            tuple((votes_words(found.kind, name, votes), name == one.true) for name, votes in one.tally),
            f"{APART[found.kind]} {one.divergence:.3g}",
        )
        for rank, one in enumerate(found.disagreements[:SHOWN], start=1)
    ]
    return [*errors, *apart]


def page(title: str, answered: Answered, found: Mistakes, images: list[Image], notes: Sequence[str] = ()) -> bytes:
    """The page, whole: no file and no network beside it.

    Args:
        notes: sentences on the heat maps.
    """
    several, of_classes = len(answered.scheme.names) > 1, found.kind == "classes"
    shown = [(one, one.name or ALL) for one in found.confusions if one.name or several] if of_classes else []
    tables = [tags_table(found)] if found.kind == "tags" else [taken_for(name, one.scheme, one.counts) for one, name in shown]
    return render(
        "mistakes/page.html.jinja",
        title=title,
        headline=headline(found.kind, answered.part, answered.images, answered.groups, found.rate),
        largest=LARGEST[found.kind],
        choices=found.kind != "number",
        errors=len(found.errors),
        disagreements=len(found.disagreements),
        apart=len({one.image for one in found.disagreements}),
        members=len(answered.members),
        images=images,
        notes=notes,
        tables=[table for table in tables if table.rows],
        gathering=gathering(found.subgroups, found.kind),
        matrices=[
            (name, inline(figure, f"matrix-{place}"), figure.get_figwidth())
            for place, (one, name) in enumerate(shown)
            if one.scheme.classes <= CLASSES
            for figure in [confusion_figure(one.counts, one.scheme)]
        ],
    )


def tags_table(found: Mistakes) -> Table:
    """For each tag how often it is missed where it is, and given where it is not; the tag with the most errors first."""
    rows = [
        (tag.name, f"{tag.images:,}", f"{tag.missed:,}", as_percent(tag.missed_share), f"{tag.extra:,}", as_percent(tag.extra_share))
        for tag in worst_first(tag_errors(found))
    ]
    return table_of("Errors of each tag", TAG_HEAD, rows, (1, 2, 3, 4, 5), most=len(rows))
