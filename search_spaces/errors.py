"""The error of a user's mistake: printed as a message, without a traceback, with exit code 2."""


class UserError(Exception):
    """What the user can fix: the text says what is wrong, where, and how to fix it."""
