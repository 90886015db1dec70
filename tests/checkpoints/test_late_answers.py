"""Silence for late answers of TensorStore, and for nothing else of the program around."""

import asyncio
import gc
import logging
import sys
import types

import pytest

from uniface_jax.checkpoints import late_answers


@pytest.fixture(autouse=True)
def silenced(monkeypatch):
    """Install the hooks, and put those back that were there."""
    for name in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    late_answers.silence()


@pytest.mark.parametrize(
    ("message", "heard"),
    [("ValueError of mine", True), ("RESOURCE_EXHAUSTED [tensorstore_spec='…']", False)],
)
def test_futures_that_nobody_asks_are_heard_but_tensorstore_s(message, heard, caplog):
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    future.set_exception(ValueError(message))
    with caplog.at_level(logging.ERROR, "asyncio"):
        del future
        gc.collect()
    loop.close()
    assert ("never retrieved" in caplog.text) is heard


def test_a_closed_loop_of_the_program_s_own_is_printed(capsys):
    loop = asyncio.new_event_loop()
    loop.close()
    try:
        loop.call_soon_threadsafe(print)
    except RuntimeError as error:
        trace = error.__traceback__
        sys.excepthook(RuntimeError, error, trace)
        assert "Event loop is closed" in capsys.readouterr().err
        sys.excepthook(RuntimeError, error, trace.tb_next)  # as a thread of C++ calls asyncio
        assert not capsys.readouterr().err


def test_a_coroutine_of_the_program_s_own_that_is_thrown_away_is_heard(monkeypatch):
    """Beside the reads of a damaged checkpoint, of which test_checkpoints.py wants no word."""
    heard = []
    for name in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, name, lambda *found: heard.append(str(found[0].exc_value)))
    late_answers.silence()

    @types.coroutine
    def unfinished():
        try:
            yield
        except GeneratorExit as error:
            raise ValueError("of mine") from error

    unfinished().send(None)
    gc.collect()
    assert heard == ["of mine"]
