"""A mistake that the user can put right, and text that is safe to print."""

from collections.abc import Iterable
from unicodedata import category


class UserError(Exception):
    """A mistake or a circumstance that the user can put right: the message says what is wrong and
    what to do.

    Commands print the message as one line, then each of the details, if any, as a line of a list,
    and end with status 1. Any other exception is a bug of ours, with a traceback.
    """

    def __init__(self, message: str, details: Iterable[str] = ()):
        super().__init__(message)
        self.details = list(details)

    def __str__(self) -> str:
        lines = [str(self.args[0]), *self.details]
        return "\n  - ".join(printable(line) for line in lines)


def printable(text: str, keep: str = "") -> str:
    """The text with escapes for everything that a terminal would obey, not print; `keep` stays as
    it is."""
    escapes = {}
    for character in set(text):
        harmless = (
            character.isprintable() or category(character) == "Zs" or character in keep
        )  # Zs: spaces
        if not harmless:
            escapes[ord(character)] = character.encode("unicode_escape", "surrogatepass").decode()
    return text.translate(escapes)
