"""Rows that come after training, as the inputs of a model: its file says how they are read. JAX is not needed."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl.checkpoint import CheckpointError, load_about
from mtl.data.extras import needs
from mtl.data.paths import read, resolve
from mtl.data.picture import FORMATS, Picture, holds_pixels, unit
from mtl.data.problems import DataError, Problems, located
from mtl.data.readers.cells import Missing, spelled
from mtl.data.readers.columns import Roles
from mtl.data.readers.encoder import Column, from_json, read_later
from mtl.data.readers.frames import column_cells
from mtl.data.readers.labels import read_input
from mtl.data.readers.mixed import MixedOptions, read_sheet
from mtl.data.readers.molecules import MoleculeOptions, molecule_inputs, parse
from mtl.data.readers.npz import array_names, read_npz
from mtl.host.files import DamagedError
from mtl.sweep.documents import FORMAT
from mtl.sweep.schema import MODEL, check

#: What a model's file says of its inputs: see ``mtl.data.scaling.described``.
Facts = Mapping[str, Any]

#: Kinds of columns that name a row: they are no inputs, and stand beside its predictions.
_NAMING = ("id",)

#: Data whose inputs are made of SMILES.
_MOLECULES = ("molecules", "tox21", "toxcast")


@dataclasses.dataclass(frozen=True)
class NewRows:
    """Inputs of rows to predict.

    Attributes:
      x: as ``Trained.predict`` takes them.
      names: columns that name the rows, ``{column: [n]}``.
      told: what was done with cells that training never saw, a sentence each.
    """

    x: Any
    names: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    told: tuple[str, ...] = ()


def about_model(file: Path) -> dict[str, Any] | None:
    """Return what a trial's model says of its config and its inputs; nothing if the file is none of ours.

    Raises:
      CheckpointError: if it is ours and damaged, of another format, or something else than a model.
    """
    about = load_about(file)
    if "format" not in about:
        return None
    if about["format"] != FORMAT:
        raise CheckpointError(
            f"{file} is of format {about['format']}, and this version of mtl reads {FORMAT}: another version wrote it"
        )
    try:
        check(about, MODEL)
    except DamagedError as error:
        raise CheckpointError(f"{file} holds no model of a trial: it {error}") from None
    return about


def frame_rows(frame: Any, facts: Facts, missing: Any = ()) -> NewRows:
    """Return the inputs of a DataFrame's rows; its columns are found by name, others are left alone.

    Args:
      frame: the DataFrame.
      facts: of the model's inputs, whose columns have names.
      missing: markers that mean missing, where the model was trained on a table of numbers.

    Raises:
      DataError: for columns that are not there, and cells that cannot be what they should.
    """
    cells = {str(name): column_cells(frame.iloc[:, i]) for i, name in enumerate(frame.columns)}
    return _rows(cells, facts, missing, lambda row: f"row {row}")


def file_rows(path: str | Path, facts: Facts, data: Mapping[str, Any]) -> NewRows:
    """Return the inputs of a file's rows.

    A table (.csv, .tsv, .txt, .xlsx, .parquet) for a model whose inputs are columns; an NPZ file for one whose inputs
    are arrays; a table with a column of paths, or a folder, for one of pictures.

    Args:
      path: of the file.
      facts: of the model's inputs.
      data: the section ``data`` of the config that the model was trained by.

    Raises:
      DataError: for a file that cannot be read, is of another sort, or lacks what the model needs.
    """
    full, options = resolve(str(path)), data.get("options", {})
    where = f'file "{full.name}"'
    with located(where):
        if "picture" in facts["reading"]:
            return _pictures(full, facts["reading"]["picture"], str(options.get("file_column", "file")))
        if data.get("name") in _MOLECULES and full.suffix != ".npz":
            return _molecules(full, options)
        if full.suffix == ".npz":
            return NewRows(_arrays(full, facts, str(options.get("inputs", "x"))))
        if "encoder" not in facts["reading"] and not _names(facts):
            raise DataError("the model was trained on inputs without names: must be an NPZ file")
        sheet = read_sheet(full, MixedOptions(labels=()), _all)
        found = _rows(sheet.cells, facts, options.get("missing", ()), sheet.at)
        return dataclasses.replace(found, told=(*sheet.told, *found.told))


def _all(names: list[str]) -> Roles:
    """Return roles by which every column is read as it stands."""
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f'column "{twice[0]}" is there twice: names must differ')
    return Roles(tuple(names), {})


def _names(facts: Facts) -> list[str]:
    """Return the names of the columns that a model of numbers takes: without those that say what is missing."""
    columns = facts["columns"]
    return list(columns[: len(columns) - len(facts["gaps"])]) if isinstance(columns, list) else []


def _rows(cells: Mapping[str, np.ndarray], facts: Facts, missing: Any, at: Callable[[int], str]) -> NewRows:
    """Return the inputs that some columns are."""
    reading, gaps, told = facts.get("reading") or {}, facts["gaps"], list[str]()
    naming: dict[str, np.ndarray] = {}
    if "encoder" in reading:
        columns, markers = _encoder(facts)
        x, told = read_later(columns, cells, markers, at)
        naming = {c.name: cells[c.name] for c in columns if c.kind in _NAMING and c.name in cells}
    else:
        by_spelling = {spelled(name) or name: values for name, values in cells.items()}
        wanted, problems = _names(facts), Problems()
        if absent := [name for name in wanted if name not in by_spelling]:
            shown = ", ".join(wanted[:20]) + (", …" if len(wanted) > 20 else "")
            raise DataError(f'has no column "{absent[0]}": must have {shown}, as in training')
        own = [read_input(name, by_spelling[name], problems, at, Missing(missing)) for name in wanted]
        problems.stop()
        x = np.stack(own, axis=1)
    return NewRows(np.concatenate([x, np.isnan(x[:, gaps])], axis=1), naming, tuple(told))


def _encoder(facts: Facts) -> tuple[Sequence[Column], Missing]:
    """Return the encoder of a model's inputs, and what means missing.

    Raises:
      DataError: if its file holds none that can be used.
    """
    reading, shape, gaps = facts["reading"], facts["shape"], facts["gaps"]
    try:
        columns, markers = from_json(reading["encoder"]), Missing(reading.get("missing", ()))
        width = sum(len(column.features) for column in columns)
        if [width + len(gaps)] != list(shape) or not all(0 <= i < width for i in gaps):
            raise ValueError(f"it gives {width} and {len(gaps)} inputs, and must give {shape}")
    except (ValueError, TypeError) as error:
        raise DataError(f"the model's file holds no encoder that can be used: {str(error)[:200]}") from None
    return columns, markers


def _arrays(path: Path, facts: Facts, inputs: str) -> Any:
    """Return the inputs that an NPZ file holds, under the name that the training's file had them by."""
    data, where = read(path), f'file "{path.name}"'
    leaves = facts["shape"] if isinstance(facts["shape"], Mapping) else {}
    names = {leaf: f"{inputs}/{leaf}" for leaf in leaves} or {"": inputs}
    if absent := [name for name in names.values() if name not in array_names(data, where)]:
        raise DataError(f'has no array "{absent[0]}": must have {", ".join(names.values())}, as in training')
    arrays = read_npz(data, where, list(names.values()))
    found = {leaf: unit(a) if holds_pixels(a := arrays[name]) else a for leaf, name in names.items()}
    return found if leaves else found[""]


def _molecules(path: Path, options: Mapping[str, Any]) -> NewRows:
    """Return molecules, as training had them; their SMILES stand beside what is predicted of them."""
    own = {k: v for k, v in options.items() if k in ("smiles", "features", "bins", "length", "radius")}
    asked = MoleculeOptions(**own)
    sheet = read_sheet(path, MixedOptions(labels=()), _all)
    if asked.smiles not in sheet.cells:
        raise DataError(f'has no column "{asked.smiles}" of SMILES: must have one, as in training')
    texts, problems = [spelled(cell) or "" for cell in sheet.cells[asked.smiles]], Problems()
    molecules, bad = list[object](), [row for row, text in enumerate(texts) if not text]
    if asked.features != "ngrams":
        needs("rdkit", "chem", "Fingerprints of molecules")
        molecules, bad = parse(texts)
    for row in bad:
        problems.add(f'{sheet.at(row)}, column "{asked.smiles}": "{texts[row]}" cannot be read: must be a SMILES')
    problems.stop()
    return NewRows(molecule_inputs(texts, molecules, asked), {asked.smiles: np.array(texts, dtype=object)})


def _pictures(path: Path, facts: Mapping[str, Any], file_column: str) -> NewRows:
    """Return pictures: those of a folder in order of their names, or those that a table names."""
    try:
        picture = Picture(**facts)
    except TypeError:
        raise DataError("the model's file does not say how pictures are read") from None
    if path.is_dir():
        endings = (*(f".{name.lower()}" for name in FORMATS), ".jpg", ".tif", ".pgm", ".pbm")
        files = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.suffix.lower() in endings)
        root = path
    else:
        cells = read_sheet(path, MixedOptions(labels=()), _all).cells
        if file_column not in cells:
            raise DataError(f'has no column "{file_column}" of paths: must have one, as in training')
        files, root = [str(cell).strip() for cell in cells[file_column]], path.parent
    problems, found = Problems(), []
    for file in files:
        try:
            with warnings.catch_warnings(action="ignore"):  # Of metadata that is not used.
                found.append(picture.read(resolve(file, str(root))))
        except DataError as error:
            problems.add(str(error))
    problems.stop()
    if not found:
        raise DataError(f"holds no picture: must have {', '.join(FORMATS)} files")
    return NewRows(np.stack(found), {file_column: np.array(files, dtype=object)})


def task_columns(task: str, kind: str, classes: Sequence[str]) -> list[str]:
    """Return what the outputs of a task are called: of a binary one its positive class, of others each.

    >>> task_columns("ill", "binary", ("no", "yes")), task_columns("pet", "ids", ("cat", "dog"))
    (['ill=yes'], ['pet=cat', 'pet=dog'])
    >>> task_columns("dose", "numbers", ())
    ['dose']
    """
    if kind == "numbers":
        return [task]
    return [f"{task}={name}" for name in (classes[1:] if kind == "binary" else classes)]
