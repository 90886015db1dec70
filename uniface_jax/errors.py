"""The one exception for bad input, and the exit statuses of the command lines."""

EXIT_STOPPED = 1  # of itself: starting it again would only repeat it
EXIT_BAD_INPUT = 2
EXIT_PREEMPTED = 75  # saved, the same command goes on; EX_TEMPFAIL of sysexits.h
EXIT_LOST = 76  # another process was lost, or nothing moved; the same command goes on


class UserError(ValueError):
    """Input that cannot be used: a config value, a file, a record, a workdir.

    The message is one line that names the culprit (file, key, index), the value found and what is
    allowed. Command lines print it as `error: …` and exit with status 2 (see cli.run).
    """
