"""Flag parsing, and errors that end in one line and not a traceback, for every command."""

import gc
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging

from uniface_jax.cli.streams import printable_streams
from uniface_jax.errors import EXIT_BAD_INPUT, UserError, refused
from uniface_jax.files.paths import expanded
from uniface_jax.files.printable import printable
from uniface_jax.runtime.xla_flags import set_flags

# What imports and traces makes few cycles and very many objects that stay. By default Python looks
# for cycles among them after every 700 new ones.
NEW_OBJECTS = 10_000

flags.disclaim_key_flags()  # --help lists them with the command that defines them here

_console: ContextVar[bool] = ContextVar("console", default=False)


@contextmanager
def spoken_as_console_command() -> Iterator[None]:
    """Let what is said in this block name commands as the console command `uniface` has them."""
    token = _console.set(True)
    try:
        yield
    finally:
        _console.reset(token)


def spoken(text: str) -> str:
    """Return `text` with its commands in the form in which the user started this one."""
    if not _console.get():
        return text
    return re.sub(
        r"python -m uniface_jax\.(\w+)", lambda m: f"uniface {m[1].replace('_', '-')}", text
    )


def fail(message: object) -> NoReturn:
    """Print `error: message` on standard error, in one line, and exit with status 2.

    After what was printed before, which a pipe or a file gets in blocks.
    """
    with suppress(OSError):  # a closed pipe
        if sys.stdout is not None:
            sys.stdout.flush()
    print("error: " + spoken(printable(" ".join(str(message).split()))), file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)


def say(*lines: str) -> None:
    """Print lines on standard output, with names in them escaped.

    Where nobody reads any more (a closed pipe) or nothing can be written, nothing is printed from
    then on, and the work goes on: its results are in files.
    """
    try:
        print(*(printable(spoken(line)) for line in lines), sep="\n", flush=True)
    except OSError:
        # Python itself writes once more, at its end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _parse_flags(argv: Sequence[str], prepare: Callable[[list[str]], list[str]]) -> list[str]:
    """Parse absl flags; whatever a flag or a --config override raises becomes one line."""
    # What --help prints first.
    sys.modules["__main__"].__doc__ = spoken(sys.modules["__main__"].__doc__ or "")
    try:
        # config_flags looks for its overrides in sys.argv and not in what is parsed.
        sys.argv = prepare([argv[0], *map(expanded, argv[1:])])
        return list(flags.FLAGS(sys.argv))
    except (flags.Error, UserError, AttributeError, KeyError, TypeError, ValueError, OSError) as e:
        fail(f"{e} (see --help)")
    except SystemExit:
        # Only --help and its kin end the process here, by absl with status 1.
        sys.exit(0)


def run(
    main: Callable[[list[str]], int | None],
    prepare: Callable[[list[str]], list[str]] = lambda argv: argv,
) -> NoReturn:
    """Run `main(argv)` as absl.app.run does; bad input ends in one line and status 2.

    argv[0] is the program, the rest are the positional arguments. `prepare` may change the command
    line before its flags are parsed. Bad input is a UserError, and what the operating system
    refuses: a file that cannot be read or written. With --verbosity=1 its traceback comes first.
    KeyboardInterrupt ends with the shell's 130 and no traceback.
    """
    # TensorFlow's notices on import say nothing that a user here can act on.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    set_flags()
    gc.set_threshold(NEW_OBJECTS)

    def guarded(argv: list[str]) -> int | None:
        # Libraries log their inner workings at INFO; --verbosity=0 brings them back.
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            return main(argv)
        except UserError as e:
            fail(e)
        except OSError as e:
            logging.debug("refused by the operating system", exc_info=True)
            fail(refused(e))
        except MemoryError as e:
            logging.debug("out of memory", exc_info=True)
            fail(f"out of memory: {e or 'less at a time is needed'}")
        except KeyboardInterrupt:
            _interrupted()

    with printable_streams():
        app.run(guarded, flags_parser=partial(_parse_flags, prepare=prepare))
    raise AssertionError("absl.app.run does not return")


def leave_at_interrupt() -> None:
    """Let SIGINT end this process at once, in one line and with 130, from now on.

    For commands that lose nothing, and stay for minutes in a compiler in C++, after which alone
    Python would look at the signal. A thread of its own hears of it by Python's descriptor.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.signal(signal.SIGINT, lambda *_: None)  # only then is the descriptor written to
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def leave() -> None:
        while signal.SIGINT not in os.read(heard, 64):
            pass
        _interrupted()

    threading.Thread(target=leave, name="interrupt", daemon=True).start()


def _interrupted() -> NoReturn:
    print("interrupted", file=sys.stderr)
    _leave(130)


def _leave(status: int) -> NoReturn:
    """End this process at once: threads of XLA that still compile would crash in its teardown."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(status)


def define_imports() -> flags.FlagHolder[list[str]]:
    """Define --imports, of commands that take no config; registry.import_parts takes its value."""
    return flags.DEFINE_list(
        "imports", [], "Modules that register sources, protocols, …, comma-separated."
    )


def define_on_error(help_text: str) -> flags.FlagHolder[str]:
    """Define --on_error and --on-error, "fail" or "skip", of commands that read images of people.

    help_text: what it is about: the things of which one that cannot be used ends the command.
    """
    holder = flags.DEFINE_enum("on_error", "fail", ["fail", "skip"], f"what {help_text} does")
    flags.DEFINE_alias("on-error", "on_error")
    return holder


def usage(form: str) -> str:
    """Return the line that says how this command is called; form: its arguments and main flags."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = spec.name.removesuffix(".__main__") if spec else ""
    program = f"python -m {module}" if module else Path(sys.argv[0]).name
    return f"usage: {program} {form}; --help lists all flags"


def positional(argv: Sequence[str], *names: str) -> list[str]:
    """Return the positional arguments `names`; UserError, with the usage, for another count."""
    given = list(argv[1:])
    if len(given) != len(names):
        raise UserError(
            f"expected {len(names)} arguments: {' '.join(names) or 'flags alone'}; "
            f"got {len(given)}: {' '.join(given) or 'none'}; {usage(' '.join([*names, '[FLAGS]']))}"
        )
    return given
