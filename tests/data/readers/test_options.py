"""Options of readers: declared once, told once, and taken by name."""

import dataclasses
import inspect
import re

import pytest

from mtl import data
from mtl.data.readers.options import ReadOptions, reader


def own(options):
    return set(options.__annotations__)


@pytest.mark.parametrize("options", [ReadOptions, *ReadOptions.__subclasses__()])
def test_every_option_is_told_where_it_is_declared(options):
    told = set(re.findall(r"^  (\w+): ", inspect.getdoc(options), re.MULTILINE))
    assert own(options) <= told <= {field.name for field in dataclasses.fields(options)}


def test_a_reader_takes_what_its_data_can_have():
    for name, without in (
        ("csv", set()),
        ("parquet", set()),
        ("npz", {"ignore", "missing_inputs"}),
        ("arff", {"inputs", "groups", "part", "missing", "classes"}),
        ("images", {"inputs", "missing_inputs"}),
        ("molecules", {"inputs", "missing_inputs", "classes"}),
        ("tfds", {"ignore", "missing_inputs", "part", "sha256"}),
    ):
        assert own(ReadOptions) - inspect.signature(data.SOURCES[name]).parameters.keys() == without


def test_a_reader_is_given_its_options_whole():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(ReadOptions):
        """Options of a reader, one of them needed."""

        size: int
        groups: str = "person"
        depth: int = 3

    given = []

    @reader(Mine, without=("ignore",))
    def mine(path: str, options: Mine) -> data.Table:
        """Keep what it is given."""
        given.append((path, options))
        return data.digits_table()

    mine("a.bin", "y", 4, inputs="b*")
    mine(path="a.bin", labels="y", size=4, inputs="b*")
    assert given[0] == given[1] == ("a.bin", Mine(labels="y", size=4, inputs="b*"))
    assert given[0][1].groups == "person"
    for wrong in (
        {},
        {"labels": "y"},
        {"labels": "y", "size": 4, "ignore": "a"},
        {"labels": "y", "size": 4, "dept": 1},
    ):
        with pytest.raises(TypeError):
            mine("a.bin", **wrong)
