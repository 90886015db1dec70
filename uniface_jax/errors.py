"""One exception for bad input, the help for a missing extra, and the exit statuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

EXIT_STOPPED = 1  # of itself: starting it again would only repeat it
EXIT_BAD_INPUT = 2
EXIT_PREEMPTED = 75  # saved, the same command resumes; EX_TEMPFAIL of sysexits.h
EXIT_LOST = 76  # another process was lost, or nothing moved; the same command resumes


class UserError(ValueError):
    """Input that cannot be used: a config value, a file, a record, a workdir.

    The message is one line that names the culprit (file, key, index), the value found and what is
    allowed. Command lines print it as `error: …` and exit with status 2 (see cli.run).
    """


def refused(error: OSError) -> str:
    """Return what the operating system did not do, and for which file."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason


def install_command(extra: str) -> str:
    """Return the pip command that adds the extra (of pyproject.toml) to this installation."""
    try:
        package = metadata.distribution("uniface_jax").metadata["Name"]
    except metadata.PackageNotFoundError:  # a checkout that is run where it lies
        package = str(Path(__file__).resolve().parent.parent)
    return f"pip install '{package}[{extra}]'"


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turn the ModuleNotFoundError of an import that needs the extra `name` into a UserError.

    The error names the module that is missing and the pip command that installs it. A missing
    module of this package is no missing extra, and is raised as it is.
    """
    try:
        yield
    except ModuleNotFoundError as e:
        if e.name is None or e.name.partition(".")[0] == __name__.partition(".")[0]:
            raise
        raise UserError(f"{e.name} is not installed: {install_command(name)}") from e
