"""What a search shows on the terminal: rows of trials as plain records first, drawn second."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import monotonic
from types import MappingProxyType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from search_spaces.schema import Space, show
from trainables.metrics import Metric
from trainables.probe_config import METHODS

SHOWN = 20  # rows of the live table above a footer of one line; a terminal has no more room
NAMED_ALONE = ("task", "model/backbone")  # settings whose values say what they are
STYLES = {"running": "cyan", "finished": "green", "stopped": "yellow", "failed": "red", "interrupted": "magenta"}


@dataclass(frozen=True)
class Row:
    """One trial at a moment."""

    number: int
    differs: str  # the searched values
    state: str = "running"
    epoch: int = 0  # the last whole one
    score: float | None = None  # of the last epoch
    best: float | None = None
    images: int = 0  # trained by this command
    seconds: float = 0.0  # of training, by this command
    earlier: int = 0  # epochs of these that an earlier command trained
    predicts: str = ""  # the targets that its scores are over

    @property
    def trained(self) -> int:
        """Epochs trained by this command."""
        return max(0, self.epoch - self.earlier)  # a trial that lost its state begins again, and does earlier epochs twice


@dataclass
class Board:
    """All trials of a search so far, those that earlier commands trained among them."""

    trials: int  # planned
    epochs: int
    targets: str  # what the score is over
    metric: Metric
    deadline: float | None = None  # on the monotonic clock
    started: float = field(default_factory=monotonic)
    rows: Mapping[int, Row] = field(default_factory=dict)  # replaced and never changed: another thread draws it meanwhile
    notes: list[str] = field(default_factory=list)  # shown under the table
    size: int | None = None  # bytes of the run's folder

    def __post_init__(self):
        self.rows = MappingProxyType(dict(self.rows))

    def put(self, row: Row) -> Row:
        """Add a row, or put it in the place of the trial's earlier one."""
        self.rows = MappingProxyType({**self.rows, row.number: row})
        return row

    def update(self, number: int, **changes: Any) -> Row:
        return self.put(replace(self.rows[number], **changes))

    def leaders(self) -> list[Row]:
        """The best row so far for each of what trials predict, as the first of them came; ties go to the earlier trial."""
        scored = [row for _, row in sorted(self.rows.items()) if row.best is not None]
        return [
            min((row for row in scored if row.predicts == one), key=self._order) for one in dict.fromkeys(row.predicts for row in scored)
        ]

    def best_like(self, number: int) -> Row | None:
        """The best row so far of those that predict what this trial does; None where it is not there, or none has a score."""
        own = self.rows.get(number)
        return next((row for row in self.leaders() if own and row.predicts == own.predicts), None)

    def best_first(self) -> list[Row]:
        """All rows, the best first, those without a score last."""
        return sorted(self.rows.values(), key=self._order)

    def _order(self, row: Row) -> tuple[float, int]:
        """The best first, ties to the earlier trial, those without a score last."""
        return (math.inf if row.best is None else -self.metric.sign * row.best), row.number

    @property
    def images(self) -> int:
        """Trained by this command."""
        return sum(row.images for row in self.rows.values())

    def seconds_left(self) -> float | None:
        """An estimate from this command's pace so far; None before there is one."""
        epochs_done = sum(row.trained for row in self.rows.values())
        if not epochs_done:
            return None
        ended = [row for row in self.rows.values() if row.state != "running"]
        usual = sum(row.epoch for row in ended) / len(ended) if ended else self.epochs
        running = [row for row in self.rows.values() if row.state == "running"]
        epochs_left = sum(max(1.0, usual - row.epoch) for row in running) + usual * (self.trials - len(self.rows))
        left = epochs_left * (monotonic() - self.started) / epochs_done
        return left if self.deadline is None else min(left, max(0.0, self.deadline - monotonic()))

    def words(self) -> str:
        """How far the search is, in a line."""
        rows, left = self.rows.values(), self.seconds_left()
        running = sum(row.state == "running" for row in rows)
        words = [f"{len(rows) - running} of {self.trials} trials ended", f"{running} running"]
        if not any(row.trained for row in rows):
            words.append("workers are starting")
        if leaders := self.leaders():
            several = len(leaders) > 1
            found = [f"{f'{row.predicts} ' if several else ''}{row.best:.3f} (trial {row.number})" for row in leaders]
            words.append(f"best so far {', '.join(found)}")
        words.append("time left " + (clock(left) if left is not None else "unknown"))
        if self.size is not None:
            words.append(f"run folder {self.size / 1e6:,.0f} MB")
        return ", ".join(words)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = sorted(self.rows.values(), key=lambda row: (row.state != "running", *self._order(row)))
        below = [*map(Text, self.notes), Text(self.words(), style="bold")]
        # What is below takes the place of rows: a terminal cuts off what is too much at the bottom, where it matters most.
        shown = max(1, SHOWN + 1 - sum(len(text.wrap(console, options.max_width)) for text in below))
        yield trial_table(rows[:shown], self.targets, self.metric)
        if len(rows) > shown:
            yield Text(f"... and {len(rows) - shown} more")
        yield from below


def trial_table(rows: list[Row], targets: str, metric: Metric) -> Table:
    """The rows as a table, in the given order."""
    title = f"{metric.title} over {targets}, on validation"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("trial", justify="right")
    table.add_column("state")
    table.add_column("epoch", justify="right")
    table.add_column(metric.title, justify="right")
    table.add_column("best", justify="right")
    # One line a trial, however much differs: the terminal shows all running trials at once.
    table.add_column("what differs", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        state = Text(row.state, style=STYLES[row.state])
        table.add_row(str(row.number), state, str(row.epoch), _score(row.score), _score(row.best), row.differs)
    return table


def differs(space: Space, values: dict[str, Any]) -> str:
    """The searched values of a configuration, short, the network first: `mobilenetv3_small_050 lr=0.0031 loss=focal gamma=1.2`; of a probe
    what it looked at."""
    model = values.get("model", {})
    if (method := METHODS.get(model.get("heads"))) and model.get("freeze") == "backbone" and not model.get("unfreeze_epoch"):
        view = values.get("view", {})
        return f"{method} probe of {model['backbone']}, {view.get('crop')} {show(view.get('size'))}"
    drawn = sorted(space.drawn(values).items(), key=lambda item: item[0] not in NAMED_ALONE)
    return " ".join(_short(path, value) for path, value in drawn)


def clock(seconds: float) -> str:
    """Seconds as 1:05:09 or 4:07."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _short(path: str, value: Any) -> str:
    section, _, name = path.rpartition("/")
    if isinstance(value, float):
        value = f"{value:.3g}"
    text = value if isinstance(value, str) else show(value)
    if path in NAMED_ALONE:
        return text
    return f"{section if name == 'name' else name}={text}"


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"
