"""The answer, what it is worth, and what stands in its way."""

from collections.abc import Iterator

import numpy as np

from analysis.evaluation.elsewhere import FILE as ELSEWHERE
from analysis.evaluation.elsewhere import read_notes
from analysis.evaluation.scoring import also_words
from analysis.evaluation.search.history import ranked
from analysis.evaluation.search.reading import Search, lenient
from analysis.figures.confusion import confusion_figure
from analysis.figures.price import price_figure
from analysis.figures.search import answers_figure
from analysis.pages.confusion import ALL, taken_for
from analysis.pages.model_card import CARD
from analysis.pages.parts import Part, Picture, Table, Words
from analysis.pages.tables import TOO_SMALL, as_number, is_informative, number_range, signed, table_of
from analysis.report.answer import Baseline, Scores, read_baseline, read_models, read_tables
from analysis.report.cells import capital, frame_table
from trainables.commands import typed
from trainables.data.targets import Kind, Scheme
from trainables.metrics import Metric

SMALLEST = 0.0005  # of a difference that three digits show
EACH: dict[Kind, str] = {
    "classes": "Each class on the test images",
    "tags": "Each tag on the test images",
    "number": "Each fifth of the test images",
}
SHOWN = 12  # classes of a confusion matrix that a phone has room for


def answer_parts(search: Search, scores: Scores | None, damaged: list[str]) -> Iterator[Part]:
    if scores is None:
        best = ranked(search.trials, search.metric)[0]
        words = f"The best trial so far is {search.name}/{best.number}: {search.metric.title} {best.score:.3f} on validation."
        yield Words(words, "lead")
        yield Words(
            "That score chose it, so it is optimistic. Which trials should vote, and what they are worth on groups that nothing has seen, "
            "says",
            "missing",
            typed(f"analysis.ensemble --run {search.called}"),
        )
        if baseline := read_baseline(search.folder, damaged):
            yield Words(baseline_words(baseline, search.metric))
        return
    metric = scores.metric
    yield Words(lead_words(scores), "lead")
    for words in scores.findings:
        yield Words(words, "warning")
    yield Words(sample_words(scores))
    if also := also_words(scores.also):
        yield Words(also)
    yield Words(gain_words(scores))
    if scores.baseline:
        yield Words(baseline_words(scores.baseline, metric))
    for note in lenient(search.folder, ELSEWHERE, lambda _: read_notes(search.folder), (), damaged):
        yield Words(f"Scored elsewhere: {note}", "warning" if note.outside else "plain")
    if models := model_words(search, scores, damaged):
        yield Words(models)
    if (search.folder / "ensemble" / CARD).is_file():
        yield Words("All that who uses it should know, in one file to hand over with it, and how to load it:", link=f"../ensemble/{CARD}")
    yield from map(Words, caveats(scores))
    if metric.explained:
        yield Words(metric.explained)
    yield Picture(
        "answers",
        f"{metric.capital} of each answer with its 95 % CI",
        f"Every answer on the {_images(scores)}; the one that was chosen is blue.",
        answers_figure(scores.answers, scores.chosen.name, metric),
    )
    if len({one.ms for one in scores.all_priced}) > 1:
        yield Picture(
            "price",
            f"{metric.capital} of models and answers by milliseconds an image",
            f"What more time gives, on the {_images(scores)}: an image that comes alone, on the device that answered; the line joins those "
            "that nothing cheaper equals. By score on the test images, so for reading and not for choosing."
            + (" Students and exported files were measured when they were made." if scores.beside else ""),
            price_figure(scores.all_priced, metric),
        )
    if scores.beside:
        yield _beside_table(scores)
    yield _answers_table(scores)
    if scores.members:
        yield _members_table(scores)
    yield from _classes(search, scores, damaged)


def lead_words(scores: Scores) -> str:
    """The answer and its score in one sentence."""
    chosen, metric = scores.chosen, scores.metric
    between = f" (95 % CI {_between(chosen.interval, metric.bounds)})" if chosen.interval else ""
    return f"{capital(chosen.called)}: {metric.title} {chosen.score:.3f}{between}"


def sample_words(scores: Scores) -> str:
    """What the score was measured on."""
    right = f": {scores.chosen.accuracy:.1%} of them are right" if scores.chosen.accuracy is not None else ""
    return f"Scored on {_images(scores)} that neither training nor any choice has seen{right}."


def gain_words(scores: Scores) -> str:
    """What the answer gains over the best single model, and whether that is significant."""
    chosen = scores.chosen
    if chosen.is_single:
        votes = [answer for answer in scores.answers if answer is not chosen and answer.gain is not None]
        clear = [answer.name for answer in votes if answer.distinguishable and (answer.gain or 0) > 0]
        if not votes:
            return "No vote was compared with it."
        if clear:
            return f"On the test images significantly better: {', '.join(clear)}; validation had not shown it."
        return "On the test images no vote is significantly better."
    if chosen.gain is None or chosen.gain_interval is None:
        return "What it gains over the best single model is not known."
    return f"Against the best single model: {_difference(chosen.gain, chosen.gain_interval, chosen.distinguishable, scores.metric)}."


def baseline_words(baseline: Baseline, metric: Metric) -> str:
    """What the answer gains over what one would have trained without searching."""
    gain = _difference(baseline.gain, baseline.interval, baseline.distinguishable, metric)
    return f"Against the baseline, trial {baseline.trial}, on validation: {gain}."


def model_words(search: Search, scores: Scores, damaged: list[str]) -> str:
    """The models that answer, with their backbones; nothing where that is not known."""
    backbones = {name: backbone for member in scores.members for name, backbone in member.backbones}
    backbones |= {f"{search.name}/{trial.number}": str(trial.settings.get("model/backbone", "")) for trial in search.trials}
    names = []
    for name, models in read_models(search.folder, damaged).items():
        told = [*filter(None, [backbones.get(name)]), *([f"mean of {models} models, one a fold"] if models > 1 else [])]
        names.append(f"{name} ({', '.join(told)})" if told else name)
    return f"{'Models' if len(names) > 1 else 'Model'}: {', '.join(names)}." if names else ""


def caveats(scores: Scores) -> Iterator[str]:
    """What to know of how the answer was chosen."""
    if scores.supported is False:
        yield (
            "On validation, evaluated on groups that nothing was fitted on, the vote was not significantly better than the best single "
            "model."
        )
    if scores.steps:
        yield f"Steps that it takes: {'; '.join(scores.steps)}."
    if scores.optimism is not None and scores.optimism >= SMALLEST and scores.pool > 1:
        corrected = ""
        if scores.corrected is not None and scores.corrected_interval is not None:
            corrected = f": {scores.corrected:.3f} without it (95 % CI {_between(scores.corrected_interval, scores.metric.bounds)})"
        yield (
            f"On validation the best of {scores.pool} members was picked by its score there, which is expected to be optimistic by "
            f"{scores.optimism:.3f} for that reason{corrected}. The test images chose nothing."
        )
    if scores.questions > 1:
        yield (
            f"The test images have scored {scores.questions} different calls of analysis.ensemble: if this one was kept for its score, the "
            "score is optimistic."
        )


def _images(scores: Scores) -> str:
    return f"{scores.images:,} test images of {scores.groups:,} groups"


def _difference(gain: float, interval: tuple[float, float], significant: bool, metric: Metric) -> str:
    if abs(gain) < SMALLEST:
        return "no difference"
    between = _signed_between(interval, metric.bounds)
    return f"{signed(gain)} {metric.title} (95 % CI {between}), {'significant' if significant else 'not significant'}"


def _between(interval: tuple[float, float], bounds: tuple[float, float]) -> str:
    return number_range(interval, bounds) if is_informative(interval, bounds) else f"left out: {TOO_SMALL}"


def _signed_between(interval: tuple[float, float], bounds: tuple[float, float]) -> str:
    """Of a difference of two scores between the bounds."""
    return f"{signed(interval[0])} to {signed(interval[1])}" if is_informative(interval, bounds) else f"left out: {TOO_SMALL}"


def _answers_table(scores: Scores) -> Table:
    names, title, bounds = tuple(scores.chosen.target_scores), scores.metric.title, scores.metric.bounds
    head = ("answer", title, "95 % CI", "against the best single model", "accuracy", *(f"{name}: {title}" for name in names))
    rows = []
    for answer in scores.answers:
        own = (as_number(answer.target_scores.get(name)) for name in names)
        gain = "" if answer.gain is None or answer.is_single else signed(answer.gain)
        if gain and answer.gain_interval:
            gain += f" ({_signed_between(answer.gain_interval, bounds)})"
        rows.append((answer.called, as_number(answer.score), number_range(answer.interval, bounds), gain, as_number(answer.accuracy), *own))
    return table_of("Every answer on the test images", head, rows, tuple(range(1, len(head))), folded=True)


def _beside_table(scores: Scores) -> Table:
    head = ("", scores.metric.title, "95 % CI", "ms an image", "MB", "measured on")
    rows = []
    for one in scores.beside:
        own = (as_number(one.score), number_range(one.interval, scores.metric.bounds), f"{one.ms:.3g}", f"{one.megabytes:.3g}")
        rows.append((one.name, *own, f"{one.device}{', ONNX Runtime' if one.sort == 'exported file' else ''}"))
    return table_of("Students of the vote and exported files on the test images", head, rows, (1, 2, 3, 4))


def _members_table(scores: Scores) -> Table:
    rows = [
        (
            member.name,
            ", ".join(dict.fromkeys(backbone for _, backbone in member.backbones)),
            as_number(member.weight),
            as_number(member.valid),
            as_number(member.holdout),
            "" if member.like_the_best else "yes",
        )
        for member in scores.members
    ]
    title = scores.metric.title
    head = ("member", "backbone", "weight", f"{title} on validation", f"{title} on test images", "significantly below the best")
    return table_of("Members, best on validation first", head, rows, (2, 3, 4))


def _classes(search: Search, scores: Scores, damaged: list[str]) -> Iterator[Part]:
    for frame in read_tables(search.folder, {"ensemble/per_class.csv": EACH[scores.metric.target]}, damaged):
        yield frame_table(frame, most=200, folded=len(frame.table) > SHOWN)
    scheme, counts = search.card.scheme.part(scores.attributes or search.card.scheme.names), scores.confusion
    if counts is None or counts.shape != (scheme.classes, scheme.classes):
        return
    several = len(scheme.names) > 1
    yield from _confusion(scores, "confusion", ALL if several else scheme.names[0], scheme, counts)
    for number, name in enumerate(scheme.names if several else ()):
        own = scheme.marginal((name,), scheme.marginal((name,), counts).T).T
        yield from _confusion(scores, f"confusion-{number}", name, scheme.part((name,)), own)


def _confusion(scores: Scores, file: str, name: str, scheme: Scheme, counts: np.ndarray) -> Iterator[Part]:
    table, alt = taken_for(name, scheme, counts), f"Confusion matrix: {name}, {scheme.classes} classes"
    if table.rows:
        yield table
    words = f"{alt}. {capital(scores.chosen.called)} on the {_images(scores)}; colour and percentages are shares of the true class."
    yield Picture(file, alt, words, confusion_figure(counts, scheme), folded=scheme.classes > SHOWN)
