"""A wrong command line, and what commands that take data have in common."""

from __future__ import annotations

import argparse


class UsageError(ValueError):
    """A wrong command line, or call: one sentence."""


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says of which data a study is to a command's parser."""
    parser.add_argument("data", metavar="FILE|NAME", help="a table (CSV, Parquet, …), or a name of `mtl data list`")
    parser.add_argument("options", metavar="OPTION=VALUE", nargs="*", help="of its reader, such as ignore=id missing=?")
    parser.add_argument("--target", required=True, metavar="COLUMN", help="what to predict; COLUMN:KIND says its kind")
    parser.add_argument("--also", default="", metavar="COLUMN[,COLUMN…]", help="other tasks; what is left is input")
    parser.add_argument("--name", default="", help="of the study (default: FILE_COLUMN)")
