"""A mistake that the user can put right, and text that is safe to print."""

from collections.abc import Iterable
from unicodedata import category

LONGEST = 2_000  # characters of a line of a message; a value in it may have a million


class UserError(Exception):
    """A mistake or a circumstance that the user can put right.

    The message says what is wrong and what to do.

    Commands print the message as one line, then each of the details, if any, as a line of a list,
    and end with status 1. Any other exception is a bug of ours, with a traceback.
    """

    def __init__(self, message: str, details: Iterable[str] = ()):
        super().__init__(message)
        self.details = list(details)

    def __str__(self) -> str:
        lines = [str(self.args[0]), *self.details]
        return "\n  - ".join(_cut(printable(line)) for line in lines)


def _cut(line: str) -> str:
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"


def printable(text: str, keep: str = "") -> str:
    """The text with escapes for everything that a terminal would obey, not print.

    The characters in `keep` stay as they are.
    """
    if text.isprintable():
        return text
    escapes = {}
    for character in set(text):
        space = category(character) == "Zs"
        harmless = character.isprintable() or space or character in keep
        if not harmless:
            escapes[ord(character)] = character.encode("unicode_escape", "surrogatepass").decode()
    return text.translate(escapes)
