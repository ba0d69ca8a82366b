"""The answer, what it is worth, and what stands in its way."""

from collections.abc import Iterator

from analysis.evaluation.search.history import ranked
from analysis.evaluation.search.reading import Search
from analysis.figures.confusion import confusion_figure
from analysis.figures.search import answers_figure
from analysis.report.answer import Answer, Scores, read_sheets, read_tables
from analysis.report.cells import as_number, capital, frame_table, number_range, photo_of, table_of
from analysis.report.parts import Part, Picture, Table, Words
from trainables.commands import typed


def answer_parts(search: Search, scores: Scores | None, damaged: list[str]) -> Iterator[Part]:
    if scores is None:
        best = ranked(search.trials, search.metric)[0]
        words = f"The best trial so far is {search.name}/{best.number}: {search.metric.title} {best.score:.3f} on validation."
        yield Words(words, "lead")
        yield Words(
            "That score chose it, so it flatters. Which trials should answer together, and what they are worth on people whom nothing has "
            "seen, says",
            "missing",
            typed(f"analysis.ensemble --run {search.called}"),
        )
        return
    metric = scores.metric
    yield Words(lead_words(scores), "lead")
    yield Words(gain_words(scores))
    if metric.explained:
        yield Words(metric.explained)
    yield from map(Words, caveats(scores))
    yield Picture(
        "answers",
        f"{metric.capital} of each answer with its interval",
        f"Hold-out: {_photos(scores)}.",
        answers_figure(scores.answers, scores.chosen.name, metric),
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
    return f"{capital(chosen.name)}: {scores.metric.title} {chosen.score:.3f}{between}{right}, {unseen}."


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
    words = f"Against the best single member: {chosen.gain:+.3f} {scores.metric.title} (95 % interval {low:+.3f} to {high:+.3f})"
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
            f"The best of {scores.pool} members was picked by its score on validation, which is expected to look better than it is by "
            f"{scores.optimism:.3f} for that reason. The hold-out picked nothing."
        )
    if scores.questions > 1:
        yield (
            f"The hold-out has answered {scores.questions} different calls of analysis.ensemble: if this one was kept for its score, the "
            "score is too high."
        )


def _photos(scores: Scores) -> str:
    return f"{scores.photos:,} photos of {scores.people:,} people"


def _answers_table(scores: Scores) -> Table:
    names, title = tuple(scores.chosen.target_scores), scores.metric.title
    head = ("answer", title, "95 % interval", "gain over the best single", "accuracy", *(f"{name}: {title}" for name in names))
    rows = []
    for answer in scores.answers:
        own = (as_number(answer.target_scores.get(name)) for name in names)
        rows.append((answer.name, as_number(answer.score), number_range(answer.interval), _gain(answer), as_number(answer.accuracy), *own))
    return Table("Every answer on the hold-out", head, tuple(rows), tuple(range(1, len(head))))


def _gain(answer: Answer) -> str:
    if answer.gain is None or answer.gain_interval is None:
        return ""
    return f"{answer.gain:+.3f} ({answer.gain_interval[0]:+.3f} to {answer.gain_interval[1]:+.3f})"


def _members_table(scores: Scores) -> Table:
    rows = [
        (member.name, as_number(member.weight), as_number(member.valid), as_number(member.holdout), "yes" if member.like_the_best else "")
        for member in scores.members
    ]
    title = scores.metric.title
    head = ("member", "weight", f"{title} on validation", f"{title} on the hold-out", "on validation not to be told from the best")
    return table_of("Members, best on validation first", head, rows, (1, 2, 3))


def _classes(search: Search, scores: Scores, damaged: list[str]) -> Iterator[Part]:
    for frame in read_tables(search.folder, {"ensemble/per_class.csv": "Each class on the hold-out"}, damaged):
        yield frame_table(frame, most=200)
    scheme = search.card.scheme.part(scores.attributes or search.card.scheme.names)
    if scores.confusion is not None and scores.confusion.shape == (scheme.classes, scheme.classes):
        figure = confusion_figure(
            scores.confusion, scheme, "What was taken for what", f"{scores.chosen.name} on the hold-out, {_photos(scores)}"
        )
        yield Picture("confusion", "Confusion matrix of the hold-out", "Rows are true classes, columns the answer.", figure)
        return
    for sheet in read_sheets(search.folder, ["ensemble/confusion.png"], damaged):
        yield photo_of(sheet, "What was taken for what: rows are true classes, columns the answer.")
