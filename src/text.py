"""Text of unknown origin, made fit for a terminal."""

import unicodedata

# control, format (which may reverse the writing), bytes that are not UTF-8, line and paragraph separators
UNFIT = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str, keep: str = "") -> str:
    """The text with what a terminal would obey, not show, written as escapes, except the characters `keep`."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in UNFIT and c not in keep else c
        for c in text
    )
