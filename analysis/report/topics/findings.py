"""What the other commands found, where they were called, and what everything was made with."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from analysis.evaluation.look.facts import FILE, read_facts
from analysis.evaluation.search.reading import Search, SearchedTrial, lenient
from analysis.evaluation.search.space import words
from analysis.figures.search import reliability_figure
from analysis.pages.errors import COLUMNS, LARGEST, TITLE, Subgroup, gathering
from analysis.pages.look import finding_parts, lead, target_parts
from analysis.pages.page import PAGE
from analysis.pages.parts import Listing, Part, Picture, Words
from analysis.pages.tables import TOO_SMALL, Table, as_percent, percent, percent_range, table_of
from analysis.report.answer import Frame, Scores, read_leaks, read_tables, read_wrong, validation_calibration
from analysis.report.cells import capital, frame_table
from analysis.report.topics.search import Run
from trainables.commands import typed
from trainables.data.targets import Kind
from trainables.record import name_of, searched_run
from trainables.storage import Folder

MOST = 20  # rows of another command's table
GATHERING = 8  # rows that say where errors gather


def calibration_parts(search: Search, scores: Scores | None) -> Iterator[Part]:
    if scores is not None and scores.calibration is not None:
        of, found = f"{scores.chosen.called} on the test images", scores.calibration
    elif known := validation_calibration(search.folder):
        of, found = f"trial {known[0]} on validation", known[1]
    else:
        words = "This takes a trial with a prediction and weights, which there is none of yet:"
        yield Words(words, "missing", typed(f"tuner.run --resume {search.called}"))
        return
    apart = f"{100 * found.expected:.1f} percentage points"
    yield Words(f"{capital(of)}: confidence and accuracy differ by {apart} on average (expected calibration error).")
    caption = "Accuracy of the images by confidence; larger points are more images."
    yield Picture("reliability", "Accuracy by confidence", caption, reliability_figure(found))


def mistakes_parts(search: Search, damaged: list[str]) -> Iterator[Part]:
    folder = search.folder / "mistakes"
    wrong = read_wrong(search.folder, damaged)
    titles = {f"mistakes/{name}.csv": name for name in ("confident", "groups")}
    frames = {frame.title: frame.table for frame in read_tables(search.folder, titles, damaged)}
    if wrong is None and not frames:
        words = "Which images it gets wrong, and where errors gather, says"
        yield Words(words, "missing", typed(f"analysis.mistakes --run {search.called}"))
        return
    if wrong is not None:
        yield Words(f"{wrong.words} The images, {LARGEST[wrong.kind]} first:" if _page(folder) else wrong.words, link=_page(folder))
    kind = wrong.kind if wrong else "classes"
    if "groups" in frames:
        yield _where_errors_gather(frames["groups"], kind)
    if "confident" in frames:
        title = f"{capital(LARGEST[kind])}: {len(frames['confident']):,}"
        yield frame_table(Frame(title, frames["confident"]), most=MOST, folded=True)


def _page(folder: Folder) -> str:
    """The address of a command's page from the report; empty where there is none."""
    return f"../{folder.name}/{PAGE}" if (folder / PAGE).is_file() else ""


def _where_errors_gather(found: pd.DataFrame, kind: Kind) -> Part:
    if not {*COLUMNS} <= set(found.columns):
        return frame_table(Frame(TITLE, found), most=GATHERING)
    table = gathering(map(Subgroup.of, found.to_dict("records")), kind, most=GATHERING)
    return table if table.rows else Words(f"{TITLE}: {TOO_SMALL}.")


def shift_parts(search: Search, scores: Scores | None) -> Iterator[Part]:
    if scores is None or not scores.shifts:
        yield Words(
            "Not known. Where the data has images to answer for (eval/info.csv), the class priors among them and among those that trained "
            "are compared by",
            "missing",
            typed(f"analysis.ensemble --run {search.called}"),
        )
        return
    named = {target.name: target.values for target in search.card.scheme.targets}
    rows = []
    for shift in scores.shifts:
        name, trained = str(shift.get("attribute", "")), shift.get("trained", ())
        # Earlier versions estimated by BBSE.
        estimate, limits = ("em", "em_intervals") if "em_intervals" in shift else ("bbse", "intervals")
        for place, share in enumerate(trained):
            value = named.get(name, ())[place] if place < len(named.get(name, ())) else str(place)
            own = [_at(shift, key, place) for key in ("predicted", estimate)]
            between = _at(shift, limits, place)
            rows.append((name, value, f"{share:.1%}", *(as_percent(one) for one in own), percent_range(between)))
    head = ("target", "class", "when training", "answered", "estimated", "95 % CI")
    differ, alike = ([str(one.get("attribute")) for one in scores.shifts if _shifted(one) is shifted] for shifted in (True, False))
    if differ:
        words = f"Significant prior shift: {', '.join(differ)}. ensemble/corrected.csv answers with that in mind."
        yield Words(words, "warning")
    if alike:
        yield Words(f"No significant prior shift: {', '.join(alike)}. What is estimated there may be chance.")
    yield table_of("Class priors among the images to answer for", head, rows, (2, 3, 4, 5))


def _shifted(shift: dict[str, Any]) -> bool:
    return bool(shift.get("significant", shift.get("proven")))  # the word of earlier versions


def _at(shift: dict[str, Any], key: str, place: int) -> Any:
    values = shift.get(key) or ()
    return values[place] if place < len(values) else None


def look_parts(search: Search, damaged: list[str]) -> Iterator[Part]:
    facts = lenient(search.folder, FILE, read_facts, None, damaged)
    if facts is None:
        words = "Which images there are, class by class, and what looks odd about them and their labels, says"
        yield Words(words, "missing", typed(f"tuner.look --run {search.called}"))
        return
    yield Words(lead(facts))
    yield from finding_parts(facts)
    yield from target_parts(facts)
    yield Words("Examples of each class, colours, sizes, copies:", link=_page(search.folder / "look"))


def suspects_parts(search: Search, damaged: list[str]) -> Iterator[Part]:
    folder = search.folder / "suspects"
    frames = read_tables(search.folder, {"suspects/suspects.csv": "suspects"}, damaged)
    if not frames:
        yield Words("Which labels are probably wrong says", "missing", typed(f"analysis.suspects --run {search.called}"))
        return
    table = frames[0].table
    # A row is an image; an issue may be of several.
    issues = [(own.iloc[0], len(own)) for _, own in table.groupby("rank")] if "rank" in table else []
    words = f"Label issues: {len(issues):,}."
    yield Words(f"{words} The images, and the page that writes down what you decide:" if _page(folder) else words, link=_page(folder))
    rows = [
        (
            str(one.get("attribute", "")),
            str(one.get("given", "")),
            str(one.get("suggested", "")),
            percent(float(one.get("score", 0.0))),
            str(one.get("photo", "")) if images == 1 else f"{one.get('person', '')}: {images} images",
        )
        for one, images in issues
    ]
    if rows:
        yield table_of("Most probable label issues", ("target", "given", "suggested", "probably wrong", "image"), rows, (3,), most=MOST)


def leaks_parts(search: Search, damaged: list[str]) -> Iterator[Part]:
    found = read_leaks(search.folder, damaged)
    if not found:
        words = "Whether some score is optimistic, because what trains has seen the images that it is scored on, says"
        yield Words(words, "missing", typed(f"analysis.leaks --run {search.called}"))
        return
    for one in found:
        yield Words(one.words, "warning" if one.warning else "plain")
    for frame in read_tables(search.folder, {"leaks/pairs.csv": "pairs"}, damaged):
        if pairs := len(frame.table):
            pictures = "../leaks/pairs.png"
            yield Words(f"Pairs of images of two groups that look the same: {pairs:,}. Side by side:", link=pictures)
            yield frame_table(Frame("Images of two groups that look the same", frame.table), most=MOST, folded=True)


def settings_parts(runs: Sequence[Run], scores: Scores | None, damaged: Sequence[str]) -> Iterator[Part]:
    if damaged:
        yield Words(f"{len(damaged)} damaged files are left out: {'; '.join(damaged)}", "warning")
    for run in runs:
        card = run.search.card
        rows = [
            ("run", card.name),
            ("command", card.command),
            ("space", card.space),
            ("images", card.data),
            ("split", card.split),
            ("seed", str(card.seed)),
            ("epochs", str(card.epochs)),
            ("predicts", ", ".join(card.predicted.names)),
            *([("refit of", name_of(searched_run(run.search.folder, card)))] if card.refit_of else []),
            *((name, ", ".join(found)) for name, found in _versions(run.search.trials).items()),
        ]
        yield Table(f"Run {run.search.name}", ("what", "value"), tuple(rows))
        if run.search.space_text:
            yield Listing(f"The space of {run.search.name} (space.yaml)", run.search.space_text)
    if scores is not None and scores.settings:
        rows = tuple((name, words(value)) for name, value in scores.settings.items())
        yield Table("The ensemble was asked for", ("what", "value"), rows)


def _versions(trials: Sequence[SearchedTrial]) -> dict[str, list[str]]:
    """Every version of each library that some trial was trained with."""
    found: dict[str, list[str]] = {}
    for trial in trials:
        for name, version in trial.versions:
            if version not in found.setdefault(name, []):
                found[name].append(version)
    return found
