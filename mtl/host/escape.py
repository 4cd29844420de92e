"""Text from outside, made fit to be shown."""

from __future__ import annotations

import unicodedata

# Two that scripts and emoji are joined with, and a place where a word may break: they move nothing.
_HARMLESS = "\n\t\u00ad\u200c\u200d"


def escape(text: str) -> str:
    """Return a text with what a terminal would obey in place of showing it spelled out.

    Those are control characters (they clear the screen, rename the window, overwrite what stands there), characters
    that turn the direction of writing around, and halves of characters. Ends of lines stay.

    >>> escape("a\\x1b[2J"), escape("na\\u00efve"), escape("x\\u202egpj.exe")
    ('a\\\\x1b[2J', 'naïve', 'x\\\\u202egpj.exe')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or not _is_obeyed(c) else c.encode("unicode_escape").decode() for c in text)


def _is_obeyed(character: str) -> bool:
    return character not in _HARMLESS and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
