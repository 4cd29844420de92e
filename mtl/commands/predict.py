"""``mtl predict``: what trained networks say of new rows."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

from mtl.commands.display import error_line
from mtl.host.escape import escape

_EPILOG = """\
examples:
  mtl predict runs/pets new.csv -o out.csv                    the advised regime at the largest n, all its replicates
  mtl predict runs/pets new.csv --regime=scratch              another row of the table, printed
  mtl predict runs/pets/trials/0123456789abcdef new.csv -o out.csv     one trial

The rows of out.csv are those of new.csv. A task with classes has the likeliest class and a probability a class
(`ill=yes`), a regression its number; `… std` is the standard deviation over replicates. Labels may be absent; columns
that the model does not know are left alone.
Exit codes: 0 done, 2 the command or its input is wrong.
"""


def add_predict_command(commands: Any) -> None:
    """Add ``predict`` to the commands of the command line."""
    what = "Predict new rows by a study's advised networks, or by one trial's."
    predict = commands.add_parser(
        "predict", help=what, description=what, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    predict.add_argument("run", metavar="RUN", help="a study's work directory, or a trial's")
    predict.add_argument(
        "rows", metavar="FILE", help="a table as the one trained on, an NPZ file, a folder of pictures"
    )
    predict.add_argument("-o", "--out", metavar="FILE.csv", default="", help="where predictions go (default: printed)")
    predict.add_argument("--sweep", metavar="NAME", default="", help="of several (default: the first)")
    predict.add_argument("--regime", metavar="NAME", default="", help="another row than the one advised")


def predict_command(arguments: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Run ``mtl predict`` and return its exit code.

    Raises:
      StoreError: for a run without networks.
      CheckpointError: for a model that cannot be read.
      DataError: for rows that are not like those of the training.
    """
    from mtl.checkpoint import CheckpointError
    from mtl.host.files import FileError, write_atomically
    from mtl.report.advised import advised_trials
    from mtl.sweep.new_rows import about_model, file_rows

    if arguments.out and not Path(arguments.out).absolute().parent.is_dir():
        raise FileError(f"--out={arguments.out}: its folder does not exist")
    found = advised_trials(arguments.run, arguments.sweep, arguments.regime)
    first = next(iter(found.trials.values()))[0]
    about = about_model(first / "model.safetensors")
    if about is None:
        raise CheckpointError(f"{first}/model.safetensors holds no model of a trial")
    # Before JAX begins: what is wrong is said at once.
    rows = file_rows(arguments.rows, about["inputs"], about["config"]["data"])
    for sentence in rows.told:
        error_line(sentence)
    from mtl.sweep.replicates import load_replicates

    predicted = load_replicates(found.trials, found.recipe).predict(rows)
    text = io.StringIO()
    predicted.to_csv(text, index=False)
    if not arguments.out:
        print(escape(text.getvalue()), end="")
        return 0
    write_atomically(Path(arguments.out), text.getvalue().encode())
    print(f"{arguments.out}: {len(predicted):,} rows, by {found.recipe}", file=sys.stderr)
    return 0
