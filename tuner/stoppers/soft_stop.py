"""A soft stop: all trials end between two reports, and nothing is lost."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from time import monotonic
from types import FrameType
from typing import Any

from ray import tune

GRACE = 20.0  # seconds for running trials to reach their next report; a machine that is taken away often grants 30


class SoftStop(tune.Stopper):
    """Ends the search between two reports: at the time budget's end, when a signal or a request asks, or when nothing can be written."""

    def __init__(self, budget: float | None, grace: float = GRACE):
        """
        Args:
            budget: seconds from now, or None for no end.
            grace: seconds after which a trial that has not reported is ended all the same.
        """
        self.deadline = None if budget is None else monotonic() + budget
        self.reserve: Callable[[], float] = lambda: 0.0  # seconds before the deadline at which the search ends, for what follows it
        self.request: Callable[[], str | None] = lambda: None  # who asks from outside that the search end, in words
        self.reason: str | None = None
        self.code = 0  # exit code of the command
        self.no_room = False  # whether records could not be written
        self._grace = grace
        self._asked = 0.0

    def ask(self, reason: str, code: int, *, no_room: bool = False) -> None:
        """Begin to stop; only the first reason counts."""
        if self.reason is None:
            self.reason, self.code, self.no_room, self._asked = reason, code, no_room, monotonic()

    @property
    def asked(self) -> bool:
        if self.reason is None and self.deadline is not None and monotonic() > self.deadline - self.reserve():
            self.ask("the time budget", 0)
        if self.reason is None and (words := self.request()):
            self.ask(words, 128 + signal.SIGTERM)
        return self.reason is not None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial that has just reported should end."""
        return self.asked

    def stop_all(self) -> bool:
        return self.asked and monotonic() - self._asked > self._grace

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Stop softly at Ctrl-C and SIGTERM; the second one raises KeyboardInterrupt. Only a process's main thread hears them."""
        if current_thread() is not main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, frame: FrameType | None) -> None:
            for either in before:
                signal.signal(either, signal.default_int_handler)
            self.ask("Ctrl-C" if number == signal.SIGINT else "SIGTERM", 128 + number)

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
