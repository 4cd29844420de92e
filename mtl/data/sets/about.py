"""Where data come from: citation, licence, how to get them, and the sha256 of their files."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class About:
    """What a table has to say about its origin; ``str`` of it is the table's ``about``.

    Args:
      title: what the data are, one sentence.
      citation: authors, year, where published.
      licence: of the data, as far as it is stated; who states it.
      obtained: how to get the files.
      sha256: pairs (file name, SHA-256) of known files.
      caveats: what conclusions must not ignore.

    >>> print(About("Coins.", "Nobody 2026.", "CC0.", "Throw one.", caveats="Small."))
    Coins. Source: Nobody 2026. Licence: CC0. Obtained: Throw one. Small.
    """

    title: str
    citation: str
    licence: str
    obtained: str
    sha256: tuple[tuple[str, str], ...] = ()
    caveats: str = ""

    def __str__(self) -> str:
        """Return one paragraph."""
        files = f" Files: {', '.join(f'{name} (sha256 {digest[:12]}…)' for name, digest in self.sha256)}."
        return (
            f"{self.title} Source: {self.citation} Licence: {self.licence} Obtained: {self.obtained}"
            f"{files if self.sha256 else ''}{' ' + self.caveats if self.caveats else ''}"
        )
