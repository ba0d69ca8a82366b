"""Proposes what it is given stage by stage: a stage begins when the one before has ended, and without those that are out by then."""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from tuner.searchers.given import GivenSearcher


class StagedSearcher(GivenSearcher):
    """Likewise by number, none of a stage before all trials of earlier ones have ended."""

    def __init__(self, *given: Any, stages: Sequence[int], close: Callable[[int], Collection[int]], **more: Any):
        """
        Args:
            stages: of each trial, by number; numbers of later stages are higher.
            close: called with the number of a stage before it begins; answers which trials are out.
        """
        super().__init__(*given, **more)
        self._stages = stages
        self._close = close
        self._stage = 0

    # pyrefly: ignore[bad-override]  as in GivenSearcher
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        while self._given and (stage := self._stages[self._given[0][0]]) > self._stage and not self._stopping():
            if self._running:
                return None
            closed = self._close(stage)
            self._given = deque((number, values) for number, values in self._given if number not in closed)
            self._stage = stage
        return super().suggest(trial_id)
