"""``scripts/bench``: measures the table of ratios and prints it, row by row."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from benchmarks.rows import ROWS, Run, peaks
from benchmarks.show import as_json, markdown, text


def main() -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Ratios of times, ours against others'.")
    parser.add_argument("--only", metavar="NAME[,NAME]", default="", help=f"of: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds of each comparison (default: 9)")
    parser.add_argument("--threads", type=int, choices=(1, 2), help="measure steps with so many only (default: both)")
    parser.add_argument(
        "--markdown", metavar="FILE", nargs="?", const="-", help="print the table as Markdown, or write it"
    )
    parser.add_argument("--json", metavar="FILE", nargs="?", const="-", help="print all figures as JSON, or write them")
    arguments = parser.parse_args()
    wanted = [name.strip() for name in arguments.only.split(",") if name.strip()] or list(ROWS)
    for name in wanted:
        if name not in ROWS:
            parser.error(f"--only={name}: there are {', '.join(ROWS)}")
    if arguments.rounds < 1:
        parser.error(f"--rounds={arguments.rounds}: must be at least 1")
    if importlib.util.find_spec("torch") is None:
        print("scripts/bench needs PyTorch: install the extra with pip install -e '.[bench]'", file=sys.stderr)
        return 2
    os.environ["JAX_PLATFORMS"] = "cpu"
    cores = os.cpu_count() or 1
    threads = [n for n in ([arguments.threads] if arguments.threads else (1, 2)) if n <= cores]
    compared = {"mlp", "cnn", "resnet", "vit"} & set(wanted)
    run = Run(arguments.rounds, threads, peaks(threads) if compared else {})
    say = sys.stderr if "-" in (arguments.markdown, arguments.json) else sys.stdout
    rows = []
    for name in wanted:
        for row in ROWS[name](run):
            print(text(row), file=say, flush=True)
            rows.append(row)
    for where, content in ((arguments.markdown, markdown(rows, run)), (arguments.json, as_json(rows, run, sys.argv))):
        if where == "-":
            print(content, end="")
        elif where:
            Path(where).write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
