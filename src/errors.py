"""The one exception class of this project for what a user can put right."""


class UserError(Exception):
    """A mistake or a circumstance that the user can put right; the message says what is wrong and what to do.

    Commands print it as one line and end with a non-zero status. Any other exception is a bug of ours and shows
    its traceback.
    """
