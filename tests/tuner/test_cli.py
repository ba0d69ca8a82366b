import os
import signal
from io import StringIO
from time import sleep

import pytest
from rich.console import Console

from tuner import cluster
from tuner.cli import carry_out
from tuner.cluster import _set_handler


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    monkeypatch.setattr(cluster, "start", lambda address, *, dashboard, gpus: cluster.Cluster(1, 0, None))
    monkeypatch.setattr(cluster, "stop", lambda: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # A shell that starts the tests in the background lets them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


def test_sigterm_counts_after_ray_has_put_a_handler_of_its_own_below_python(monkeypatch):
    def ray_starts(address, *, dashboard, gpus):
        _set_handler(signal.SIGTERM, None)
        return cluster.Cluster(1, 0, None)

    monkeypatch.setattr(cluster, "start", ray_starts)
    code, words = carried_out(lambda start: (start(0)(), come(signal.SIGTERM))[1])
    assert code == 143 and "SIGTERM" in words


def test_what_is_stopped_while_ray_starts_waits_for_it_and_stops_it(monkeypatch):
    done = []

    def ray_starts(address, *, dashboard, gpus):
        sleep(0.5)
        done.append("up")
        return cluster.Cluster(1, 0, None)

    monkeypatch.setattr(cluster, "start", ray_starts)
    monkeypatch.setattr(cluster, "stop", lambda: done.append("stopped"))
    code, _ = carried_out(lambda start: start(0) and come(signal.SIGTERM))
    assert code == 143 and done == ["up", "stopped"]


def test_ray_starts_beside_the_work_and_its_failure_is_reported_to_who_waits_for_it(monkeypatch):
    seen = []

    def ray_starts(address, *, dashboard, gpus):
        seen.append((address, dashboard, gpus))
        raise cluster.ClusterError("Ray did not start")

    def work(start):
        join = start(3)
        with pytest.raises(cluster.ClusterError, match="did not start"):
            join()
        return 5

    monkeypatch.setattr(cluster, "start", ray_starts)
    assert carried_out(work)[0] == 5 and seen == [(None, False, 3)]


@pytest.mark.parametrize("code", [0, 1, 5, 15, "a library gave up", None])
def test_an_exit_of_another_cause_keeps_its_code_and_words(code):
    def work(start):
        raise SystemExit(code)

    assert carried_out(work) == (code, "")


def test_ctrl_c_ends_the_command_with_130_and_says_so():
    code, words = carried_out(lambda start: come(signal.SIGINT))
    assert code == 130 and "Ctrl-C" in words
