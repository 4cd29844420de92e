"""Is the verdict calibrated? Real training where the truth is known: nothing to find, much to gain, nothing to gain.

Seeds are fixed, so a machine that passes passes again. About four minutes on two cores.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl import metrics
from mtl.config import default, flatten, load, override, resolve
from mtl.data import digits_table
from mtl.report.analyse import analyse
from mtl.report.analysis import Scores
from mtl.report.publish import analyses_of
from mtl.sweep.launch import Silent, launch
from mtl.sweep.plan import split_of, val_rows_of
from mtl.sweep.store import Workdir
from mtl.train import loop
from mtl.train.dataset import make_data
from mtl.train.placement import MAP
from mtl.train.predict import predict
from mtl.train.trial import stages_of

pytestmark = pytest.mark.slow

STUDIES, REPLICATES, SIZES = 400, 10, (20, 50, 200)
#: Family-wise claims in 400 studies of nothing: 5 % and its sampling error (more than 29 have probability 0.02).
MOST = 29

AA = override(
    flatten(default()),
    {
        "regime": "scratch",
        "model.options": {"hidden": (8,)},
        "lr": 0.03,
        "source.total_steps": 1,  # Must be set; scratch does not use it.
        "target.total_steps": 40,
        "batch_size": 16,
        "evaluations": 1,
    },
)


def right(split_seeds, seeds):
    """Train from scratch, one replicate each; return who is right of the fixed test set, [sizes, seeds, examples].

    ``split_seeds`` draw the subsets; ``seeds``, of the same length, the initialisations and the batches.
    """
    table = digits_table()
    shape = tuple(table.x.shape[1:])
    found = []
    for size in SIZES:
        first = resolve(override(AA, {"seed": split_seeds[0], "data.target_size": size}), table)
        trials = [type(first)({**first.config, "seed": seed}) for seed in split_seeds]
        (stage,) = stages_of(first, shape)
        model, task = first.model(), first.model().task(first.target)
        outcomes = loop.run_phase(
            seeds,
            [stage] * len(seeds),
            range(len(seeds)),
            loop.initial_weights(model, shape, seeds, MAP),
            make_data(table, [split_of(t) for t in trials], [stage.program], val_rows_of(first)),
            evaluations=1,
            placement=MAP,
        )
        assert all(o.diverged_at == -1 for o in outcomes)
        rows = np.flatnonzero(split_of(first).test[first.target])
        outputs = predict(model, [first.target], [o.weights for o in outcomes], table.x[rows])[first.target]
        labels = jnp.asarray(table.labels[first.target][rows])
        score = jax.jit(jax.vmap(lambda o, t=task, y=labels: metrics.per_example(t, "accuracy", o, y)))
        found.append(np.asarray(score(jnp.asarray(outputs))))
    return np.stack(found)


def claims(values):
    """Return the claims of a study of scratch [0] against scratch [1], from scores [2, sizes, replicates, examples]."""
    none = np.zeros(values.shape[:2], int)
    scores = Scores(
        study="aa", sweep="aa", question="", notes=(), metric="accuracy", higher_is_better=True, unit=100.0,
        regimes=("scratch", "again"), sizes=tuple(map(float, SIZES)), replicates=tuple(range(values.shape[2])),
        values=values, missing=none, failed=none, chosen=np.full(values.shape[:3], np.nan),
        baseline="scratch", margin=0.02, cost={},
    )  # fmt: skip
    # Claims rest on analytic standard errors: the bootstrap, which makes the intervals, may be short.
    analysis = analyse(scores, resamples=20)
    found = {cell.claim for cell in analysis.cells["again"].values()}
    # The words agree with the numbers.
    assert ("beats scratch" in analysis.details[0]) == ("gain" in found)
    return found


def test_a_study_of_nothing_makes_claims_in_5_percent():
    blocks, count = 10, STUDIES // 10  # A block's splits fit in memory, and all blocks share their executables.
    own, shared, accuracies = [], [], []
    for block in range(blocks):
        # No seed is ever used twice.
        draw = np.arange(3 * count * REPLICATES).reshape(3, -1) + block * 3 * count * REPLICATES
        first, other, stream = draw.tolist()
        # Another replicate altogether; then the same subset, as the regimes of a study have it, with another
        # initialisation and other batches.
        base, another, again = right(first, first), right(other, other), right(first, stream)
        accuracies.append(base.mean(axis=(1, 2)))
        for into, arm in ((own, another), (shared, again)):
            both = np.stack([base, arm]).astype(np.float64)
            both = both.reshape(2, len(SIZES), count, REPLICATES, -1)
            into += [claims(both[:, :, k]) for k in range(count)]
    accuracy = np.mean(accuracies, axis=0, dtype=np.float64)
    print("accuracy", dict(zip(SIZES, accuracy.round(3).tolist(), strict=True)))
    assert ((accuracy > 0.7) & (accuracy < 0.95)).all()  # Where studies live.
    for name, found in (("other subset", own), ("same subset", shared)):
        wrong = sum(bool(c & {"gain", "harm"}) for c in found)
        each = {k: sum(k in c for c in found) for k in ("gain", "harm")}
        print(f"{name}: {wrong} of {len(found)} A/A studies make a claim: {each}")
        assert len(found) == STUDIES
        assert wrong <= MOST


POPULATIONS = range(5)
CONFIG = """
from mtl.config import default
from mtl.sweep import product, sweep

SOURCES = tuple(f"source_{k}" for k in range(4))


def get_config():
    c = default()
    c.name = "related"
    c.data.name = "latent"
    c.data.options = {"source_tasks": 4, "examples": 2000}
    c.data.source, c.data.target = SOURCES, "target"
    c.data.source_size, c.data.source_val_size, c.data.target_pool = 1100, 100, 200
    c.model.options = {"hidden": (32,)}
    c.source.total_steps, c.target.total_steps = 600, 200
    c.select = "last"  # Of 20 labels four would choose the state.
    c.save_model = False
    return c


def grid(rho, seed):
    return product(
        [{"data.options.rho": rho, "data.options.seed": seed}],
        sweep("regime", ("scratch", "linear_probe", "finetune", "multitask", "scratch@2")),
        sweep("data.target_size", (20, 100)),
        sweep("seed", range(10)),
        sweep("lr", (1e-3, 3e-3)),
    )
"""


@pytest.fixture(scope="module")
def analyses(tmp_path_factory):
    folder = tmp_path_factory.mktemp("related")
    file = folder / "related.py"
    file.write_text(CONFIG)
    config, module = load(str(file))
    sweeps = {f"related_{seed}": module.grid(1.0, seed) for seed in POPULATIONS}
    sweeps |= {f"unrelated_{seed}": module.grid(0.0, seed) for seed in POPULATIONS}
    sweeps["half_related_0"] = module.grid(0.5, 0)  # For information.
    workdir = Workdir(folder / "work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_CACHE_DIR", str(folder / "xla"))
        summaries = launch(flatten(config), sweeps, workdir, jobs=2, config_file=str(file), display=Silent())
    assert not any(s.failed for s in summaries)
    found = {a.scores.sweep: a for a in analyses_of(workdir)}
    for name, analysis in sorted(found.items()):
        for regime in analysis.scores.regimes[1:]:
            cells = (f"{100 * c.gain:+.1f} [{100 * c.gain_low:.1f}, {100 * c.gain_high:.1f}] {c.claim}"
                     for c in analysis.cells[regime].values())  # fmt: skip
            print(f"{name} {regime}:", "; ".join(cells))
    return found


USERS = ("linear_probe", "finetune", "multitask")


@pytest.mark.parametrize("seed", POPULATIONS)
def test_a_fully_related_source_is_found_to_gain(analyses, seed):
    analysis = analyses[f"related_{seed}"]
    gained = [r for r in USERS if analysis.cells[r][20.0].claim == "gain"]
    assert gained
    first = analysis.details[0]
    assert first.startswith("With "), first
    before, found, _ = first.partition(" beats scratch" if " beats scratch" in first else " beat scratch")
    assert found, first
    assert any(r in before for r in gained), first
    assert analysis.cells["scratch@2"][20.0].claim != "gain"  # It is the source, not longer training.


@pytest.mark.parametrize("seed", POPULATIONS)
def test_an_unrelated_source_is_never_found_to_gain(analyses, seed):
    analysis = analyses[f"unrelated_{seed}"]
    for regime in (*USERS, "scratch@2"):
        for size, cell in analysis.cells[regime].items():
            assert cell.claim in ("harm", "equivalent", "inconclusive"), (regime, size, cell)
    first = analysis.details[0]
    assert first.startswith(("Harm: ", "Equivalent: ", "Inconclusive: ")), first
