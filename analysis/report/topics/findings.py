"""What the other commands found, where they were called, and what everything was made with."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from analysis.evaluation.search.reading import Search, SearchedTrial
from analysis.evaluation.search.space import words
from analysis.figures.search import reliability_figure
from analysis.report.answer import Scores, read_leaks, read_sheets, read_tables, validation_calibration
from analysis.report.cells import as_percent, capital, frame_table, percent_range, photo_of, table_of
from analysis.report.parts import Listing, Part, Picture, Table, Words
from analysis.report.topics.search import Run
from trainables.commands import typed

MISTAKE_TABLES = {
    "mistakes/groups.csv": "Where mistakes gather",
    "mistakes/confident.csv": "Most confident mistakes",
    "mistakes/disagreement.csv": "Photos on which the members disagree most",
}


def calibration_parts(search: Search, scores: Scores | None) -> Iterator[Part]:
    if scores is not None and scores.calibration is not None:
        of, found = f"{scores.chosen.name} on the hold-out", scores.calibration
    elif known := validation_calibration(search.folder):
        of, found = f"trial {known[0]} on validation", known[1]
    else:
        words = "This takes a trial with a prediction and weights, which there is none of yet:"
        yield Words(words, "missing", typed(f"tuner.run --resume {search.called}"))
        return
    yield Words(
        f"{capital(of)}: how sure it is and how often it is right differ by {100 * found.expected:.1f} percentage points on average."
    )
    caption = "Photos by how sure the answer was of them; larger points are more photos."
    yield Picture("reliability", "How often answers of each confidence were right", caption, reliability_figure(found))


def mistakes_parts(search: Search, damaged: list[str]) -> Iterator[Part]:
    frames = read_tables(search.folder, MISTAKE_TABLES, damaged)
    titles = {PurePosixPath(name).stem: title for name, title in MISTAKE_TABLES.items()}
    titles |= {f"confusion-{name}": f"What was taken for what: {name}" for name in search.card.scheme.names}
    sheets = read_sheets(search.folder, [f"mistakes/{name}.png" for name in titles], damaged)
    if not frames and not sheets:
        words = "Which photos it gets wrong, and where these gather, says"
        yield Words(words, "missing", typed(f"analysis.mistakes --run {search.called}"))
        return
    for frame in frames:
        # The sheets show what the tables of photos list.
        yield frame_table(frame, most=20, folded=frame.title != MISTAKE_TABLES["mistakes/groups.csv"])
    for sheet in sheets:
        yield photo_of(sheet, f"{titles[sheet.name]} (mistakes/{sheet.name}.png)")


def shift_parts(search: Search, scores: Scores | None) -> Iterator[Part]:
    if scores is None or not scores.shifts:
        yield Words(
            "Not known. Where the data has photos to answer for (eval/info.csv), how often each value is seen among them and among those "
            "it learned from is compared by",
            "missing",
            typed(f"analysis.ensemble --run {search.called}"),
        )
        return
    named = {attribute.name: attribute.values for attribute in search.card.scheme.attributes}
    rows = []
    for shift in scores.shifts:
        name, trained = str(shift.get("attribute", "")), shift.get("trained", ())
        for place, share in enumerate(trained):
            value = named.get(name, ())[place] if place < len(named.get(name, ())) else str(place)
            own = [_at(shift, key, place) for key in ("predicted", "bbse")]
            between = _at(shift, "intervals", place)
            rows.append((name, value, f"{share:.1%}", *(as_percent(one) for one in own), percent_range(between)))
    head = ("attribute", "value", "among those it learned from", "answered", "estimated", "95 % interval")
    differ, alike = ([str(one.get("attribute")) for one in scores.shifts if bool(one.get("proven")) is proven] for proven in (True, False))
    if differ:
        words = f"Shares that are proven to differ: {', '.join(differ)}. ensemble/corrected.csv answers with that in mind."
        yield Words(words, "warning")
    if alike:
        yield Words(f"Not proven to differ: {', '.join(alike)}. What is estimated there may be chance; the intervals say how much of it.")
    yield table_of("Shares of each value among the photos to answer for", head, rows, (2, 3, 4, 5))


def _at(shift: dict[str, Any], key: str, place: int) -> Any:
    values = shift.get(key) or ()
    return values[place] if place < len(values) else None


def suspects_parts(search: Search, damaged: list[str]) -> Iterator[Part]:
    frames = read_tables(search.folder, {"suspects/suspects.csv": "Most suspect labels"}, damaged)
    if not frames:
        yield Words("Which labels may be wrong says", "missing", typed(f"analysis.suspects --run {search.called}"))
        return
    yield Words(f"Suspects: {len(frames[0].table):,}. Their photos are shown in suspects/index.html, which writes down what you decide.")
    yield frame_table(frames[0], most=20)


def leaks_parts(search: Search, damaged: list[str]) -> Iterator[Part]:
    found = read_leaks(search.folder, damaged)
    if not found:
        words = "Whether some score flatters, because what trains has seen the photos that it is scored on, says"
        yield Words(words, "missing", typed(f"analysis.leaks --run {search.called}"))
        return
    for one in found:
        yield Words(one.words, "warning" if one.warning else "plain")
    for frame in read_tables(search.folder, {"leaks/pairs.csv": "Photos of two people that look the same"}, damaged):
        if len(frame.table):
            yield frame_table(frame, most=20, folded=True)
    for sheet in read_sheets(search.folder, ["leaks/pairs.png"], damaged):
        yield photo_of(sheet, "Photos of two people that look the same (leaks/pairs.png)")


def settings_parts(runs: Sequence[Run], scores: Scores | None, damaged: Sequence[str]) -> Iterator[Part]:
    if damaged:
        yield Words(f"{len(damaged)} damaged files are left out: {'; '.join(damaged)}", "warning")
    for run in runs:
        card = run.search.card
        rows = [
            ("run", card.name),
            ("command", card.command),
            ("space", card.space),
            ("photos", card.data),
            ("split", card.split),
            ("seed", str(card.seed)),
            ("epochs", str(card.epochs)),
            ("predicts", ", ".join(card.predicts or card.scheme.names)),
            *([("refit of", card.refit_of)] if card.refit_of else []),
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
