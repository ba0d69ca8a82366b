"""Proposes what it is given stage by stage: a stage begins when the one before has ended, and without those that are out by then."""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from tuner.searchers.given import GivenSearcher


class StagedSearcher(GivenSearcher):
    """Proposes by stage, then by number; none of a stage before all trials of earlier ones have ended, unless one contestant is alone."""

    def __init__(self, *given: Any, stages: Sequence[int], close: Callable[[int], Collection[int]], alone: Callable[[], bool], **more: Any):
        """
        Args:
            stages: of each trial, by number.
            close: called with the number of a stage before it begins; answers which trials are out.
            alone: whether there is nothing to decide any more; asked after each `close`.
        """
        super().__init__(*given, **more)
        self._stages = stages
        self._close = close
        self._is_alone = alone
        self._stage, self._alone = -1, False
        self._given = deque(sorted(self._given, key=lambda item: (stages[item[0]], item[0])))

    # pyrefly: ignore[bad-override]  as in GivenSearcher
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        while self._given and (stage := self._stages[self._given[0][0]]) > self._stage and not self._stopping():
            if self._running and not self._alone:
                return None
            closed = set() if self._alone else self._close(stage)
            self._given = deque((number, values) for number, values in self._given if number not in closed)
            self._stage, self._alone = stage, self._alone or self._is_alone()
        return super().suggest(trial_id)
