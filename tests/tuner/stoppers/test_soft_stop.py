import signal
from time import monotonic, sleep

import pytest

from tuner.stoppers.soft_stop import SoftStop


def test_without_a_budget_or_a_wish_nothing_stops():
    for stop in (SoftStop(None), SoftStop(3600)):
        assert not stop.asked and not stop("any", {}) and not stop.stop_all()
        assert (stop.reason, stop.code) == (None, 0)


def test_at_the_end_of_the_budget_each_trial_stops_at_its_next_report_and_that_is_no_failure():
    stop = SoftStop(0.01)
    while monotonic() <= stop.deadline:
        sleep(0.005)
    assert stop("any", {}) and not stop.stop_all()
    assert (stop.reason, stop.code) == ("the time budget", 0)


def test_a_trial_that_does_not_report_within_the_grace_is_ended_all_the_same():
    stop = SoftStop(None, grace=0.05)
    assert not stop.stop_all()
    stop.ask("Ctrl-C", 130)
    while not stop.stop_all():
        assert stop("any", {})
        sleep(0.005)
    patient = SoftStop(None, grace=3600)
    patient.ask("Ctrl-C", 130)
    assert patient("any", {}) and not patient.stop_all()


def test_only_the_first_reason_counts():
    stop = SoftStop(0.0)
    stop.ask("the disk is full", 1)
    stop.ask("Ctrl-C", 130)
    while monotonic() <= stop.deadline:
        sleep(0.005)
    assert stop.asked and (stop.reason, stop.code) == ("the disk is full", 1)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first, reason, code", [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)])
def test_the_first_signal_asks_the_second_interrupts_and_afterwards_all_is_as_before(first, reason, code, second):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop = SoftStop(None)
    with pytest.raises(KeyboardInterrupt), stop.listening():
        signal.raise_signal(first)
        assert stop.asked and (stop.reason, stop.code) == (reason, code)
        signal.raise_signal(second)
    assert (stop.reason, stop.code) == (reason, code)
    assert {number: signal.getsignal(number) for number in before} == before


def test_handlers_are_put_back_after_a_quiet_search_too():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with SoftStop(None).listening():
        assert all(signal.getsignal(number) != handler for number, handler in before.items())
    assert {number: signal.getsignal(number) for number in before} == before
