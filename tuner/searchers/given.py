"""Proposes what it is given, and learns nothing: for refits."""

from collections.abc import Callable, Mapping
from typing import Any

from tuner.searchers.numbered import NumberedSearcher


class GivenSearcher(NumberedSearcher):
    """Proposes given configurations in the order of their numbers."""

    def __init__(self, proposals: Mapping[int, dict[str, Any]], *, slots: Callable[[], int], stopping: Callable[[], bool] = lambda: False):
        """
        Args:
            proposals: nested values by the trial's number.
        """
        super().__init__(slots=slots, stopping=stopping, resumed=proposals)

    def has_more(self) -> bool:
        return False
