"""Two trainings of one trial compared: where they differ, and whether they may."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Any

from rich.table import Table

from trainables.extensions import SHORT
from trainables.metrics import Metric
from trainables.record import Cause, Predictions, Record, Result

COMPARED = ("train_loss", "score", "accuracy", "target_scores", "lr", "photos", "best_epoch", "last")
# How far a training may drift where the same bits cannot be expected. Sums in another order differ in their last bits, and every
# step makes that larger. In 48 epochs of six small networks, trained from scratch with one thread and again with two, and validated
# on 399 images, train losses came to differ by up to 4.8 %, macro F1 of an epoch by up to 0.07, of the best epochs by up to 0.03.
# So the loss, a mean over all training images, is evaluated in every epoch, by twice that; and of the scores only the best one, by half
# its 95 % interval over groups, which is no less than SCORE. Five of the six are within that; the other had learned next to nothing.
LOSS, SCORE = 0.1, 0.02
SHOWN = 3  # differences named in a row of the table


@dataclass(frozen=True)
class Conditions:
    """What decides the bits of a training besides its settings and images."""

    device: str
    threads: int
    code: str
    versions: Mapping[str, str]
    extensions: Mapping[str, str] = field(default_factory=dict)  # sha256 of each file, by name


@dataclass(frozen=True)
class Again:
    """A trial trained again."""

    reports: tuple[dict[str, Any], ...]
    predictions: Predictions | None  # after the epoch that was asked for, where it was reached
    cause: Cause = ""  # of a failure
    reason: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as in the record."""

    epoch: int
    words: str
    tolerable: bool  # where the same bits cannot be expected


def conditions(result: Result) -> Conditions:
    """Under which a trial was trained."""
    return Conditions(result.device, result.threads, result.code, result.versions, result.extensions)


def unlike(then: Conditions, now: Conditions) -> list[str]:
    """Why the same bits cannot be expected, in plain words; nothing where they can."""
    found = []
    if then.device != now.device:
        found.append(f"device: {then.device} then, {now.device} now")
    elif not now.device.startswith("CPU"):
        found.append(f"device: {now.device}; a GPU sums in no fixed order")
    if then.threads != now.threads:
        found.append(f"threads: {then.threads} then, {now.threads} now; sums may differ in their last bits")
    if then.code != now.code:
        found.append(f"code: {then.code} then, {now.code} now")
    elif now.code.endswith("-dirty"):
        found.append(f"code: {now.code} then and now, with uncommitted changes, which may differ")
    for name in sorted(then.extensions.keys() | now.extensions.keys()):
        was, is_now = (one.extensions.get(name, "not there")[:SHORT] for one in (then, now))
        if was != is_now:
            found.append(f"extension {name}: {was} then, {is_now} now")
    for name in sorted(then.versions.keys() | now.versions.keys()):
        was, is_now = then.versions.get(name, "not recorded"), now.versions.get(name, "not used")
        if was != is_now:
            found.append(f"{name}: {was} then, {is_now} now")
    return found


def compare_epochs(record: Record, again: Again, epochs: int) -> Iterator[Finding]:
    """What differs in the first `epochs` epochs, up to the one in which either training ended."""
    for epoch, (then, now) in enumerate(islice(zip_longest(record.reports, again.reports), epochs), start=1):
        if now is None:
            words = f"was trained then; now {again.reason or 'the training ended before it'}"
            yield Finding(epoch, words, again.cause == record.result.cause)
            return
        if then is None:
            yield Finding(epoch, f"is trained now; then {record.result.reason}", False)
            return
        yield from compare_reports(then, now)
    if again.reason and again.reason != record.result.reason:
        yield Finding(len(again.reports) + 1, f"then {record.result.reason}; now {again.reason}", again.cause == record.result.cause)


def compare_reports(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Finding]:
    """What differs between two reports of an epoch, as far as it does not depend on the machine's speed."""
    before, after = _flat(then), _flat(now)
    for name in sorted(before.keys() | after.keys(), key=[*before, *after].index):
        was, is_now = before.get(name, math.nan), after.get(name, math.nan)
        if was != is_now:
            words = f"{name} {is_now - was:+.2g}" if isinstance(was, float) else f"{name} was {was}, is {is_now}"
            yield Finding(now["epoch"], words, name != "train_loss" or math.isclose(was, is_now, rel_tol=LOSS))


def compare_best(
    then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], tolerance: float, metric: Metric
) -> Iterator[Finding]:
    """The best score of either training, where they are further apart than the tolerance."""
    if not then or not now or then[0]["score"] is None:
        return
    before, after = (max(reports, key=lambda report: metric.sign * report["score"]) for reports in (then, now))
    if abs(before["score"] - after["score"]) > tolerance:
        words = [f"{report['score']:.4f} (epoch {report['epoch']})" for report in (before, after)]
        yield Finding(after["epoch"], f"the best {metric.title} was {words[0]}, is {words[1]}", False)


def compare_predictions(then: Predictions | None, now: Predictions | None) -> Iterator[Finding]:
    """What differs between validation probabilities, where there are both."""
    if then is None or now is None:
        return
    if then.ids != now.ids or [head.shape for head in then.heads] != [head.shape for head in now.heads]:
        yield Finding(then.epoch, "valid.npz holds other images or classes, or images in another order", False)
    elif largest := max(float(abs(before - after).max(initial=0)) for before, after in zip(then.heads, now.heads, strict=True)):
        # One image may change its class where the score of all hardly moves.
        yield Finding(then.epoch, f"validation probabilities by up to {largest:.1e}", True)


def epochs_table(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], findings: Sequence[Finding], metric: Metric) -> Table:
    """A row for each epoch that was trained both times."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("epoch", justify="right")
    shown = {"train_loss": "train loss", "score": metric.title} | ({} if metric.name == "accuracy" else {"accuracy": "accuracy"})
    for name in shown.values():
        table.add_column(f"{name} then", justify="right")
        table.add_column("now", justify="right")
    table.add_column("what differs", overflow="fold")
    for before, after in zip(then, now, strict=False):
        words = [finding.words for finding in findings if finding.epoch == after["epoch"]]
        differs = "; ".join(words[:SHOWN]) + (f"; and {len(words) - SHOWN} more" if words[SHOWN:] else "")
        scores = [report[name] for name in shown for report in (before, after)]
        table.add_row(str(after["epoch"]), *("-" if score is None else f"{score:.4f}" for score in scores), differs or "identical")
    return table


def verdict(findings: Sequence[Finding], excuses: Sequence[str], compared: str, score: float, metric: Metric) -> tuple[int, str]:
    """Exit code and verdict.

    Args:
        excuses: why the same bits cannot be expected.
        compared: what was trained again, in words.
        score: how far the best score may differ then.
    """
    if not findings:
        return 0, f"Bitwise identical: {compared}."
    unlike_then = ", ".join(excuse.split(":")[0] for excuse in excuses)
    allowed = f"the best {metric.title} within {score:.3f} and train losses within {LOSS:.0%}"
    tolerance = f"{allowed}, since the same bits cannot be expected ({unlike_then})"
    wrong = [finding for finding in findings if not (excuses and finding.tolerable)]
    if not wrong:
        return 0, f"Within tolerance: {compared}. Allowed: {tolerance}."
    first, more = wrong[0], f", and {len(wrong) - 1} more differences" if wrong[1:] else ""
    words = f"epoch {first.epoch}: {first.words}{more}"
    if excuses:
        return 1, f"Not within tolerance: {words}. Allowed: {tolerance}."
    return 1, f"Not identical: {words}. The same code, libraries, threads and CPU type must give the same bits."


def compared_words(again: Again) -> str:
    """What was trained again."""
    parts = [f"{len(again.reports)} epochs"] if again.reports else []
    if again.predictions:
        parts.append(f"the validation probabilities of epoch {again.predictions.epoch}")
    if again.reason:
        parts.append(f"the end ({again.reason})")
    return ", ".join(parts)


def _flat(report: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared of a report: `score`, `target_scores/<name>`, ..."""
    flat = {}
    for name in COMPARED:
        value = report[name]
        flat |= {f"{name}/{part}": score for part, score in value.items()} if isinstance(value, dict) else {name: value}
    return flat
