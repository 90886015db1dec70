"""Signals between two steps."""

import os
import signal

import pytest

from uniface_jax.train.stop_signal import StopSignal

pytestmark = pytest.mark.usefixtures("hang_ups")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_one_lets_the_step_end_and_says_so(number, capfd):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop.reached(3)
        os.kill(os.getpid(), number)
        assert stop.reached(4)
        assert stop.interrupted == (number == signal.SIGINT)
    assert f"{number.name}: finishing step 4 and saving" in capfd.readouterr().err
    assert signal.getsignal(number) == before


def test_then_only_the_keyboard_ends_it_at_once():
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)  # as a system that shuts down sends both
        assert stop.received == "SIGHUP"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.reached(1)
    finally:
        signal.signal(signal.SIGHUP, before)
