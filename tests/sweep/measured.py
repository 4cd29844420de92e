"""Reads files, each in a process of its own, and says what it came to and how much memory that took: a JSON line each.

Run as ``python measured.py FOLDER``; what a file is tells its ending.
"""

import json
import os
import pathlib
import resource
import sys
import warnings

from mtl.checkpoint import CheckpointError, load_tree, load_weights, sha256_of
from mtl.data import DataError
from mtl.data.readers.arff import arff_table
from mtl.data.readers.csv_file import csv_table
from mtl.data.readers.images import images_table
from mtl.data.readers.mixed import mixed_table
from mtl.data.readers.npz import npz_table
from mtl.data.readers.parquet import parquet_table
from mtl.host.files import FileError

READ = {
    ".arff": lambda path: arff_table(str(path), "y"),
    ".csv": lambda path: csv_table(str(path), "y"),
    ".gz": lambda path: csv_table(str(path), "y", max_bytes=10**8),
    ".images": lambda path: images_table(str(path), "y", (4, 4)),
    ".npz": lambda path: npz_table(str(path), "y", max_bytes=10**8),
    ".parquet": lambda path: parquet_table(str(path), "y", max_bytes=10**8),
    ".safetensors": load_tree,
    ".tsv": lambda path: mixed_table(str(path), "y", max_bytes=10**8),
    ".orbax": lambda path: (sha256_of(path), load_weights(path)),
}
MOST_SECONDS = 60


def measured(path):
    """Print what reading a file came to, and the bytes by which memory grew at its fullest."""
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        READ[path.suffix](path)
        how, said = "read", ""
    except (CheckpointError, DataError, FileError) as error:
        how, said = "refused", str(error)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(json.dumps([path.name, how, said, grown]), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    import pyarrow.parquet  # noqa: F401  # Before memory is counted.
    from PIL import Image  # noqa: F401

    for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        if file.suffix in READ:
            child = os.fork()
            if not child:
                code = 1
                try:
                    measured(file)
                    code = 0
                finally:
                    os._exit(code)
            os.waitpid(child, 0)
