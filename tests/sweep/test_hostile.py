"""Work directories damaged at random, and by somebody who knows of digests: an error of ours, or none."""

import contextlib
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mtl
from mtl.checkpoint import CheckpointError, load_tree
from mtl.host.files import parse
from mtl.sweep import documents, shards
from mtl.sweep.frames import counts
from mtl.sweep.store import StoreError, Workdir
from tests.sweep.hostile import bounded, content_of, file_of, parts, reseal, restored, small_study, unsealed

EXAMPLES = int(os.environ.get("MTL_FUZZ", "25"))  # `scripts/torture` takes more.

EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=40)), min_size=1, max_size=4)


def edited(content, edits):
    for where, cut, put in edits:
        at = int(where * len(content))
        content = content[:at] + put + content[at + cut :]
    return content


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    """Without digests, so that what is damaged gets as far as it can."""
    work = small_study(tmp_path_factory.mktemp("fuzz") / "work")
    unsealed(work)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "unseal", lambda data: {k: v for k, v in parse(data).items() if k != "sha256"})
        patch.setattr(shards, "check_format", lambda file, about: None)  # Without a digest a tree is of format 1.
        yield work


def files_of(work):
    return sorted(path for path in work.rglob("*") if path.is_file())


def test_without_digests_what_is_not_damaged_is_read(victim):
    """The control: damage gets further than a digest or a format."""
    found = mtl.results(victim, "predictions")
    assert found["hash"].nunique() == 4 and len(found) == 4 * 40


@pytest.mark.slow
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS, data=st.data())
def test_whatever_is_damaged_at_random_is_an_error_of_ours_or_none(victim, edits, data):
    file = data.draw(st.sampled_from(files_of(victim)))
    with restored(file) as good:
        file.write_bytes(edited(good, edits))
        with bounded(len(good)):
            look_at_everything(victim)


def look_at_everything(path):
    """Read all that is in a work directory, as the commands do."""
    with contextlib.suppress(StoreError):
        counts(Workdir(path))
        for what in ("trials", "curves", "predictions"):
            mtl.results(path, what)
    workdir = Workdir(path)
    for trial in sorted((path / "trials").iterdir()):
        with contextlib.suppress(StoreError):
            workdir.result(trial.name)
        with contextlib.suppress(StoreError):
            workdir.predictions(trial.name, "even")
        with contextlib.suppress(CheckpointError):
            load_tree(trial / "model.safetensors")
    for phase in (path / "prefixes").iterdir():
        with contextlib.suppress(CheckpointError):
            load_tree(phase)
    for pack in (path / "packs").iterdir():
        Workdir(path).width(pack.stem, "vmap")
    for snapshot in (path / "snapshots").iterdir():
        with contextlib.suppress(CheckpointError):
            load_tree(snapshot)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def nodes(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from nodes(inner, (*path, key))


@pytest.mark.slow
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_value_of_another_kind_is_an_error_of_ours_or_none(victim, data):
    """By somebody who knows of digests: what is of the right format need not be of the right shape."""
    part = data.draw(st.sampled_from(parts(victim)))
    content = content_of(victim, part)
    path = data.draw(st.sampled_from([p for p in nodes(content) if p]))
    node = content
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = data.draw(VALUES)
    with restored(file_of(victim, part)):
        with contextlib.suppress(ValueError, UnicodeEncodeError):
            reseal(victim, part, content)
        look_at_everything(victim)
