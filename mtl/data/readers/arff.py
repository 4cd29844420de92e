"""ARFF files as Mulan and MEKA write them: dense or sparse rows, many labels."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np

from mtl.data.paths import MAX_BYTES, read, resolve, text_of
from mtl.data.problems import DataError, Problems, located
from mtl.data.readers.cells import number, spelled
from mtl.data.readers.columns import build, choose
from mtl.data.readers.options import Labels, ReadOptions, reader
from mtl.data.table import Table
from mtl.tasks import KINDS

_WORD = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
_ATTRIBUTE = re.compile(rf"@attribute\s+({_WORD}|\S+)\s+(.+)", re.IGNORECASE)
_CELL = re.compile(rf"\s*({_WORD}|[^,'\"]*)\s*(,|$)")
_PAIR = re.compile(rf"\s*(\d{{1,9}})\s+({_WORD}|[^,\s'\"]+)\s*(,|$)")
_COUNT = re.compile(r"-C\s+(-?\d{1,6})(?=$|[\s'\":])")


@dataclasses.dataclass(frozen=True)
class Attribute:
    """A column of an ARFF file: its name, and its values if it is nominal.

    Args:
      name: of the column.
      kind: ``numeric``, ``nominal``, ``string`` or ``date``.
      values: of a nominal column, in the order declared.
    """

    name: str
    kind: str
    values: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether it is nominal with the values 0 and 1."""
        return set(self.values) == {"0", "1"}


@dataclasses.dataclass(frozen=True)
class Arff:
    """An ARFF file.

    Args:
      relation: its name, which in MEKA's files holds options.
      attributes: the columns, A of them.
      cells: [N, A] float64, NaN where missing; a nominal cell is the index of its value, or 0 and 1
        themselves.
      lines: [N], the line of each row.
    """

    relation: str
    attributes: tuple[Attribute, ...]
    cells: np.ndarray
    lines: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArffOptions(ReadOptions):
    """Options of ``arff_table``.

    Args:
      labels: as in ``ReadOptions``; if empty, the default, those of ``xml``, or of ``-C n``.
      xml: path of Mulan's list of labels; empty for none.
    """

    labels: Labels = ()
    xml: str = ""


@reader(ArffOptions, without=("inputs", "groups", "part", "missing", "classes"))
def arff_table(path: str, options: ArffOptions) -> Table:
    """Return the table of an ARFF file (or .arff.gz); "?" is missing, as the format has it.

    Labels are those of ``labels``; if that is empty, those of Mulan's XML file; if there is none, those that
    MEKA's ``-C n`` in ``@relation`` says: the first n attributes, or the last −n. Nominal labels are binary or
    multiclass in the order of their declaration, numeric ones are regression unless ``labels`` says
    otherwise. Nominal inputs become 0 and 1: one column for two values, one for each value for more. Texts and dates
    must be among the attributes that ``ignore`` names.

    Args:
      path: of the file, inside the data directory.
      options: see ``ArffOptions``; given by name.

    Returns:
      The table; inputs [N, columns].

    Raises:
      DataError: for everything that is wrong, one sentence each with file, line and column.

    Source: the format is Weka's (I. H. Witten and E. Frank, Data Mining, 2005, section 2.4), the list of labels
    Mulan's (G. Tsoumakas et al. 2011, JMLR 12, 2411-2414), ``-C`` MEKA's (J. Read et al. 2016, JMLR 17(21)).
    """
    full, max_bytes = resolve(path, options.directory), options.max_bytes
    where = f'file "{full.name}"'
    problems = Problems()
    arff = read_arff(text_of(read(full, options.sha256, max_bytes), full.name), where, problems, max_bytes)
    names = [a.name for a in arff.attributes]
    with located(where):
        listed = xml_labels(options.xml, options.directory) if options.xml and not options.labels else []
        labels = options.labels or listed or _counted(arff.relation, names)
        roles = choose(names, labels, ignore=options.ignore)
    column = {a.name: (a, arff.cells[:, i]) for i, a in enumerate(arff.attributes)}
    cells, kinds, classes = {}, {}, {}
    for label, kind in roles.labels.items():
        attribute, values = column[label]
        cells[label] = values
        kinds[label] = kind or {"numeric": "regression"}.get(attribute.kind, "")
        if attribute.kind == "nominal" and not attribute.plain:
            names_of = np.array([*attribute.values, None], dtype=object)
            cells[label] = names_of[np.where(np.isnan(values), len(attribute.values), values).astype(int)]
            if not (kind and KINDS[kind].labels == "numbers"):
                classes[label] = attribute.values
    inputs: dict[str, np.ndarray] = {}
    wide = sum(len(a.values) if len(a.values) > 2 else 1 for a, _ in (column[key] for key in roles.inputs))
    if 8 * wide * len(arff.cells) > max_bytes:
        raise DataError(
            f"{where}: {len(arff.cells):,} rows of {wide:,} inputs, one for each value of a nominal attribute: must be "
            f"at most max_bytes = {max_bytes:,}: ignore some attributes, with ignore="
        )
    for key in roles.inputs:
        attribute, values = column[key]
        if attribute.kind in ("string", "date"):
            problems.add(f'attribute "{key}": is a {attribute.kind}: must be ignored, with ignore=')
        elif len(attribute.values) > 2:
            for index, value in enumerate(attribute.values):
                if (title := f"{key}={value}") in column or title in inputs:
                    problems.add(f'attribute "{key}": its value "{value}" would be an input "{title}", which is there')
                inputs[title] = np.where(np.isnan(values), np.nan, values == index)
        else:
            inputs[key] = values
    return build(
        where,
        dataclasses.replace(roles, labels=kinds),
        inputs,
        cells,
        problems,
        lambda row: f"line {arff.lines[row]}",
        dataclasses.replace(options.named(full.name.removesuffix(".gz").removesuffix(".arff")), classes=classes),
    )


def read_arff(text: str, where: str, problems: Problems, max_bytes: int = MAX_BYTES) -> Arff:
    """Read an ARFF file, noting rows and cells that cannot be.

    Args:
      text: of the file.
      where: what to call it.
      problems: where to note what is wrong with rows; a damaged header is raised at once.
      max_bytes: the most its cells may hold in memory.

    Raises:
      DataError: for a header that cannot be read, a file without rows, and one too large.

    >>> text = "@relation r\\n@attribute a numeric\\n@attribute b {x,y}\\n@data\\n1.5,y\\n{0 2}\\n"
    >>> read_arff(text, "here", Problems()).cells
    array([[1.5, 1. ],
           [2. , 0. ]])
    """
    lines = re.split(r"\r\n|\r|\n", text)  # To `splitlines`, rarer characters of a value are ends of lines too.
    relation, attributes, start = _header(lines, where)
    rows = [(n, line) for n, line in enumerate(lines[start:], start + 1) if line.strip() and line.lstrip()[0] != "%"]
    if not rows:
        raise DataError(f"{where}: has no row under @data: must have at least one")
    if 8 * len(rows) * len(attributes) > max_bytes:
        raise DataError(
            f"{where}: {len(rows):,} rows of {len(attributes):,} attributes: their cells must be at most "
            f"max_bytes = {max_bytes:,}"
        )
    readers = [_reader(a) for a in attributes]
    # What a sparse row leaves out is a number's 0 and a nominal attribute's first value.
    first = [float(a.values[0]) if a.kind == "nominal" and a.plain else 0.0 for a in attributes]
    cells, kept = np.tile(first, (len(rows), 1)), np.ones(len(rows), dtype=bool)
    for i, (line, row) in enumerate(rows):
        pairs = _cells(row.strip(), len(attributes))
        if isinstance(pairs, str):
            problems.add(f"line {line}: {pairs}")
            kept[i] = False
            continue
        for column, cell in pairs:
            value = readers[column](cell)
            if value is None:
                attribute = attributes[column]
                right = f"one of {', '.join(attribute.values[:8])}" if attribute.values else "a finite number"
                problems.add(f'line {line}, column "{attribute.name}": "{cell}": must be {right}, or ? (missing)')
            else:
                cells[i, column] = value
    if not kept.any():
        problems.stop(where)
    return Arff(relation, tuple(attributes), cells[kept], np.array([n for n, _ in rows])[kept])


def _header(lines: list[str], where: str) -> tuple[str, list[Attribute], int]:
    """Return (relation, attributes, number of lines up to and with @data)."""
    problems, relation, attributes = Problems(), "", []
    for n, raw in enumerate(lines, 1):
        line = raw.strip()
        word = line.split(None, 1)[0].lower() if line else ""
        if not line or line[0] == "%":
            continue
        if word == "@relation":
            relation = line[len(word) :].strip()
        elif word == "@attribute":
            found = _ATTRIBUTE.fullmatch(line)
            attribute = _attribute(spelled(_unquoted(found[1])) or "", found[2].strip()) if found else None
            if attribute is None:
                problems.add(f"{where}, line {n}: no attribute: must be @attribute, a name and a type")
            else:
                attributes.append(attribute)
        elif word == "@data":
            if not attributes:
                problems.add(f"{where}, line {n}: @data before any @attribute")
            problems.stop()
            return relation, attributes, n
        else:
            problems.add(f'{where}, line {n}: "{line[:40]}": must be @relation, @attribute, @data or a comment')
    problems.add(f"{where}: has no @data")
    problems.stop()
    raise AssertionError("not reached")


def _attribute(name: str, kind: str) -> Attribute | None:
    word = kind.split(None, 1)[0].lower()
    if kind.startswith("{") and kind.endswith("}"):
        cells = _dense(kind[1:-1])
        values = tuple(spelled(c) or "" for c in cells or ())
        return Attribute(name, "nominal", values) if values and len(set(values)) == len(values) else None
    if word in ("numeric", "real", "integer"):
        return Attribute(name, "numeric")
    return Attribute(name, word) if word in ("string", "date") else None


def _reader(attribute: Attribute) -> Callable[[str], float | None]:
    """Return the function from a cell to its number: NaN if missing, None if it cannot be."""
    if attribute.kind == "nominal":
        plain = attribute.plain
        index = {v: float(v) if plain else float(i) for i, v in enumerate(attribute.values)}
        return lambda cell: math.nan if cell == "?" else index.get(spelled(cell) or "")
    if attribute.kind != "numeric":
        return lambda cell: math.nan

    def read_number(cell: str) -> float | None:
        value = math.nan if cell == "?" else number(cell or "?")
        return value if value is None or cell == "?" or math.isfinite(value) else None

    return read_number


def _cells(row: str, width: int) -> list[tuple[int, str]] | str:
    """Return the (column, cell) pairs of a row, or what is wrong with it; a sparse row leaves out zeros."""
    if row.startswith("{"):
        if not row.endswith("}"):
            return "a sparse row without its closing brace"
        pairs, position, body = [], 0, row[1:-1].strip()
        while position < len(body):
            found = _PAIR.match(body, position)
            if found is None:
                return f'"{body[position : position + 20]}": a sparse row holds pairs of an index and a value'
            pairs.append((int(found[1]), _unquoted(found[2])))
            position = found.end()
        indices = [i for i, _ in pairs]
        if indices and (max(indices) >= width or len(set(indices)) < len(indices)):
            return f"index {max(indices)}: must be at most {width - 1}, each once"
        return pairs
    cells = _dense(row)
    if cells is None:
        return "an unclosed quote, or text beside a quoted cell"
    if len(cells) != width:
        return f"{len(cells)} cell{'s' if len(cells) != 1 else ''}: must be {width}, one an attribute"
    return list(enumerate(cells))


def _dense(row: str) -> list[str] | None:
    """Return the cells of a row, or None if its quotes do not match."""
    if "'" not in row and '"' not in row:
        return [cell.strip() for cell in row.split(",")]
    cells, position = [], 0
    while True:
        found = _CELL.match(row, position)
        if found is None:
            return None
        cells.append(_unquoted(found[1].strip()))
        position = found.end()
        if found[2] == "":
            return cells


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if len(word) > 1 and word[0] in "'\"" and word[-1] == word[0] else word


def _counted(relation: str, names: list[str]) -> list[str]:
    """Return the labels that MEKA's ``-C n`` counts: the first n attributes, or the last −n."""
    found = _COUNT.search(relation)
    if found is None:
        raise DataError("labels: not given: name them, or Mulan's file with xml=; @relation has no -C n")
    count = int(found[1])
    if not 0 < abs(count) < len(names):
        raise DataError(f"@relation says -C {count}: must be from 1 to {len(names) - 1}, or minus that")
    return names[:count] if count > 0 else names[count:]


def xml_labels(path: str, directory: str = "") -> list[str]:
    """Return the names in Mulan's XML list of labels, in order; a hierarchy's labels count each.

    Args:
      path: of the file.
      directory: the data directory.

    Raises:
      DataError: for what is no such list, or declares entities.
    """
    full = resolve(path, directory)
    where = f'file "{full.name}"'
    text = text_of(read(full, max_bytes=2**24), full.name)
    if "<!" in text.replace("<!--", ""):
        raise DataError(f"{where}: declares a document type: must be a plain list of labels")
    try:
        root = ElementTree.fromstring(text.encode())
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{where}: damaged or truncated XML ({error})") from None
    names = [spelled(e.get("name", "")) or "" for e in root.iter() if e.tag.rpartition("}")[2] == "label"]
    if not names or not all(names):
        raise DataError(f'{where}: has {len(names)} labels: must have at least one, each <label name="...">')
    return names
