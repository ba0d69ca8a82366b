"""The answer in few lines: which models, what they are worth, where it lies, and what to type next."""

import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from analysis.ensemble.tables import compared, reason
from analysis.evaluation.baseline import Baseline
from analysis.evaluation.decide import SINGLE, Outcome, answer_words
from analysis.evaluation.fitted_ensemble import Pipeline
from analysis.evaluation.scoring import absent_classes
from analysis.members.trials import Runs, Trial
from trainables.commands import typed
from trainables.data.images import LeftOut, count_lines
from trainables.data.names import some
from trainables.record import name_of
from trainables.storage import Folder

WIDTH = 80  # columns
MOST = 40  # rows, with the answer first and last
MODELS = 6  # that are named
KINDS = 3  # of what was left out that are named


@dataclass(frozen=True)
class Context:
    """What is said of an answer beside its scores."""

    baseline: Baseline | None
    folder: Folder  # of the answer's files
    written: Sequence[Folder]  # those files
    images: Folder  # a folder of images that the models can answer for
    left_out: Sequence[LeftOut]
    notes: Sequence[str]  # sentences, each with its commands below it, a line each


def answer_lines(runs: Runs, outcome: Outcome) -> str:
    """The answer and its score in one sentence, wrapped."""
    decision, score = outcome.decision, outcome.score
    low, high = score.interval
    of = "" if len(models := voting(decision.pipelines[decision.final])) == 1 else f" of {len(models)} models"
    figures = f"{decision.metric.title} {score.score:.3f} (95 % CI {low:.3f} to {high:.3f})"
    groups = len(set(runs.holdout.groups.tolist()))
    images = f"{len(runs.holdout.ids):,} images of {groups:,} groups"
    return "\n".join(_wrapped(f"Answer: {answer_words(decision.final)}{of}, {figures} on the hold-out ({images})."))


def summary(runs: Runs, outcome: Outcome, context: Context, room: int | None = None) -> list[str]:
    """The lines between the answer and the answer: sentences wrapped at 80 columns, paths and commands whole.

    Args:
        room: rows of a terminal of 80 columns; what matters least is left out where they are not enough. None: as many as it takes.
    """
    blocks = list(_blocks(runs, outcome, context))
    if room is None or sum(block.rows for block in blocks) <= room:
        return [line for block in blocks for line in block.lines]
    blocks.insert(-2, Block(("More: --details.",)))
    while sum(block.rows for block in blocks) > room and (least := max(blocks, key=lambda block: block.rank)).rank:
        blocks.remove(least)
    return [line for block in blocks for line in block.lines]


@dataclass(frozen=True)
class Block:
    """Lines that stand together."""

    lines: Sequence[str]
    rank: int = 0  # 0: always printed; else the higher, the sooner it is left out

    @property
    def rows(self) -> int:
        """Of a terminal of 80 columns."""
        return sum(max(1, ceil(len(line) / WIDTH)) for line in self.lines)


def _blocks(runs: Runs, outcome: Outcome, context: Context) -> Iterator[Block]:
    decision = outcome.decision
    answering = decision.pipelines[decision.final]
    yield Block(list(model_lines(runs, answering)))
    yield Block(_wrapped(f"Why: {reason(decision.choice)}."))
    if not decision.final.startswith(SINGLE):
        yield Block(_wrapped(f"Against the best single model: {compared(outcome.score.gain)} on the hold-out."))
    if (baseline := context.baseline) and (baseline.trial,) != voting(answering):
        words = f"Against the baseline ({baseline.trial}, without a search): {compared(baseline.gain)} on validation."
        yield Block(_wrapped(words))
    evaluated = sorted(decision.choice.evaluated.items(), key=lambda one: -decision.metric.sign * one[1].score)
    scores = ", ".join(f"{answer_words(name)} {one.score:.3f}" for name, one in evaluated)
    yield Block(_wrapped(f"Candidates, on validation groups that they were not fitted on: {scores}."), rank=2)
    counts = count_lines(decision.scheme, runs.holdout.truth, most=6)
    wrapped = [row for line in counts for row in _wrapped(line, indent="  ")]
    yield Block(["The hold-out, with images:", *wrapped], rank=3)
    if absent := absent_classes(runs.holdout, decision.scheme):
        kind = "tags" if decision.scheme.kind == "tags" else "joint classes"
        yield Block(_wrapped(f"{len(absent)} {kind} are absent from the hold-out: {some(absent, most=2)}."), rank=4)
    for note in context.notes:
        words, *commands = note.split("\n")
        yield Block([*_wrapped(words), *commands])
    if context.left_out:
        yield Block(list(left_out_lines(context.left_out)), rank=1)
    yield Block([f"Files in {context.folder}/:", *_wrapped(", ".join(file.name for file in context.written), indent="  ")])
    asked = " ".join(f"--run {name_of(folder)}" for folder in runs.asked)
    folder, images, out = (shlex.quote(str(one)) for one in (context.folder, context.images, "answers.csv"))
    yield Block(
        [
            "Next: one page with everything, and answers for other images:",
            f"  {typed(f'analysis.report {asked}')}",
            f"  {typed(f'analysis.predict --ensemble {folder} --photos {images} --out {out}')}",
        ]
    )


def voting(pipeline: Pipeline) -> tuple[str, ...]:
    """Names of the trials that have a say: members of weight 0 have none, but the two whose disagreement counts."""
    weights = getattr(pipeline.ensemble, "weights", None) or [1.0] * len(pipeline.members)
    compared = 2 if pipeline.margin and pipeline.margin.disagree else 0
    members = [member for place, (member, weight) in enumerate(zip(pipeline.members, weights, strict=True)) if weight or place < compared]
    return tuple(dict.fromkeys(name for member in members for name in member.trials))


def model_lines(runs: Runs, pipeline: Pipeline) -> Iterator[str]:
    """The models that answer: trial, backbone, and the file of weights."""
    named = voting(pipeline)
    trials: dict[str, Trial] = {trial.name: trial for trial in runs.trials}
    shown = [(name, trials[name].record.config.model.backbone, trials[name].models) for name in named[:MODELS]]
    widths = [max(len(row[column]) for row in shown) for column in (0, 1)]
    for name, backbone, files in shown:
        more = f" and {len(files) - 1} more, one a fold" if len(files) > 1 else ""
        yield f"  {name:{widths[0]}}  {backbone:{widths[1]}}  {files[0]}{more}"
    if len(named) > MODELS:
        yield f"  and {len(named) - MODELS} more: ensemble.json has them all"


def left_out_lines(left_out: Sequence[LeftOut]) -> Iterator[str]:
    """What was not used, by reason, with a first name each."""
    for item in left_out[:KINDS]:
        words = f"Left out: {len(item.names)} {item.reason}: {some(item.names, most=1)}"
        yield textwrap.shorten(words, 2 * WIDTH - 20, placeholder=" ...")
    if len(left_out) > KINDS:
        yield f"Left out for {len(left_out) - KINDS} further reasons: scores.json names them."


def _wrapped(words: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        words, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False, break_on_hyphens=False
    )
