"""The answer to the notes: every study is in it, its links lead somewhere, and its numbers are those of its studies."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "experiments"
INDEX = (EXPERIMENTS / "README.md").read_text()
STUDIES = sorted(
    p.parent.name for p in EXPERIMENTS.glob("*/README.md") if (ROOT / f"configs/{p.parent.name}.py").is_file()
)
#: The claims, and what can be said of one.
ROWS = [line.split(" | ") for line in INDEX.splitlines() if re.match(r"\| (C\d+|–)", line)]
SAID = ("holds", "holds when", "refuted here", "open", "open, not run", "no experiment")
_INTERVAL = re.compile(r"[+−]\d+\.\d+ (?:points )?\[[^\]]+\]")


def test_every_claim_has_one_verdict_and_no_number_without_a_study():
    assert [row[0].strip("| ") for row in ROWS][:1] == ["C1"] and len(ROWS) >= 13
    for _, _, verdict, number, link in ROWS:
        assert any(verdict.strip("* ").startswith(said) for said in SAID), verdict
        assert ("](" in link) == bool(_INTERVAL.search(number)), number


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_is_in_the_index_and_has_what_a_study_has(study):
    text = (EXPERIMENTS / study / "README.md").read_text()
    assert f"({study}/README.md)" in INDEX
    for part in ("**Question.**", "**Design.**", f"configs/{study}.py", "scripts/reproduce"):
        assert part in text, part
    for figure in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (EXPERIMENTS / study / figure).is_file(), figure


def test_links_lead_somewhere_and_numbers_stand_in_the_study():
    for *_, number, link in ROWS:
        texts = [(EXPERIMENTS / to).read_text() for to in re.findall(r"\]\(([^)]+)\)", link)]
        flat = [
            " ".join(re.sub(r"^> ?", "", text, flags=re.MULTILINE).split()).replace(" points", "") for text in texts
        ]
        for interval in _INTERVAL.findall(number):
            assert any(interval.replace(" points", "") in text for text in flat), interval
