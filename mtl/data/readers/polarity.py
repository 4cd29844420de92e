"""Which of two words says that something is so: ``ja`` of ja and nein, ``ill`` of ill and healthy."""

from __future__ import annotations

from collections.abc import Sequence

from mtl.data.readers.cells import folded

# (negative, positive), in lower case; only pairs of which nobody doubts which is which.
_PAIRS = (
    ("no", "yes"), ("n", "y"), ("false", "true"), ("f", "t"), ("off", "on"), ("0", "1"), ("nein", "ja"), ("nee", "ja"),
    ("nej", "ja"), ("nei", "ja"), ("non", "oui"), ("no", "sí"), ("no", "si"), ("não", "sim"), ("nie", "tak"),
    ("ne", "ano"), ("ei", "kyllä"), ("nem", "igen"), ("falsch", "wahr"), ("faux", "vrai"), ("falso", "verdadero"),
    ("healthy", "ill"), ("healthy", "sick"), ("healthy", "diseased"), ("well", "ill"), ("gesund", "krank"),
    ("sain", "malade"), ("benign", "malignant"), ("negative", "positive"), ("neg", "pos"), ("-", "+"),
    ("negativ", "positiv"), ("normal", "abnormal"), ("inactive", "active"), ("control", "case"), ("absent", "present"),
    ("ham", "spam"), ("failure", "success"), ("fail", "pass"), ("alive", "dead"), ("survived", "died"),
)  # fmt: skip
_ORDER = {frozenset(pair): pair for pair in _PAIRS}


def ordered(names: Sequence[str]) -> tuple[str, ...]:
    """Return two words as (negative, positive) where they are a known pair; nothing of any others.

    >>> ordered(["Ja", "Nein"]), ordered(["healthy", "ill"]), ordered(["cat", "dog"])
    (('Nein', 'Ja'), ('healthy', 'ill'), ())
    """
    by_word = {folded(name): name for name in names} if len(names) == 2 else {}
    pair = _ORDER.get(frozenset(by_word))
    return tuple(by_word[word] for word in pair) if pair else ()
