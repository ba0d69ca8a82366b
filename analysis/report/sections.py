"""The report, topic by topic: from the records to words, tables and pictures."""

import base64
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.ensemble.figure import confusion_figure
from analysis.report.answer import (
    Answer,
    Frame,
    Scores,
    Sheet,
    cell,
    read_scores,
    read_sheets,
    read_tables,
    validation_calibration,
)
from analysis.report.figures import (
    HIGHLIGHTED,
    MOST,
    answers_figure,
    choices_figure,
    costs_figure,
    curves_figure,
    fidelity_figure,
    history_figure,
    importance_figure,
    numbers_figure,
    parallel_figure,
    reliability_figure,
)
from analysis.report.history import costs, history, parallel_lines, ranked, rungs
from analysis.report.importance import FEWEST, importances
from analysis.report.parts import Heading, Listing, Part, Photo, Picture, Section, Table, Words
from analysis.report.search import STATES, Search, SearchedTrial
from analysis.report.space import Dimension, words
from analysis.report.values import setting_scores

AXES = 12  # of the parallel coordinates
ROWS = 40  # of a table
MISLEADING = 0.3  # rank correlation below which early scores say little; the search warns there
MISTAKE_TABLES = {
    "groups.csv": "Where mistakes gather",
    "confident.csv": "Most confident mistakes",
    "disagreement.csv": "Photos on which the members disagree most",
}


@dataclass(frozen=True)
class Run:
    """A search, with what its pictures' files are called by."""

    search: Search
    suffix: str  # of the names of its pictures; empty where there is one run only


Topic = Callable[[Run], Iterator[Part]]


def report(searches: Sequence[Search]) -> list[Section]:
    """All sections. The answer and what was found out about it are of the first run."""
    runs = [Run(search, suffix) for search, suffix in zip(searches, _suffixes([search.name for search in searches]), strict=True)]
    damaged = [f"{search.name}: {item}" for search in searches for item in search.damaged]
    first, found = searches[0], []
    scores = read_scores(first.folder, found)
    sections = [Section("answer", "The answer", tuple(_answer(first, scores, found)))]
    sections += [Section(name, title, tuple(_each(runs, topic))) for name, (title, topic) in TOPICS.items()]
    sections.append(Section("calibration", "Is it as sure as it is right?", tuple(_calibration(first, scores))))
    sections.append(Section("mistakes", "Where it is wrong", tuple(_mistakes(first, found))))
    sections.append(Section("shift", "Are the new photos like those it learned from?", tuple(_shift(first, scores))))
    sections.append(Section("suspects", "Labels that may be wrong", tuple(_suspects(first, found))))
    damaged += [f"{first.name}: {item}" for item in found]
    sections.append(Section("settings", "Settings and versions", tuple(_settings(runs, scores, damaged))))
    return sections


def _suffixes(names: Sequence[str]) -> list[str]:
    """What tells the pictures of several runs apart, in names of files and ids of a page; nothing for one run."""
    if len(names) == 1:
        return [""]
    plain = [re.sub(r"[^\w.-]", "_", name) for name in names]
    return [f"-{name}" if plain.count(name) == 1 else f"-{name}-{place}" for place, name in enumerate(plain, start=1)]


def _each(runs: Sequence[Run], topic: Topic) -> Iterator[Part]:
    for run in runs:
        if run.suffix:
            yield Heading(run.search.name)
        yield from topic(run)


# The answer


def _answer(search: Search, scores: Scores | None, damaged: list[str]) -> Iterator[Part]:
    if scores is None:
        best = ranked(search.trials)[0]
        yield Words(f"The best trial so far is {search.name}/{best.number}: macro F1 {best.score:.3f} on validation.", "lead")
        yield Words(
            "That score chose it, so it flatters. Which trials should answer together, and what they are worth on people whom nothing has "
            "seen, says",
            "missing",
            f"python -m analysis.ensemble --run {search.called}",
        )
        return
    yield Words(lead_words(scores), "lead")
    yield Words(gain_words(scores))
    yield Words(
        "Macro F1 runs from 0 to 1 and is the mean over all classes of how well each is recognised: a rare class counts as much as a "
        "common one."
    )
    yield from map(Words, caveats(scores))
    yield Picture(
        "answers",
        "Macro F1 of each answer with its interval",
        f"Hold-out: {_photos(scores)}.",
        answers_figure(scores.answers, scores.chosen.name),
    )
    yield _answers_table(scores)
    if scores.members:
        yield _members_table(scores)
    yield from _classes(search, scores, damaged)


def lead_words(scores: Scores) -> str:
    """The answer and its score in one sentence."""
    chosen = scores.chosen
    between = f" (95 % interval {chosen.interval[0]:.3f} to {chosen.interval[1]:.3f})" if chosen.interval else ""
    right = f", {chosen.accuracy:.1%} of the photos right" if chosen.accuracy is not None else ""
    unseen = f"on {_photos(scores)} that neither training nor any choice has seen"
    return f"{_capital(chosen.name)}: macro F1 {chosen.macro_f1:.3f}{between}{right}, {unseen}."


def gain_words(scores: Scores) -> str:
    """What the answer gains over the best single member, and whether that can be told from none."""
    chosen = scores.chosen
    if chosen.is_single:
        votes = [answer for answer in scores.answers if answer is not chosen and answer.gain is not None]
        clear = [answer.name for answer in votes if answer.distinguishable and answer.gain > 0]
        if not votes:
            return "It is the best single member."
        there = (
            f"{', '.join(clear)} would have gained more than chance on the hold-out" if clear else "no vote gains more than chance over it"
        )
        return f"It is the best single member: {there}."
    if chosen.gain is None or chosen.gain_interval is None:
        return "What it gains over the best single member is not known."
    low, high = chosen.gain_interval
    words = f"Against the best single member: {chosen.gain:+.3f} macro F1 (95 % interval {low:+.3f} to {high:+.3f})"
    return f"{words}, {'more than chance' if chosen.distinguishable else 'which cannot be told from no gain'}."


def caveats(scores: Scores) -> Iterator[str]:
    """What to know of how the answer was chosen."""
    if scores.supported is False:
        yield (
            "On validation, judged on people that nothing was fitted on, the vote's gain over the best single member could not be told "
            "from none."
        )
    if scores.steps:
        yield f"Taken with it: {'; '.join(scores.steps)}."
    if scores.optimism is not None and scores.pool > 1:
        yield (
            f"The best of {scores.pool} members was picked by its score on validation, which is expected to be {scores.optimism:.3f} too "
            "high for that reason. The hold-out picked nothing."
        )


def _photos(scores: Scores) -> str:
    return f"{scores.photos:,} photos of {scores.people:,} people"


def _answers_table(scores: Scores) -> Table:
    names = tuple(scores.chosen.attribute_f1)
    head = ("answer", "macro F1", "95 % interval", "gain over the best single", "accuracy", *(f"{name} F1" for name in names))
    rows = []
    for answer in scores.answers:
        own = (_number(answer.attribute_f1.get(name)) for name in names)
        rows.append((answer.name, _number(answer.macro_f1), _between(answer.interval), _gain(answer), _number(answer.accuracy), *own))
    return Table("Every answer on the hold-out", head, tuple(rows), tuple(range(1, len(head))))


def _gain(answer: Answer) -> str:
    if answer.gain is None or answer.gain_interval is None:
        return ""
    return f"{answer.gain:+.3f} ({answer.gain_interval[0]:+.3f} to {answer.gain_interval[1]:+.3f})"


def _members_table(scores: Scores) -> Table:
    rows = [
        (member.name, _number(member.weight), _number(member.valid), _number(member.holdout), "yes" if member.like_the_best else "")
        for member in scores.members
    ]
    head = ("member", "weight", "macro F1 on validation", "macro F1 on the hold-out", "on validation not to be told from the best")
    return _table("Members, best on validation first", head, rows, (1, 2, 3))


def _classes(search: Search, scores: Scores, damaged: list[str]) -> Iterator[Part]:
    folder = search.folder / "ensemble"
    for frame in read_tables(folder, {"per_class.csv": "Each class on the hold-out"}, damaged):
        yield _frame_table(frame, most=200)
    scheme = search.card.scheme.part(scores.attributes or search.card.scheme.names)
    if scores.confusion is not None and scores.confusion.shape == (scheme.classes, scheme.classes):
        figure = confusion_figure(
            scores.confusion, scheme, "What was taken for what", f"{scores.chosen.name} on the hold-out, {_photos(scores)}"
        )
        yield Picture("confusion", "Confusion matrix of the hold-out", "Rows are true classes, columns the answer.", figure)
        return
    for sheet in read_sheets(folder, ["confusion.png"], damaged):
        yield _photo(sheet, "What was taken for what: rows are true classes, columns the answer.")


# The search


def _history(run: Run) -> Iterator[Part]:
    steps = history(run.search.trials)
    states = [trial.state for trial in run.search.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    yield Words(f"{len(steps):,} trials: {counts}. {steps[-1].hours:.2f} hours of training, all trials added.")
    thin = f" Of an outcome with more than {MOST} trials, {MOST} are drawn." if max(map(states.count, STATES)) > MOST else ""
    yield Picture(
        f"history{run.suffix}",
        "Score of each trial by order and by hours of training, with the best so far",
        "Each point is a trial's best macro F1 on validation; the line is the best so far. Trials that were stopped count with what they "
        f"reached.{thin}",
        history_figure(steps),
    )
    yield _trials_table(run.search)


def _trials_table(search: Search) -> Table:
    paths = [dimension.path for dimension in search.space]
    best_first = ranked(search.trials)
    rest = [trial for trial in search.trials if trial.score is None]
    rows = [
        (
            str(trial.number),
            trial.state,
            _number(trial.score),
            str(len(trial.curve)),
            f"{trial.seconds / 60:.1f}",
            ", ".join(f"{path} {words(trial.values[path])}" for path in paths if path in trial.values),
            trial.reason,
        )
        for trial in (*best_first, *rest)
    ]
    head = ("trial", "outcome", "macro F1", "epochs", "minutes", "drawn values", "why it ended")
    return _table("All trials, best first", head, rows, (0, 2, 3, 4), folded=True)


def _curves(run: Run) -> Iterator[Part]:
    scored = run.search.scored
    shown = f" The best {HIGHLIGHTED} stand out." if len(scored) > HIGHLIGHTED else ""
    if len(scored) > MOST + HIGHLIGHTED:
        shown += f" Of the other {len(scored) - HIGHLIGHTED:,} curves, {MOST} are drawn, evenly spread from the best to the worst."
    yield Picture(
        f"curves{run.suffix}",
        "Macro F1 on validation by epoch, a line a trial",
        f"{len(scored):,} trials.{shown} The thick line is the best one; marks show how each ended.",
        curves_figure(scored, rungs(scored)),
    )


def _settings_together(run: Run) -> Iterator[Part]:
    axes, rest = _axes(run.search)
    if not axes:
        yield _no_space(run.search)
        return
    scored = run.search.scored
    more = f" {rest} more settings are left out: those that fewer trials drew, or that decided less." if rest else ""
    if len(scored) > MOST:
        more += f" {MOST} of {len(scored):,} trials are drawn, evenly spread from the best to the worst."
    yield Picture(
        f"parallel{run.suffix}",
        "Each trial as a line through its settings to its score",
        f"A line a trial, coloured by its score; the last axis is macro F1 on validation. n = {len(scored):,}.{more}",
        parallel_figure(parallel_lines(scored, axes), axes),
    )


def _axes(search: Search) -> tuple[list[Dimension], int]:
    """The dimensions that most trials drew and that decided most, in the space's order, and how many are left out."""
    drew = {one.path: sum(one.path in trial.values for trial in search.scored) for one in search.space}
    there = [one for one in search.space if drew[one.path]]
    shares = {path: share for branch in importances(search.scored, search.space)[:1] for path, share in branch.shares or ()}
    kept = sorted(there, key=lambda one: (-drew[one.path], -shares.get(one.path, 0.0)))[:AXES]
    return [one for one in there if one in kept], len(there) - len(kept)


def _importance(run: Run) -> Iterator[Part]:
    branches = importances(run.search.scored, run.search.space)
    if not branches:
        yield _no_space(run.search)
        return
    told = [branch for branch in branches if branch.shares]
    if told:
        yield Picture(
            f"importance{run.suffix}",
            "Share of the importance of each setting, by branch of the space",
            "How much each setting decided whether a trial was among the best (PED-ANOVA), within the trials of each branch; the branch's "
            "own settings are dark. With few trials such shares are rough: n is their number.",
            importance_figure(told),
        )
    few = [f"{branch.when} (n = {branch.trials})" for branch in branches if branch.shares is None]
    if few:
        yield Words(f"Too few trials to tell, fewer than {FEWEST}: {'; '.join(few)}.")
    alike = [branch.when for branch in branches if branch.shares == ()]
    if alike:
        yield Words(f"Nothing varied among the trials of: {'; '.join(alike)}.")


def _values(run: Run) -> Iterator[Part]:
    found = setting_scores(ranked(run.search.trials), run.search.space)
    if not found:
        yield _no_space(run.search)
        return
    choices = [setting for setting in found if setting.choices]
    numbers = [setting for setting in found if setting.points]
    caption = "A point a trial. Settings were drawn together, not one at a time, and trials that were stopped count with what they reached."
    if choices:
        yield Picture(f"choices{run.suffix}", "Scores by choice, for each searched choice", caption, choices_figure(choices))
        rows = [
            (setting.path, choice.value, str(len(choice.scores)), _number(choice.median), _between(choice.interval), _number(choice.best))
            for setting in choices
            for choice in setting.choices
        ]
        head = ("setting", "value", "trials", "median macro F1", "95 % interval of the median", "best")
        yield _table("What each choice gave", head, rows, (2, 3, 4, 5), most=200, folded=True)
    if numbers:
        caption = "A point a trial; the best trial is dark."
        yield Picture(f"numbers{run.suffix}", "Scores by value, for each searched number", caption, numbers_figure(numbers))


def _fidelity(run: Run) -> Iterator[Part]:
    found = run.search.fidelity
    if not found:
        if rungs(run.search.trials):
            yield Words(
                "The search writes fidelity.json, which is not there:", "missing", f"python -m tuner.run --resume {run.search.called}"
            )
        else:
            yield Words("No trial was judged by early epochs.", "missing")
        return
    yield Picture(
        f"fidelity{run.suffix}",
        "Rank correlation of early with final scores",
        "Where early scores rank the trials as the final ones do (1), stopping early loses nothing; near 0 it is a draw of lots. Only "
        "trials that ran to the end can tell.",
        fidelity_figure(found, MISLEADING),
    )


def _costs(run: Run) -> Iterator[Part]:
    search = run.search
    found = costs(search.trials, search.card.gpus_per_trial)
    yield Picture(
        f"cost{run.suffix}",
        "Hours of training by outcome",
        "Training and validation; loading photos and models is not in it.",
        costs_figure(found),
    )
    rows = [
        (cost.state, f"{cost.trials:,}", f"{cost.epochs:,}", f"{cost.hours:.2f}", f"{cost.gpu_hours:.2f}", _number(cost.best))
        for cost in found
    ]
    rows.append(
        (
            "together",
            f"{sum(cost.trials for cost in found):,}",
            f"{sum(cost.epochs for cost in found):,}",
            f"{sum(cost.hours for cost in found):.2f}",
            f"{sum(cost.gpu_hours for cost in found):.2f}",
            _number(max((cost.best for cost in found if cost.best is not None), default=None)),
        )
    )
    head = ("outcome", "trials", "epochs", "hours of training", "GPU hours", "best macro F1")
    yield Table("Cost by outcome", head, tuple(rows), (1, 2, 3, 4, 5))
    devices = sorted({trial.device for trial in search.trials if trial.device})
    whole = search.card.gpus_per_trial is None and any(not device.startswith("CPU") for device in devices)
    counted = " Each trial on a GPU counts as if it had all of it." if whole else ""
    yield Words(f"Trained on: {'; '.join(devices) or 'unknown'}.{counted}")


TOPICS: dict[str, tuple[str, Topic]] = {
    "history": ("How the search went", _history),
    "curves": ("Learning curves", _curves),
    "parallel": ("Settings side by side", _settings_together),
    "importance": ("Which settings decided", _importance),
    "values": ("What each value gave", _values),
    "fidelity": ("Could early epochs be trusted?", _fidelity),
    "cost": ("What it cost", _costs),
}


# What the other commands found


def _calibration(search: Search, scores: Scores | None) -> Iterator[Part]:
    if scores is not None and scores.calibration is not None:
        of, found = f"{scores.chosen.name} on the hold-out", scores.calibration
    elif known := validation_calibration(search.folder):
        of, found = f"trial {known[0]} on validation", known[1]
    else:
        words = "This takes a trial with a prediction and weights, which there is none of yet:"
        yield Words(words, "missing", f"python -m tuner.run --resume {search.called}")
        return
    yield Words(
        f"{_capital(of)}: how sure it is and how often it is right differ by {100 * found.expected:.1f} percentage points on average."
    )
    caption = "Photos by how sure the answer was of them; larger points are more photos."
    yield Picture("reliability", "How often answers of each confidence were right", caption, reliability_figure(found))


def _mistakes(search: Search, damaged: list[str]) -> Iterator[Part]:
    folder = search.folder / "mistakes"
    frames = read_tables(folder, MISTAKE_TABLES, damaged)
    titles = {name.removesuffix(".csv"): title for name, title in MISTAKE_TABLES.items()}
    titles |= {f"confusion-{name}": f"What was taken for what: {name}" for name in search.card.scheme.names}
    sheets = read_sheets(folder, [f"{name}.png" for name in titles], damaged)
    if not frames and not sheets:
        words = "Which photos it gets wrong, and where these gather, says"
        yield Words(words, "missing", f"python -m analysis.mistakes --run {search.called}")
        return
    for frame in frames:
        # The sheets show what the tables of photos list.
        yield _frame_table(frame, most=20, folded=frame.title != MISTAKE_TABLES["groups.csv"])
    for sheet in sheets:
        yield _photo(sheet, f"{titles[sheet.name]} (mistakes/{sheet.name}.png)")


def _shift(search: Search, scores: Scores | None) -> Iterator[Part]:
    if scores is None or not scores.shifts:
        yield Words(
            "Not known. Where the data has photos to answer for (eval/info.csv), how often each value is seen among them and among those "
            "it learned from is compared by",
            "missing",
            f"python -m analysis.ensemble --run {search.called}",
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
            rows.append((name, value, f"{share:.1%}", *(_percent(one) for one in own), _between_percent(between)))
    head = ("attribute", "value", "among those it learned from", "answered", "estimated", "95 % interval")
    yield _table("Shares of each value among the photos to answer for", head, rows, (2, 3, 4, 5))


def _at(shift: dict[str, Any], key: str, place: int) -> Any:
    values = shift.get(key) or ()
    return values[place] if place < len(values) else None


def _suspects(search: Search, damaged: list[str]) -> Iterator[Part]:
    frames = read_tables(search.folder / "suspects", {"suspects.csv": "Most suspect labels"}, damaged)
    if not frames:
        yield Words("Which labels may be wrong says", "missing", f"python -m analysis.suspects --run {search.called}")
        return
    yield Words(f"Suspects: {len(frames[0].table):,}. Their photos are shown in suspects/index.html, which writes down what you decide.")
    yield _frame_table(frames[0], most=20)


def _settings(runs: Sequence[Run], scores: Scores | None, damaged: Sequence[str]) -> Iterator[Part]:
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


# Cells


def _no_space(search: Search) -> Words:
    why = (
        "it is a refit, whose configurations another run drew"
        if search.card.refit_of
        else "space.yaml, which says what varied, is not there"
    )
    return Words(f"Nothing varied in {search.name}, or that is not known: {why}.", "missing")


def _table(
    caption: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]], numbers: tuple[int, ...], most: int = ROWS, folded: bool = False
) -> Table:
    """The first rows, without columns in which none of them has anything."""
    shown = [tuple(row) for row in rows[:most]]
    full = [place for place in range(len(head)) if any(row[place] for row in shown)]
    return Table(
        caption,
        tuple(head[place] for place in full),
        tuple(tuple(row[place] for place in full) for row in shown),
        tuple(number for number, place in enumerate(full) if place in numbers),
        max(0, len(rows) - most),
        folded,
    )


def _frame_table(frame: Frame, most: int, folded: bool = False) -> Table:
    table = frame.table
    rows = [tuple(cell(value) for value in row) for row in table.head(most).itertuples(index=False, name=None)]
    numbers = tuple(place for place, name in enumerate(table.columns) if pd.api.types.is_numeric_dtype(table.iloc[:, place]))
    return Table(frame.title, tuple(map(str, table.columns)), tuple(rows), numbers, max(0, len(table) - most), folded)


def _photo(sheet: Sheet, caption: str) -> Photo:
    return Photo(sheet.name, f"data:image/jpeg;base64,{base64.b64encode(sheet.content).decode()}", caption, sheet.size)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _between_percent(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}"
