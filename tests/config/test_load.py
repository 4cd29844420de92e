"""Mistakes in a config file are one short sentence with the line, however the line is written."""

import pytest

from mtl.config import ConfigError, file_of, load


def refusal(tmp_path, line, before=""):
    file = tmp_path / "bad.py"
    file.write_text(
        f"from mtl.config import default\ndef get_config():\n    c = default()\n    {line}\n    return c\n{before}"
    )
    with pytest.raises(ConfigError) as error:
        load(str(file))
    told = str(error.value)
    assert "\n" not in told
    assert len(told) - len(str(file)) < 400
    assert told.startswith(f"{file}, line ")
    return told.removeprefix(f"{file}, ")


@pytest.mark.parametrize(
    ("line", "wrong", "right"),
    [
        ('c["lrr"] = 1', "lrr", "lr"),
        ('c.data["targt_size"] = 1', "data.targt_size", "data.target_size"),
        ('c["data.targt_size"] = 1', "data.targt_size", "data.target_size"),
        ('c.lr = c["data.targt_size"]', "data.targt_size", "data.target_size"),
        ('c.update({"lrr": 1})', "lrr", "lr"),
        ('c.update({"data": {"targt_size": 1}})', "data.targt_size", "data.target_size"),
        ('c.update_from_flattened_dict({"data.targt_size": 1})', "data.targt_size", "data.target_size"),
        ("c.lr, c.lrr = 1.0, 2", "lrr", "lr"),
        ('setattr(c, "lrr", 1)', "lrr", "lr"),
        ("if True: c.lrr = 1", "lrr", "lr"),
        ("c.lrr += 1", "lrr", "lr"),
        ("c.lr = c.lrr", "lrr", "lr"),
        ("del c.lrr", "lrr", "lr"),
        ("c.target.total_step = 1", "target.total_step", "target.total_steps"),
        ("c.datta.name = 'x'", "datta", "data"),
        ("default().data.targt_size = 1", "data.targt_size", "data.target_size"),
    ],
)
def test_a_typo_is_told(tmp_path, line, wrong, right):
    assert refusal(tmp_path, line) == f'line 4: config.{wrong} does not exist; did you mean "{right}"?'


def test_a_typo_in_a_function_is_told_with_its_own_line(tmp_path):
    told = refusal(tmp_path, "shorten(c.source)", "\n\ndef shorten(section):\n    section.total_step = 1\n")
    assert told == 'line 9: config.source.total_step does not exist; did you mean "source.total_steps"?'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("c.data = 1", "config.data is a section; its fields: data."),
        ("c.zzz = 1", "config.zzz does not exist; there are: "),
        ("c.loss.zzz = 1", "config.loss.zzz does not exist; there are: loss.denominator, loss.weights"),
        ("c.lr = 'fast'", "config.lr = 'fast': must be of type float, like 0.001"),
        ("c.batch_size = 1.5", "config.batch_size = 1.5: must be of type int, like 32"),
        ("c.lr = c.model.options.width", "config.model.options.width is read and was never set"),
        ("default().source.total_step = 1", 'the config has no key total_step: did you mean "total_steps"?'),
        ("{}['lr']", "KeyError: 'lr'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_other_mistakes_are_told(tmp_path, line, told):
    assert refusal(tmp_path, line).startswith(f"line 4: {told}")


def test_a_typo_in_a_config_of_another_codebase_gets_its_own_keys(tmp_path):
    line = "import ml_collections; ml_collections.ConfigDict({'rate': 1}).rte"
    assert refusal(tmp_path, line) == 'line 4: the config has no key rte: did you mean "rate"? Valid: rate'


def test_folders_and_arguments_with_colons(tmp_path):
    folder = tmp_path / "a:b.py:c"
    folder.mkdir()
    file = folder / "x.py"
    file.write_text(
        "from mtl.config import default\ndef get_config(arg=''):\n    c = default()\n    c.name = arg\n    return c\n"
    )
    for arg in ("", "wide", "b:c", "d.py:e"):
        spec = f"{file}:{arg}" if arg else str(file)
        assert file_of(spec) == (str(file), arg)
        assert load(spec)[0].name == arg
