import os
import signal
from io import StringIO

import pytest
from rich.console import Console

from tuner import cluster
from tuner.command import carry_out


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    monkeypatch.setattr(cluster, "start", lambda address, *, dashboard: cluster.Cluster(1, 0, None))
    monkeypatch.setattr(cluster, "stop", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def carried_out(work) -> tuple[int | str | None, str]:
    """Exit code and words of a command that does some work."""
    said = StringIO()
    with pytest.raises(SystemExit) as ended:
        carry_out(work, Console(file=said), address=None, dashboard=False)
    return ended.value.code, said.getvalue()


def come(number: int) -> int:
    os.kill(os.getpid(), number)
    return 0


def test_work_ends_with_its_own_code():
    assert carried_out(lambda start: 7) == (7, "")


def test_sigterm_ends_the_command_with_143_and_says_so():
    code, words = carried_out(lambda start: come(signal.SIGTERM))
    assert code == 143 and "SIGTERM" in words


def test_sigterm_counts_after_ray_has_put_handlers_of_its_own(monkeypatch):
    def ray_starts(address, *, dashboard):
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(99))
        return cluster.Cluster(1, 0, None)

    monkeypatch.setattr(cluster, "start", ray_starts)
    code, words = carried_out(lambda start: (start(), come(signal.SIGTERM))[1])
    assert code == 143 and "SIGTERM" in words


def test_sigterm_counts_while_ray_starts_and_turns_it_into_an_exit_of_its_own(monkeypatch):
    def ray_starts(address, *, dashboard):
        signal.signal(signal.SIGTERM, lambda number, frame: exit(number))
        come(signal.SIGTERM)

    monkeypatch.setattr(cluster, "start", ray_starts)
    code, words = carried_out(lambda start: start() and 0)
    assert code == 143 and "SIGTERM" in words


@pytest.mark.parametrize("code", [0, 1, 5, 15, "a library gave up", None])
def test_an_exit_of_another_cause_keeps_its_code_and_words(code):
    def work(start):
        raise SystemExit(code)

    assert carried_out(work) == (code, "")


def test_ctrl_c_ends_the_command_with_130_and_says_so():
    code, words = carried_out(lambda start: come(signal.SIGINT))
    assert code == 130 and "Ctrl-C" in words
