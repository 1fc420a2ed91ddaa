"""The one exception that speaks to a user."""


class UserError(Exception):
    """Something the user can fix: one line with what is wrong, where, and what to do. Shown without a traceback."""
