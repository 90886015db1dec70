"""The one exception for bad input: what a user gave, and what would have been allowed."""


class UserError(ValueError):
    """Input that cannot be used: a config value, a file, a record, a workdir.

    The message is one line that names the culprit (file, key, index), the value found and what is
    allowed. Command lines print it as `error: …` and exit with status 2 (see cli.run).
    """
