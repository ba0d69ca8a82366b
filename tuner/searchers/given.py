"""Proposes what it is given, by number and free slot, and learns nothing: for refits, and what every other searcher builds on."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher


class GivenSearcher(Searcher):
    """Proposes `{"number", "values"}` by number; none before a slot is free, so each proposal knows all that ended before.

    What trial n is to be follows from the seed, n, and the trials before it alone, so a search that resumes from its records proposes
    what the uninterrupted one would have.
    """

    def __init__(
        self,
        given: Mapping[int, dict[str, Any]],
        *,
        slots: Callable[[], int],
        stopping: Callable[[], bool] = lambda: False,
        mode: str = "max",
    ):
        """
        Args:
            given: nested values by the trial's number.
            slots: trials that may run at a time.
            stopping: whether the search is ending, so that no more trials should begin.
            mode: max or min, as Ray calls the metric's direction.
        """
        super().__init__(metric="score", mode=mode)
        self._slots = slots
        self._stopping = stopping
        self._given = deque(sorted(given.items()))
        self._running: dict[str, int] = {}

    # pyrefly: ignore[bad-override]  Ray's annotation leaves its own FINISHED out, which is a text
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._stopping() or not (self._given or self.has_more()):
            return Searcher.FINISHED
        if len(self._running) >= self._slots():
            return None
        number, values = self._given.popleft() if self._given else self.propose()
        self._running[trial_id] = number
        return {"number": number, "values": values}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "score" in result:
            self.reported(self._running[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        result = result or {}
        number = self._running.pop(trial_id)
        self.ended(number, {"cause": "crash"} if error else result)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are the truth, and all that is known is made from them."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to read, see `save`."""

    # What a searcher with proposals of its own overrides

    def has_more(self) -> bool:
        """Whether there is more to propose than what was given."""
        return False

    def propose(self) -> tuple[int, dict[str, Any]]:
        """The number and the nested values of a new trial; asked for only where there is more than what was given."""
        raise NotImplementedError

    def reported(self, number: int, report: Mapping[str, Any]) -> None:
        """Called after each epoch of a trial, but not after the one at which it is stopped: there `ended` is called."""

    def ended(self, number: int, last: Mapping[str, Any]) -> None:
        """Called with the last report of a trial; one that failed has a cause and no score."""
