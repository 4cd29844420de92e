"""What a config file adds to the code: every edit that can change a number counts, and no other."""

import ast
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mtl
from mtl.config import ConfigError, load
from mtl.sweep import fingerprint
from mtl.sweep.fingerprint import NOT_COMPUTING, code_of
from mtl.sweep.sources import Sources, digest_of, sources_of

CONFIG = '''
"""A study."""
import numpy as np
import mtl.models
from mtl.config import default
from mtl.models import MLP
from mtl.sweep import product, sweep

WIDTH = 3
RATES = tuple(float(rate) for rate in np.logspace(-3, -1, 3))
SEEDS = range(3)


def regimes():
    return ["scratch"]


def hidden(width):
    """Return the widths."""
    return (width, 2 * WIDTH)


@mtl.models.register("mine")
def mine(width=4):
    # As narrow as can be.
    return MLP(hidden(width))


def get_config():
    c = default()
    c.lr = RATES[0]
    c.model.options = {"width": 3}
    return c


def sweep_s():
    """?"""
    return product(sweep("regime", regimes()), sweep("seed", SEEDS))
'''

#: Edits of the config that decide no number of a trial that is there already.
HARMLESS = {
    "a comment": ("# As narrow as can be.", "# Narrow."),
    "a docstring of the file": ('"""A study."""', '"""A study of mine."""'),
    "a docstring of a function": ('"""Return the widths."""', '"""Widths."""'),
    "no docstring": ('    """Return the widths."""\n', ""),
    "layout": ("MLP(hidden(width))", "MLP(\n        hidden( width ),\n    )"),
    "another way to write a number": ("WIDTH = 3", "WIDTH = 0x3"),
    "more replicates": ("range(3)", "range(6)"),
    "more rates": ("-1, 3)", "-1, 5)"),
    "a constant that nobody uses": ("SEEDS =", "MORE = range(9)\nSEEDS ="),
    "a regime more": ('["scratch"]', '["scratch", "finetune"]'),
    "a sweep more": ("def sweep_s", 'def sweep_t():\n    return sweep("lr", (1e-3,))\n\n\ndef sweep_s'),
    "another base config": ('{"width": 3}', '{"width": 7}'),
    "an import that the sweep needs": ("import mtl.models\n", "import itertools\nimport mtl.models\n"),
    "a constant of the base config": ("    c.lr = RATES[0]", "    c.lr = RATES[1]"),
}
#: Edits that do.
HARMFUL = {
    "a constant": ("WIDTH = 3", "WIDTH = 4"),
    "a kind of number": ("WIDTH = 3", "WIDTH = 3.0"),
    "a truth for a number": ("WIDTH = 3", "WIDTH = True"),
    "a sign": ("2 * WIDTH", "2 + WIDTH"),
    "an order": ("(width, 2 * WIDTH)", "(2 * WIDTH, width)"),
    "a default": ("width=4", "width=5"),
    "a function it calls": ("return (width,", "return (width, width,"),
    "a decorator": ('@mtl.models.register("mine")', '@mtl.models.register("other")'),
    "a setting of JAX": ("WIDTH = 3", 'WIDTH = 3\nimport jax\njax.config.update("jax_enable_x64", False)'),
    "one more change on import": ("WIDTH = 3", "WIDTH = 3\nmtl.models.MODELS['mlp'] = mtl.models.CNN"),
    "what an import is": ("from mtl.models import MLP", "from mtl.models import CNN as MLP"),
}


def digest(folder, text, name="cfg"):
    """Execute a config as a new process would, and return what it adds."""
    file = folder / f"{name}.py"
    file.write_text(text)
    load(str(file))
    return sources_of(str(file))


@pytest.fixture(autouse=True)
def models(monkeypatch):
    monkeypatch.setattr(mtl.models, "MODELS", dict(mtl.models.MODELS))


@pytest.mark.parametrize(("old", "new"), HARMLESS.values(), ids=HARMLESS)
def test_what_decides_no_number_strands_nothing(tmp_path, old, new):
    assert old in CONFIG
    assert digest(tmp_path, CONFIG) == digest(tmp_path, CONFIG.replace(old, new))


@pytest.mark.parametrize(("old", "new"), HARMFUL.values(), ids=HARMFUL)
def test_what_may_decide_a_number_counts(tmp_path, old, new):
    assert old in CONFIG
    assert digest(tmp_path, CONFIG) != digest(tmp_path, CONFIG.replace(old, new))


#: Ways in which a config may say what a model is that are not a decorated function of the file.
WAYS = {
    "registered by another name, the result kept": """
        from mtl.models import register as called

        def mine(width=3):
            return MLP((5,))

        def get_config():
            made = called("mine")(mine)
            return default()
    """,
    "put among the models by what is returned": """
        def add(name, width):
            return mtl.models.MODELS.setdefault(name, lambda: MLP((width,)))

        def get_config():
            made = add("mine", 5)
            return default()
    """,
    "registered by get_config": """
        def mine(width=3):
            return MLP((5,))

        def get_config():
            mtl.models.register("mine")(mine)
            return default()
    """,
    "by a function that get_config calls": """
        def setup():
            mtl.models.register("mine")(lambda width=3: MLP((5,)))

        def get_config():
            setup()
            return default()
    """,
    "by such a function with an argument": """
        def setup(width):
            mtl.models.register("mine")(lambda: MLP((width,)))
            return width

        def get_config():
            width = setup(5)
            return default()
    """,
    "with a name for what comes of it": """
        NAME = mtl.models.register("mine")(lambda: MLP((5,)))

        def get_config():
            c = default()
            c.report.question = str(NAME)
            return c
    """,
    "put into the registry": """
        def get_config():
            mtl.models.MODELS["mine"] = lambda: MLP((5,))
            return default()
    """,
    "updated in the registry": """
        def get_config():
            mtl.models.MODELS.update(mine=lambda: MLP((5,)))
            return default()
    """,
    "a global that get_config sets": """
        WIDTH = 3

        @mtl.models.register("mine")
        def mine():
            return MLP((WIDTH,))

        def get_config():
            global WIDTH
            WIDTH = 5
            return default()
    """,
    "a function in get_config": """
        def get_config():
            @mtl.models.register("mine")
            def mine():
                return MLP((5,))

            return default()
    """,
    "looked up by a text": """
        WIDTH = 5

        @mtl.models.register("mine")
        def mine():
            return MLP((globals()["WIDTH"],))

        def get_config():
            c = default()
            c.lr = 1.0 / WIDTH
            return c
    """,
    "a constant of a class": """
        class Mine(MLP):
            width: int = 5

        mtl.models.register("mine")(Mine)

        def get_config():
            return default()
    """,
    "under a condition": """
        if True:
            WIDTH = 5

        @mtl.models.register("mine")
        def mine():
            return MLP((WIDTH,))

        def get_config():
            return default()
    """,
    "grown": """
        WIDTHS = []
        WIDTHS += [5]

        @mtl.models.register("mine")
        def mine():
            return MLP(tuple(WIDTHS))

        def get_config():
            return default()
    """,
}


@pytest.mark.parametrize("text", WAYS.values(), ids=WAYS)
def test_however_a_model_is_registered_its_numbers_count(tmp_path, text):
    top = "import mtl.models\nfrom mtl.config import default\nfrom mtl.models import MLP\n"
    text = top + textwrap.dedent(text)
    assert text.count("5") == 1
    assert digest(tmp_path, text) != digest(tmp_path, text.replace("5", "6"))


def test_a_file_of_settings_adds_nothing(tmp_path):
    for name in ("digits", "latent", "augment"):
        config = Path(mtl.__file__).parents[1] / "configs" / f"{name}.py"
        load(str(config))
        assert sources_of(str(config)) == Sources()


# --- local modules ---

IMPORTS = {
    "import": ("import nets", "nets.width"),
    "from": ("from nets import width", "width"),
    "from, by another name": ("from nets import width as w", "w"),
    "star": ("from nets import *", "width"),
    "of a package": ("from pack.nets import width", "width"),
    "of a package, relative": ("from pack import width", "width"),
    "in a function": ("", "(lambda: __import__('nets'))().width"),
    "by importlib": ("import importlib\nnets = importlib.import_module('nets')", "nets.width"),
    "of a module that imports it": ("import over", "over.width"),
    "from a path": (
        "import importlib.util as u, pathlib\n"
        "s = u.spec_from_file_location('by_path', pathlib.Path(__file__).with_name('nets.py'))\n"
        "nets = u.module_from_spec(s)\ns.loader.exec_module(nets)",
        "nets.width",
    ),
    "a function from a path": (
        "import runpy, pathlib\nwidth = runpy.run_path(str(pathlib.Path(__file__).with_name('nets.py')))['width']",
        "width",
    ),
}


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("from .nets import width\n")
    (tmp_path / "over.py").write_text("from nets import width\n")

    def write(number, comment=""):
        for file in ("nets.py", "pack/nets.py"):
            (tmp_path / file).write_text(f'"""Nets."""\n\n\ndef width():  # {comment}\n    return {number}\n')
        for name in [n for n in sys.modules if n.partition(".")[0] in ("nets", "pack", "over")]:
            del sys.modules[name]

    write(5)
    return write


def using(how, call):
    return (
        f"import mtl.models\nfrom mtl.config import default\nfrom mtl.models import MLP\n{how}\n\n"
        f'@mtl.models.register("mine")\ndef mine():\n    return MLP(({call}(),))\n\n'
        "def get_config():\n    return default()\n"
    )


@pytest.mark.parametrize(("how", "call"), IMPORTS.values(), ids=IMPORTS)
def test_a_number_in_a_local_module_counts_and_a_comment_does_not(tmp_path, local, how, call):
    text = using(how, call)
    before = digest(tmp_path, text)
    assert "nets.py" in before.of
    local(5, "said otherwise")
    assert digest(tmp_path, text) == before
    local(6)
    assert digest(tmp_path, text) != before
    local(5)
    assert digest(tmp_path, text) == before


def test_installed_packages_and_the_standard_library_are_not_ours_to_watch(tmp_path):
    text = using("import json, numpy, scipy.stats, sklearn.metrics", "json.dumps")
    assert digest(tmp_path, text).of == "cfg.py"


def test_a_module_that_is_changed_after_it_was_imported_is_refused(tmp_path, local):
    """In one process: what runs would be what was imported, and what is in the file something else."""
    digest(tmp_path, using("import nets", "nets.width"))
    (tmp_path / "nets.py").write_text("def width():\n    return 7\n")
    with pytest.raises(ConfigError, match=r"nets\.py was changed after this process had imported it"):
        digest(tmp_path, using("import nets", "nets.width"))


def test_a_sum_of_very_many_terms_is_taken(tmp_path):
    """Its syntax tree is as deep as it is long."""
    text = using("WIDTH = " + " + ".join(["1"] * 900), "(lambda: WIDTH)")
    assert digest(tmp_path, text) != digest(tmp_path, text.replace("1 + 1", "1 + 2", 1))


# --- the normal form ---

ATOMS = st.one_of(
    st.integers(-3, 3),
    st.floats(-2, 2, allow_nan=False),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.binary(max_size=2),
).map(repr)
EXPRESSIONS = st.recursive(
    st.sampled_from(["x", "y", "f(x)"]) | ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "*", "and", "<"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.lists(inner, max_size=2).map(lambda items: f"[{', '.join(items)}]"),
        inner.map(lambda value: f"f({value}, k={value})"),
    ),
    max_leaves=4,
)
PROGRAMS = st.tuples(EXPRESSIONS, EXPRESSIONS, st.sampled_from(["", '"""a"""', '"""b"""', "0"])).map(
    lambda t: f"def g(x, y={t[0]}):\n    {t[2] or 'pass'}\n    return {t[1]}\n"
)


def dump(text):
    """Return Python's own form of a program, without docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


@given(PROGRAMS, PROGRAMS)
def test_two_programs_have_one_digest_if_python_says_they_are_the_same(one, other):
    same = digest_of(ast.parse(one).body) == digest_of(ast.parse(other).body)
    assert same == (dump(one) == dump(other))
    commented = one.replace("\n", "  # so\n")
    assert digest_of(ast.parse(commented).body) == digest_of(ast.parse(one).body)


# --- mtl's own code ---


@pytest.fixture
def part(tmp_path):
    """A small part of the package: it is parsed at once."""
    there = Path(mtl.__file__).parent
    for name in ("tasks.py", "cli.py", "sweep/fingerprint.py", "sweep/sources.py"):
        (tmp_path / "part" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(there / name, tmp_path / "part" / name)
    return tmp_path / "part"


def edited(package, name, old, new):
    """Return the package's digest with one edit."""
    file = package / name
    content = file.read_text()
    assert old in content
    try:
        file.write_text(content.replace(old, new, 1))
        return code_of(package, None)
    finally:
        file.write_text(content)


ROOMS = ("losses", "tasks", "params", "regimes", "metrics", "models", "train", "data", "sweep", "config")
COMPUTING = (
    "sweep/execute.py",
    "sweep/evaluate.py",
    "sweep/plan.py",
    "data/splits.py",
    "data/corrupt/split.py",
    "data/table.py",
)


def test_every_room_that_computes_is_watched(monkeypatch):
    """By what is parsed, not by what is listed."""
    there, seen = Path(mtl.__file__).parent, []
    monkeypatch.setattr(fingerprint, "parsed", lambda content: seen.append(content))
    code_of(there, None)
    names = {
        content: path.relative_to(there).as_posix() for path in there.rglob("*.py") for content in [path.read_bytes()]
    }
    watched = {names[content] for content in seen}
    assert {name.partition("/")[0].removesuffix(".py") for name in watched} >= set(ROOMS)
    for name in (path.relative_to(there).as_posix() for path in there.rglob("*.py")):
        if name.startswith(("metrics/", "models/", "train/")) or name in COMPUTING:
            assert name in watched, name
        if name.startswith(("report/", "commands/", "host/")) or name == "cli.py":
            assert name not in watched, name


def test_what_is_said_not_to_compute_is_there():
    """A name that is left behind would let a new module of that name go unseen."""
    there = Path(mtl.__file__).parent
    assert [name for name in NOT_COMPUTING if not (there / name).exists()] == []
    rooms = ("losses", "cpu", "tasks.py", "params.py", "regimes.py", "metrics", "models", "train", "data/splits.py")
    assert not set(rooms) & set(NOT_COMPUTING)


def test_known_bytes_are_not_parsed_again(part, tmp_path, monkeypatch):
    before = code_of(part, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "parsed", None)
        assert code_of(part, tmp_path) == before
        with pytest.raises(TypeError):  # The control.
            edited(part, "tasks.py", "import", "import  ")
    (kept,) = (tmp_path / "sources").iterdir()
    for broken in (b"", b"0" * 63, b"g" * 64, b"0" * 65):  # Damaged: it is made again.
        kept.write_bytes(broken)
        assert code_of(part, tmp_path) == before


def test_a_cache_that_cannot_be_written_costs_time_alone(part, tmp_path):
    (tmp_path / "file").touch()
    assert code_of(part, tmp_path / "file" / "cache") == code_of(part, None)


def test_of_a_part_what_computes_counts_and_the_rest_does_not(part):
    before = code_of(part, None)
    assert edited(part, "tasks.py", "import math", "# Why.\nimport math") == before
    assert edited(part, "cli.py", "130", "131") == before
    assert edited(part, "tasks.py", "frozen=True", "frozen=False") != before
    (part / "train").mkdir()
    (part / "train" / "new.py").write_text("x = 1\n")
    assert code_of(part, None) != before, "a new module counts unless it is named as one that does not compute"


def test_the_argument_counts_where_get_config_may_do_more_than_settle_values(tmp_path):
    does = """
        import mtl.models
        from mtl.config import default
        from mtl.models import MLP

        def get_config(arg=""):
            mtl.models.register("mine")(lambda: MLP((int(arg or 1),)))
            return default()
    """
    settles = """
        from mtl.config import default

        def get_config(arg=""):
            c = default()
            c.seed = int(arg or 1)
            return c
    """
    for name, text, differs in (("does", does, True), ("settles", settles, False)):
        file = tmp_path / f"{name}.py"
        file.write_text(textwrap.dedent(text))
        load(f"{file}:2")
        two = sources_of(f"{file}:2")
        load(f"{file}:3")
        assert (sources_of(f"{file}:3") != two) is differs


def test_a_function_of_a_local_module_that_is_called_like_a_sweep_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "import filt\nimport mtl.models\nfrom mtl.models import MLP\n" + textwrap.dedent("""
        @mtl.models.register("mine")
        def mine():
            return MLP((filt.sweep_window(2),))

        def get_config():
            from mtl.config import default
            return default()
    """)
    found = set()
    for number in (5, 6):
        (tmp_path / "filt.py").write_text(f"def sweep_window(width):\n    return width * {number}\n")
        sys.modules.pop("filt", None)
        found.add(digest(tmp_path, text).sha256)
    assert len(found) == 2


def test_a_config_with_a_dot_in_its_name_imports_what_lies_beside_it(tmp_path):
    (tmp_path / "beside_the_dot.py").write_text("SEED = 7\n")
    file = tmp_path / "exp.v2.py"
    file.write_text(
        "import beside_the_dot\nfrom mtl.config import default\n\n"
        "def get_config():\n    c = default()\n    c.seed = beside_the_dot.SEED\n    return c\n"
    )
    config, _ = load(str(file))
    assert config.seed == 7
    assert "beside_the_dot.py" in sources_of(str(file)).of
