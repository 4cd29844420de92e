"""Published tables are what the code prints; a changed number, row or sentence is told."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REPRODUCING = runpy.run_path(str(ROOT / "scripts" / "reproducing.py"))
compare, differences, rewritten = (REPRODUCING[name] for name in ("compare", "differences", "rewritten"))

README = (ROOT / "experiments" / "latent" / "README.md").read_text()
DIGITS = (ROOT / "experiments" / "digits" / "README.md").read_text()
#: What the README publishes, as if it had been printed now.
TABLES = {m["title"]: m[0] for m in REPRODUCING["_TABLE"].finditer(README)}
VERDICT = {"rho_1": [" ".join(line.lstrip("> ") for line in README.splitlines() if line.startswith(">"))]}


def test_every_published_table_is_found():
    assert len(TABLES) == 4
    assert sum(title.endswith("in points of accuracy") for title in TABLES) == 3


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_published_is_what_is_printed(exact):
    assert compare(README, TABLES, VERDICT, exact) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("| scratch | 56.8 [55.1, 58.4]", "| scratch | 57.2 [55.1, 58.4]", "scratch: 57.2 [55.1, 58.4] was published"),
        ("▲ +11.6 [8.7, 14.5]", "≈ +11.6 [8.7, 14.5]", "linear_probe: ≈ +11.6 [8.7, 14.5] was published, and ▲"),
        (
            "| linear_probe | **68.4**†",
            "| linear_probe | 68.4†",
            "linear_probe: 68.4† [65.2, 71.4] was published, and **68.4**†",
        ),
        ("| finetune | 68.0†", "| fine_tune | 68.0†", 'row "fine_tune" is not printed any more'),
        ("latent / rho_1: accuracy", "latent / rho_2: accuracy", 'table "latent / rho_2: accuracy'),
        (
            "> with 50 labels: +13.9 points",
            "> with 50 labels: +15.6 points",
            "is quoted, and the verdict does not say it",
        ),
    ],
)
def test_what_differs_is_told(old, new, said):
    assert old in README
    found = compare(README.replace(old, new, 1), TABLES, VERDICT, True)
    assert any(said in sentence for sentence in found), found


def test_elsewhere_a_mean_must_lie_in_the_interval_of_now():
    row = "| lp_ft | 70.0 [65.0, 75.0] | ▲ +4.0 [1.0, 6.0] |\n"
    assert differences(row.replace("70.0 [", "74.0 ["), row, False) == []
    (said,) = differences(row.replace("70.0 [", "76.0 ["), row, False)
    assert said == "lp_ft: 76.0 [65.0, 75.0] was published, and 70.0 [65.0, 75.0] is printed"


def test_each_number_is_compared_by_its_own_digits_and_new_rows_are_told():
    row = "| lp_ft | 92.7 | 4,320 |\n"
    assert differences(row, row, True) == []
    assert differences(row, row.replace("92.7", "92.8"), True) == []
    assert differences(row, row.replace("92.7", "93.6"), True) == ["lp_ft: 92.7 was published, and 93.6 is printed"]
    assert differences(row, row + "| new | 1.0 | 2 |\n", True) == ['row "new" is printed and was not published']


def test_training_times_are_the_machines():
    table = "| regime | examples | training time |\n|:--|--:|--:|\n| scratch | 9,600 | {} |\n"
    assert differences(table.format("43.1 ms [38 ms, 49 ms]"), table.format("4.9 ms [4 ms, 6 ms]"), True) == []
    more = table.replace("9,600", "9,700")
    assert differences(table.format("1 s"), more.format("1 s"), True) == [
        "scratch: 9,600 was published, and 9,700 is printed"
    ]


def test_the_front_page_shows_what_the_study_publishes():
    study = {m["title"]: m["rows"] for m in REPRODUCING["_TABLE"].finditer(DIGITS)}
    (shown,) = REPRODUCING["_TABLE"].finditer((ROOT / "README.md").read_text())
    assert shown["rows"] == study[shown["title"]]
    said = {"s": [" ".join(line.lstrip("> ") for line in DIGITS.splitlines() if line.startswith(">"))]}
    assert compare((ROOT / "README.md").read_text(), {shown["title"]: shown[0]}, said, True) == []


def test_writing_puts_what_is_printed_now():
    now = {title: re.sub(r"56\.8", "57.7", text) for title, text in TABLES.items()}
    text = rewritten(README, now, {s: ["Nothing gains."] for s in ("rho_1", "rho_half", "rho_0")})
    assert "57.7 [55.1, 58.4]" in text and "56.8 [55.1, 58.4]" not in text
    assert text.count("> Nothing gains.") == 3
    assert "## Verdict" in text and "**Limits.**" in text


def test_a_study_that_cannot_run_is_told_and_the_others_run(monkeypatch, capsys):
    ran, code = [], 2

    def run(command, **options):
        ran.append(next(Path(word).stem for word in command if word.startswith("--config=")))
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["reproduce", "digits", "latent"])
    assert REPRODUCING["main"]() == 1 and ran == ["digits", "latent"]
    assert capsys.readouterr().out.splitlines() == [f"{study}: did not run to its end" for study in ran]
    code = 130
    assert REPRODUCING["main"]() == 130 and ran == ["digits", "latent", "digits"]


@pytest.mark.slow
def test_the_latent_study_is_reproduced(tmp_path):
    """On the locked versions and the kind of CPU that the README names to rounding, else within the intervals."""
    command = [sys.executable, str(ROOT / "scripts" / "reproducing.py"), "latent", f"--workdir={tmp_path}"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert "as published" in run.stdout.splitlines()[-1]
