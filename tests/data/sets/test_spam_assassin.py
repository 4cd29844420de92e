"""SpamAssassin's mails: written ones, and the real ones where they are installed."""

import email.message

import numpy as np
import pytest

from mtl.data import DataError, load, token_ids
from mtl.data.duplicates import copies
from mtl.data.sets.spam_assassin import FOLDERS, LISTS


def mail(text, subject="Hello", html="", **headers):
    made = email.message.EmailMessage()
    made["Subject"] = subject
    for name, value in headers.items():
        made[name.replace("_", "-")] = value
    made.set_content(text) if text else None
    made.add_alternative(html, subtype="html") if text and html else None
    made.set_content(html, subtype="html") if html and not text else None
    return made.as_bytes()


def words(text, length=12):
    return token_ids([text], length=length)[0]


@pytest.fixture
def written(tmp_path):
    """One mail of each kind, and more of the first."""
    mails = {
        "easy-ham-1": [
            mail("One two\n> quoted\nOn Friday somebody wrote:\nthree\n-- \nsignature", In_Reply_To="<1@a>"),
            mail("one TWO 5 three", subject="Re: [ILUG] Fwd: Hello", List_Id="Irish users <ilug.linux.ie>"),
        ],
        "easy-ham-2": [mail("Words\n_______________________________________________\nlist", List_Id="<exmh-users.a>")],
        "hard-ham-1": [mail("", html="<style>p {}</style><p class='x'>Caf&eacute; <b>now</b><!-- no --></p>")],
        "spam-1": [mail("plain", html="<p>rich</p>")],
        "spam-2": [b"Subject: =?bogus?q?x?=\nContent-Type: text/plain; charset=nonsense\n\nraw \xe9\xff"],
    }
    for kind, some in mails.items():
        (tmp_path / kind).mkdir()
        for i, data in enumerate(some):
            (tmp_path / kind / f"{i}.txt").write_bytes(data)
    return tmp_path


def test_what_a_mail_s_words_and_labels_are(written):
    table = load("spam_assassin", folder=str(written), any_files=True, length=12)
    right = ["hello one two three", "hello one two 5 three", "hello words", "hello café now", "hello plain"]
    np.testing.assert_array_equal(table.x[:5], [words(text) for text in right])
    assert table.vocabulary == 2**14 and table.x.dtype == np.int32
    labels = {name: np.where(table.mask[name], table.labels[name], -1).tolist() for name in table.labels}
    none = -1
    assert labels["spam"] == [0, 0, 0, 0, 1, 1]
    assert labels["hard"] == [0, 0, 0, 1, none, none]
    assert labels["html"] == [0, 0, 0, 1, 1, 0]
    assert labels["reply"] == [1, 0, 0, 0, 0, 0]
    names = list(LISTS)
    assert labels["list"] == [none, names.index("ilug"), names.index("exmh"), none, none, none]
    assert table.groups[0] == table.groups[1]
    assert len(np.unique(table.groups)) == 5


def test_what_is_refused(written, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"easy-ham-1\": has 2 mails \(\*.txt\): must have 2,500"):
        load("spam_assassin", folder=str(written))
    monkeypatch.setattr("mtl.data.sets.spam_assassin.FOLDERS", {kind: 1 + (kind == "easy-ham-1") for kind in FOLDERS})
    with pytest.raises(DataError, match=r"sha256 [0-9a-f]{64} of all mails: must be bd75ed3"):
        load("spam_assassin", folder=str(written))
    monkeypatch.setenv("MTL_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"none of .* holds its files: give folder=\. npm install"):
        load("spam_assassin")


def real(**options):
    try:
        return load("spam_assassin", **options)
    except DataError as error:
        if "none of" in str(error):
            pytest.skip(str(error))
        raise


def test_the_real_mails():
    table = real()
    assert len(table) == 6046 and table.x.shape == (6046, 200)
    assert {name: int(table.labels[name].sum()) for name in ("spam", "hard", "html", "reply")} == {
        "spam": 1896, "hard": 250, "html": 1208, "reply": 2184,
    }  # fmt: skip
    first = copies(table)
    np.testing.assert_array_equal(table.groups[first], table.groups)
    assert (table.x[:, 0] != 0).all()


def test_scikit_learn_tells_spam_from_the_same_words():
    """Bags of these ids tell spam, hard ham and lists with logistic regression; shuffled labels they do not."""
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    table = real()
    rows = np.random.default_rng(0).permutation(len(table))
    at, each = np.repeat(np.arange(len(table)), table.x.shape[1]), table.x.ravel()
    bags = csr_matrix((each > 0, (at, each)), shape=(len(table), table.vocabulary)).astype(np.float64)
    bags.data[:] = 1
    fresh = ~np.isin(table.groups, table.groups[rows[:3000]])

    def accuracy(task, labels):
        train = rows[:3000][table.mask[task][rows[:3000]]]
        test = np.flatnonzero(fresh & table.mask[task])
        return LogisticRegression(max_iter=300).fit(bags[train], labels[train]).score(bags[test], labels[test])

    assert accuracy("spam", table.labels["spam"]) > 0.95
    assert accuracy("list", table.labels["list"]) > 0.85
    assert accuracy("spam", np.random.default_rng(1).permutation(table.labels["spam"])) < 0.72
