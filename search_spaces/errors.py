"""The one kind of error that is told in words, without a traceback and with exit code 2."""


class UserError(Exception):
    """What the user can fix: the text says what is wrong, where, and how to fix it."""
