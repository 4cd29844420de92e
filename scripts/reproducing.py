"""Published tables against what the code prints; see ``scripts/reproduce``."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from mtl.report.analysis import Analysis
from mtl.report.publish import analyses_of, publish_figures
from mtl.report.show import tables_of
from mtl.report.tables import to_markdown
from mtl.sweep.store import Workdir

ROOT = Path(__file__).parent.parent

#: A table: its title, its rows and its footnotes; and a quotation of a verdict.
_TABLE = re.compile(
    r"^\*\*(?P<title>[^*\n]+ / [^*\n]+)\*\*\n\n(?P<rows>(?:\|.*\n)+)(?:\n(?:- .*\n(?:  .*\n)*)+)?", re.MULTILINE
)
_QUOTE = re.compile(r"(?:^>.*\n)+", re.MULTILINE)
_NUMBER = re.compile(r"[−+-]?\d[\d,]*(?:\.\d+)?")
_MADE = re.compile(r"<!-- printed by (.*) -->")


def made(workdir: Path) -> str:
    """Return what a study's numbers depend on beside the code, as its results tell: versions and the processor."""
    found = set()
    study = Workdir(workdir)
    for told in map(study.result, study.hashes()):
        versions = ", ".join(f"{name} {told['versions'][name]}" for name in ("jax", "jaxlib", "flax", "numpy"))
        found.add(f"{versions} on {' '.join(told['cpu'].split())}")
    return "; ".join(sorted(found))


def printed(workdir: Path) -> tuple[dict[str, str], dict[str, list[str]], list[Analysis]]:
    """Return ({title: Markdown table}, {sweep: sentences that are said of it}, analyses) of a work directory."""
    analyses = analyses_of(Workdir(workdir))
    tables = {table.title: to_markdown(table) for _, table in tables_of(analyses)}
    said = {a.scores.sweep: [*a.verdict, *a.warnings] for a in analyses}
    said |= {f"{a.scores.sweep}: details": list(a.details) for a in analyses}  # May be quoted, too.
    return tables, said, analyses


def differences(published: str, now: str, exact: bool) -> list[str]:
    """Return a sentence for each row of a published table that is not what is printed now, and for each new one.

    Training times are not compared: they are the machine's, and of what else ran there.

    Args:
      published, now: the table's rows.
      exact: whether numbers must agree to one unit of their last digit, and marks wholly; else means must lie in the
        intervals of now.
    """
    then = {name: line for line in published.splitlines() if (name := line.split("|")[1].strip())}
    rows = {name: line for line in now.splitlines() if (name := line.split("|")[1].strip())}
    found = [f'row "{name}" is not printed any more' for name in then if name not in rows]
    found += [f'row "{name}" is printed and was not published' for name in rows if name not in then]
    titles = now.splitlines()[0].split("|")[2:-1]
    for name in then:
        if set(name) <= {":", "-"} or name not in rows:
            continue
        beside = zip(titles, then[name].split("|")[2:-1], rows[name].split("|")[2:-1], strict=False)
        cells = [(a, b) for title, a, b in beside if title.strip() != "training time"]
        changed = [(a.strip(), b.strip()) for a, b in cells if not (_agree if exact else _within)(a, b)]
        found += [f"{name}: {a} was published, and {b} is printed" for a, b in changed]
        if then[name].count("|") != rows[name].count("|"):
            found.append(f"{name}: {then[name].strip()} was published, and {rows[name].strip()} is printed")
    return found


def _agree(a: str, b: str) -> bool:
    """Return whether two cells have the same marks, and numbers to one unit of their last digit."""
    if _NUMBER.sub("#", a).split() != _NUMBER.sub("#", b).split():
        return False
    pairs = zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True)
    return all(abs(_value(x) - _value(y)) <= 1.01 * 10 ** -len(x.partition(".")[2]) for x, y in pairs)


def _within(a: str, b: str) -> bool:
    """Return whether a cell's mean lies in the interval of another; cells without an interval are not compared."""
    mean, interval = _NUMBER.search(a), re.search(rf"\[({_NUMBER.pattern}), ({_NUMBER.pattern})\]", b)
    return mean is None or interval is None or _value(interval[1]) <= _value(mean[0]) <= _value(interval[2])


def _value(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def compare(text: str, tables: dict[str, str], verdicts: dict[str, list[str]], exact: bool) -> list[str]:
    """Return a sentence for each thing that a README publishes and the code does not print."""
    found = []
    for block in _TABLE.finditer(text):
        title = block["title"]
        if title not in tables:
            found.append(f'table "{title}" is not printed any more')
            continue
        now = _TABLE.search(tables[title])
        assert now is not None, tables[title]
        found += [f"{title}: {said}" for said in differences(block["rows"], now["rows"], exact)]
    if exact:
        said = " ".join(" ".join(v) for v in verdicts.values())
        for quote in _QUOTE.findall(text):
            words = " ".join(" ".join(line.lstrip("> ") for line in quote.splitlines()).split())
            for sentence in re.split(r"(?<=[.;]) (?=\S)|…", words):
                if sentence.strip(" ;.") and sentence.strip(" ;.") not in " ".join(said.split()):
                    found.append(f'"{textwrap.shorten(sentence, 100)}" is quoted, and the verdict does not say it')
    return found


def rewritten(text: str, tables: dict[str, str], verdicts: dict[str, list[str]]) -> str:
    """Return a README with what is printed now in place of what it publishes: tables, and each sweep's verdict."""
    at, sweep, out = 0, "", []
    places = sorted([*_TABLE.finditer(text), *_QUOTE.finditer(text)], key=lambda m: m.start())
    for place in places:
        out.append(text[at : place.start()])
        if place.re is _TABLE:
            sweep = place["title"].split(" / ")[1].split(":")[0]
            out.append(tables.get(place["title"], place[0]).rstrip("\n") + "\n")
        else:
            said = verdicts.get(sweep, [])
            lines = [textwrap.fill(s, 118, break_long_words=False, break_on_hyphens=False) for s in said]
            quoted = "\n\n".join(lines).splitlines()
            out.append("\n".join(f"> {line}".rstrip() for line in quoted) + "\n")
        at = place.end()
    return "".join([*out, text[at:]])


def main() -> int:
    """Run, compare and, if asked, write."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce", description=__doc__)
    parser.add_argument("studies", nargs="*", metavar="STUDY")
    parser.add_argument("--write", action="store_true", help="publish what is printed now")
    parser.add_argument("--workdir", default="runs/reproduce", help="where studies are run (default: runs/reproduce)")
    arguments = parser.parse_args()
    known = [p.parent.name for p in sorted((ROOT / "experiments").glob("*/README.md")) if _TABLE.search(p.read_text())]
    studies = arguments.studies or known
    if unknown := sorted(set(studies) - set(known)):
        print(f"scripts/reproduce: no study {', '.join(unknown)}: must be among {', '.join(known)}", file=sys.stderr)
        return 2
    wrong = 0
    for study in studies:
        workdir, readme = Path(arguments.workdir) / study, ROOT / "experiments" / study / "README.md"
        config = f"--config={ROOT / 'configs' / f'{study}.py'}"
        command = [sys.executable, "-m", "mtl.cli", "sweep", config, "--sweep=all", f"--workdir={workdir}"]
        if code := subprocess.run(command, check=False, cwd=ROOT).returncode:
            if code in (130, 143):  # Interrupted: the same command goes on.
                return code
            print(f"{study}: did not run to its end")
            wrong += 1
            continue
        tables, verdicts, analyses = printed(workdir)
        text, front = readme.read_text(), ROOT / "README.md"
        stamp = _MADE.search(text)
        exact = stamp is not None and stamp[1] == made(workdir)
        if arguments.write:
            text = rewritten(_MADE.sub("", text).rstrip("\n") + "\n", tables, verdicts)
            readme.write_text(f"{text}\n<!-- printed by {made(workdir)} -->\n")
            # Of the project's own page the tables; what it quotes of a verdict is chosen by hand.
            front.write_text(_TABLE.sub(lambda m, now=tables: now.get(m["title"], m[0]), front.read_text()))
            for analysis in analyses:
                for figure in publish_figures(Workdir(workdir), analysis):
                    if (kept := readme.parent / figure.name).is_file():
                        kept.write_bytes(figure.read_bytes())
            print(f"{study}: written")
            continue
        said = compare(text, tables, verdicts, exact)
        if f"**{study} / " in front.read_text():
            said += [f"README.md: {sentence}" for sentence in compare(front.read_text(), tables, verdicts, exact)]
        print(
            f"{study}: {'to rounding' if exact else 'within the intervals (other versions or another CPU)'}: ", end=""
        )
        print(f"{len(said)} differences" if said else "as published")
        for sentence in said:
            print(f"  {sentence}")
        wrong += len(said)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
