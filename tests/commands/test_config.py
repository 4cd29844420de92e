"""``mtl config``: every field as it is declared, what a file sets, what can be named, and what that takes."""

import re
from pathlib import Path

import pytest

from mtl.cli import main
from mtl.config.declaration import FIELDS, SECTIONS
from mtl.models import MODELS
from mtl.regimes import REGIMES, Phase
from mtl.tasks import KINDS

FILE = """
from mtl.config import default
import flax.linen as nn
import mtl.models

@mtl.models.register("of_the_file")
class OfTheFile(nn.Module):
    '''Nothing.

    Attributes:
      width: of what there is.
    '''

    width: int = 7

def get_config():
    c = default()
    c.name = "mine"
    c.data.target_size = 50
    c.model.name = "of_the_file"
    c.model.options.width = 9
    c.report.question = "What \\x1b[2J?"
    return c
"""


@pytest.fixture
def prints(capsys):
    """Run a command that must succeed; return the lines that it prints, of at most 80 columns."""

    def run(*arguments):
        assert main(["config", *map(str, arguments)]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        lines = said.out.splitlines()
        assert max(map(len, lines)) <= 80
        return lines

    return run


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    yield path
    MODELS.pop("of_the_file", None)


def fields_of(lines):
    """Return {path: value} of the fields in printed lines, and the paths that are marked."""
    found = [match for line in lines if (match := re.match(r"([ *]) ([\w.]+) = (.+?)(  |$)", line))]
    return {m[2]: m[3] for m in found}, [m[2] for m in found if m[1] == "*"]


def flat_text(lines):
    return " ".join(" ".join(lines).split())


def test_every_field_is_printed_with_its_default_and_meaning(prints):
    lines = prints()
    values, marked = fields_of(lines)
    assert sorted(values) == sorted(FIELDS) and not marked
    text = flat_text(lines)
    for field in FIELDS.values():
        assert " ".join(field.meaning.replace("``", "").split()) in text
    for section in filter(None, SECTIONS):
        assert any(line.startswith(f"{section}: ") for line in lines)
    assert (values["data.target_size"], values["regime"], values["init.fresh"]) == ("100", '"finetune"', "()")
    assert "data.val_fraction = 0.2 a number in (0, 1)" in text
    assert 'select = "best" "last" or "best"' in text
    assert "seed = 0 a whole number from 0 to 4294967295" in text


def test_a_section_and_a_field(prints):
    assert list(fields_of(prints("optimizer"))[0]) == [path for path in FIELDS if path.startswith("optimizer.")]
    assert list(fields_of(prints("data.target_size"))[0]) == ["data.target_size"]


def test_what_a_file_sets_is_marked(prints, file):
    lines = prints(file)
    values, marked = fields_of(lines)
    assert sorted(values) == sorted(FIELDS)
    assert sorted(marked) == ["data.target_size", "model.name", "model.options", "name", "report.question"]
    assert values["data.target_size"] == "50"
    assert "n: present target labels, validation included. (default: 100)" in flat_text(lines)
    assert "\x1b" not in "".join(lines)
    assert list(fields_of(prints(file, "data"))[0]) == [path for path in FIELDS if path.startswith("data.")]
    assert fields_of(prints(file, "lr"))[1] == []
    assert fields_of(prints(file, "lr", "--config.lr=0.5")) == ({"lr": "0.5"}, ["lr"])


@pytest.mark.parametrize(("field", "names"), [("model.name", MODELS), ("regime", REGIMES), ("metric", KINDS)])
def test_names_are_listed_with_a_line_of_each(prints, field, names):
    lines = prints(field)
    ours = [name for name, of in names.items() if getattr(of, "__module__", "mtl").startswith("mtl.")]
    assert ours
    for name in ours:  # Other tests register names that nobody says a word of.
        (line,) = [line for line in lines if re.match(rf"  {name}  +\S", line)]
        assert len(line) > len(name) + 6


def test_the_options_of_what_is_named_are_those_of_its_signature(prints, file):
    values, _ = fields_of(prints("model.options"))
    assert values == {"model.options": "{}", "model.options.hidden": "(64, 64)", "model.options.dropout": "0.0"}
    assert "model.options.patch" in fields_of(prints("model.options", "--config.model.name=vit"))[0]
    lines = prints(file, "model.options")
    assert fields_of(lines) == (
        {"model.options": "{'width': 9}", "model.options.width": "9"},
        ["model.options", "model.options.width"],
    )
    assert "of what there is. (default: 7)" in flat_text(lines)
    assert list(fields_of(prints("model.options.hidden"))[0]) == ["model.options.hidden"]
    assert "optimizer.options.b1 = 0.9 a number in [0, 1)" in flat_text(prints("optimizer.options"))
    assert "data.options.path = … a text" in flat_text(prints("data.options", "--config.data.name=csv"))
    assert "names or patterns of input columns" in flat_text(prints("data.options", "--config.data.name=csv"))
    assert "data.options.builder" in flat_text(prints("data.options", "--config.data.name=tfds:mnist"))


def test_a_phase_and_the_options_of_a_task_are_told(prints):
    values, _ = fields_of(prints("regimes"))
    assert list(values) == ["regimes", *(f"phase.{name}" for name in vars(Phase()))]
    assert "task_options.TASK.focal_gamma" in fields_of(prints("task_options"))[0]
    assert list(fields_of(prints("data.hide_rates.even"))[0]) == ["data.hide_rates"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["data.targt_size"], ["config.data.targt_size does not exist", '"data.target_size"']),
        (["optimiser"], ["config.optimiser does not exist", '"optimizer"']),
        (["model.options.hiden"], ["config.model.options.hiden does not exist", '"hidden"']),
        (["regimes.mine.shar"], ['"share"']),
        (["model.options", "--config.model.name=vitt"], ['config.model.name = "vitt"', '"vit"']),
        (["nowhere.py"], ["there is no file nowhere.py"]),
        (["lr", "--lr"], ["unknown argument --lr"]),
    ],
)
def test_what_does_not_exist_is_suggested(arguments, parts, capsys):
    assert main(["config", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("mtl: ") and said.err.count("\n") == 1
    for part in parts:
        assert part in said.err


def test_a_config_of_another_codebase_is_refused(tmp_path, capsys):
    (tmp_path / "foreign.py").write_text("import ml_collections\nget_config = ml_collections.ConfigDict\n")
    assert main(["config", str(tmp_path / "foreign.py")]) == 2
    assert "must begin with mtl.config.default()" in capsys.readouterr().err


def test_help_has_examples_that_run(capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(SystemExit) as end:
        main(["config", "--help"])
    assert end.value.code == 0
    examples = re.findall(r"^  mtl (config.*?)(?:  |$)", capsys.readouterr().out, re.MULTILINE)
    assert len(examples) == 8
    for example in examples:
        assert main(example.split()) == 0
