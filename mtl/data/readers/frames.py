"""Tables from Python: a pandas DataFrame, or NumPy arrays by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mtl.data.problems import DataError, Problems, located
from mtl.data.readers.cells import Markers, spelled
from mtl.data.readers.columns import Roles, build, choose, chosen_by
from mtl.data.readers.labels import ClassNames, class_names
from mtl.data.readers.maps import is_map
from mtl.data.readers.options import Labels, ReadOptions, reader
from mtl.data.table import Table
from mtl.inputs import by_name, each, leaves
from mtl.tasks import KINDS

Options = TypeVar("Options", bound=ReadOptions)


@reader(ReadOptions, without=("directory", "sha256", "max_bytes"))
def frame_table(frame: Any, options: ReadOptions) -> Table:
    """Return the table of a DataFrame.

    NaN, None, NaT and NA are missing; other markers only if ``missing`` declares them. A label column of pandas'
    ``category`` that is ordered keeps the order of its categories, which are its classes; of one that is not, the order
    says nothing (it may be that of the rows).

    Args:
      frame: the DataFrame; columns are named by texts.
      options: see ``ReadOptions``, given by name; the table's name is ``frame`` if they give none.

    Raises:
      DataError: for everything that is wrong, one sentence each with row and column.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "y": [0, 1, -1]})
    >>> frame_table(frame, "y", missing=[-1]).mask["y"]
    array([ True,  True, False])
    """
    options = options.named("frame")
    where = f'data "{options.name}"'
    roles, columns, options = read_frame(frame, options, where, lambda names: chosen_by(options, names))
    return build(
        where,
        roles,
        {column: columns[column] for column in roles.inputs},
        columns,
        Problems(),
        lambda row: f"row {row}",
        options,
    )


def read_frame(
    frame: Any, options: Options, where: str, choose_roles: Callable[[list[str]], Roles]
) -> tuple[Roles, dict[str, np.ndarray], Options]:
    """Return (roles, cells of each column that has one, options with the classes of labels that are ordered).

    Args:
      frame: the DataFrame.
      options: of its reader.
      where: what it is called in errors.
      choose_roles: from the names of the columns to their roles.

    Raises:
      DataError: for what is no DataFrame, columns that are not named by texts, and roles that cannot be.
    """
    import pandas as pd  # here: it takes 0.2 s to import, and not every study needs it

    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"{where}: a {type(frame).__name__}: must be a DataFrame")
    given = list(frame.columns)
    if not all(isinstance(n, str) for n in given):
        raise DataError(f"{where}: columns {given[:5]}: names must be texts")
    names = [spelled(n) or "" for n in given]
    with located(where):
        roles = choose_roles(names)
    if not len(frame):
        raise DataError(f"{where}: has no rows")
    declared = class_names(options.classes)
    columns = {column: frame.iloc[:, names.index(column)] for column in roles.all}
    for column, kind in roles.labels.items():
        dtype = columns[column].dtype
        ordered = isinstance(dtype, pd.CategoricalDtype) and dtype.ordered
        if ordered and column not in declared and not (kind and KINDS[kind].labels == "numbers"):
            declared[column] = class_names({column: list(dtype.categories)})[column]
    cells = {column: column_cells(values) for column, values in columns.items()}
    return roles, cells, dataclasses.replace(options, classes=declared)


def arrays_table(
    x: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    labels: Mapping[str, npt.ArrayLike],
    kinds: Labels = "*",
    groups: npt.ArrayLike | None = None,
    missing: Markers | str = (),
    classes: ClassNames = (),
    name: str = "arrays",
    where: str = "",
    about: str = "",
    vocabulary: int | Mapping[str, int] | None = None,
    part: npt.ArrayLike | None = None,
) -> Table:
    """Return the table of NumPy arrays.

    Args:
      x: inputs, [N, ...] numbers, or several leaves, ``{leaf: [N, ...]}``; pixels become [0, 1] as in ``make_table``.
      labels: ``{name: [N]}``, or [N, K] for the K tasks ``name_0``, ``name_1``, ...; or [N, height, width] for a dense
        task, whose class ids (integers) or numbers are at each position.
      kinds: ``{task: kind}`` or a list of ``task:kind`` for tasks whose kind is not to be inferred.
      groups: [N], equal for rows that no split may part.
      missing, classes: as in ``ReadOptions``.
      name: of the table.
      where: what to call the data in errors; ``data "name"`` if empty.
      about: what the data are.
      vocabulary: how many ids there are, where inputs are ids; as in ``make_table``.
      part: [N] texts, which rows are for training, validation and testing; see ``ReadOptions``.

    Raises:
      DataError: for everything that is wrong, one sentence each with row and task.

    >>> table = arrays_table(np.eye(3), {"y": [[0, 1], [1, 0], [1, 1]]})
    >>> [task.name for task in table.tasks], table.labels["y_1"]
    (['y_0', 'y_1'], array([1., 0., 1.], dtype=float32))
    """
    where = where or f'data "{name}"'
    problems = Problems()
    given = each(np.asarray, x)
    for leaf, array in by_name(given).items():
        what = f'inputs "{leaf}"' if leaf else "inputs"
        if array.ndim < 2 or array.size == 0 or array.dtype.kind not in "biuf":
            right = "must be numbers [N, ...] with a row and a feature or more"
            problems.add(f"{what}: {array.dtype} {array.shape}: {right}")
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = np.argwhere(~np.isfinite(array))
            problems.add(f"{what}, row {bad[0][0]}: {len(bad):,} values are not finite: must be finite")
    rows = len(np.atleast_1d(leaves(given)[0]))
    cells: dict[str, np.ndarray] = {}
    for given_name, values in labels.items():
        key, array = spelled(given_name) or given_name, np.asarray(values)
        whole = is_map(array, _kind_of(key, kinds))
        if array.ndim < 1 or len(array) != rows:
            problems.add(f'labels of "{key}": shape {array.shape}: must be one label (or one row of labels) a row of x')
        else:
            found = (
                {key: array} if array.ndim == 1 or whole else {f"{key}_{j}": column for j, column in enumerate(array.T)}
            )
            problems.add(f'labels: two are called "{min(twice)}"') if (twice := found.keys() & cells) else None
            cells |= found
    problems.stop(where)
    with located(where):
        chosen = choose([*cells, "x "], [*cells], inputs="x ").labels | _kinds(kinds, list(cells))
    beside = {role: np.asarray(given) for role, given in (("groups", groups), ("part", part)) if given is not None}
    for role, array in beside.items():
        if array.shape != (rows,):
            raise DataError(f"{where}, {role}: shape {array.shape}: must be ({rows},), one a row")
        cells[f"{role} "] = array  # the blank keeps it apart from a task of that name
    return build(
        where,
        Roles((), chosen, "groups " if groups is not None else "", part="part " if part is not None else ""),
        given,
        cells,
        problems,
        lambda row: f"row {row}",
        ReadOptions(labels=chosen, missing=missing, classes=classes, name=name, about=about),
        vocabulary=vocabulary,
    )


def _kind_of(name: str, kinds: Labels) -> str:
    """Return the kind that is declared for a name as it stands."""
    if isinstance(kinds, Mapping):
        return kinds.get(name, "")
    return next((k.removeprefix(f"{name}:") for k in kinds if k.startswith(f"{name}:")), "")


def _kinds(kinds: Labels, tasks: list[str]) -> dict[str, str]:
    return choose([*tasks, "x "], kinds if kinds != "*" else tasks, inputs="x ").labels


def column_cells(column: Any) -> np.ndarray:
    """Return a column as numbers if that is what it holds, and as objects with None where missing."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column.to_numpy()
    return column.astype(object).to_numpy()
