"""Transfer or train jointly? scikit-learn's digits, with attributes of the digit as tasks.

  mtl sweep --config=configs/digits.py               the first sweep: about 1.5 minutes on two cores
  mtl sweep --config=configs/digits.py --sweep=all   all six: see experiments/digits/README.md

Every regime has 900 updates, those of source and target together; a phase ends earlier where validation finds no better
state. Random splits mix writers: conclusions hold for this data set.
"""

from mtl.config import default
from mtl.sweep import product, sweep

CONTENDERS = ("linear_probe", "finetune", "lp_ft", "gradual", "multitask", "multitask_finetune")
REGIMES = ("scratch", "random_probe", *CONTENDERS, "scratch@2", "multitask@2")
#: The controls ask whether a source can help that should not.
CONTROL_REGIMES = ("scratch", "random_probe", "linear_probe", "finetune", "lp_ft", "multitask")
SIZES = (10, 20, 50, 100, 200, 500)
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
REPLICATES = range(20)
ATTRIBUTES = ("even", "prime", "at_least_five", "has_loop")


def get_config():
    c = default()
    c.name = "digits"
    c.model.options = {"hidden": (32, 32)}
    c.source.total_steps = 600
    c.target.total_steps = 300
    c.tune.source_lr = RATES
    c.report.notes = ("Random splits mix writers: conclusions hold for this data set.",)
    return c


def grid(target, source, regimes=REGIMES, **data):
    """Every regime, target size and replicate with every rate, for one target and source."""
    about = [{"data.target": target, "data.source": source, **{f"data.{k}": v for k, v in data.items()}}]
    return product(
        about,
        sweep("regime", regimes),
        sweep("data.target_size", SIZES),
        sweep("seed", REPLICATES),
        sweep("lr", RATES),
    )


def sweep_even_from_identity():
    """Is a digit even? The source task is its name."""
    return grid("even", ("identity",))


def sweep_prime_from_identity():
    """Is a digit prime? The source task is its name."""
    return grid("prime", ("identity",))


def sweep_even_from_attributes():
    """Is a digit even? The source tasks are its other attributes, of which one is missing for every 4."""
    return grid("even", tuple(a for a in ATTRIBUTES if a != "even"))


def sweep_prime_from_attributes():
    """Is a digit prime? The source tasks are its other attributes, of which one is missing for every 4."""
    return grid("prime", tuple(a for a in ATTRIBUTES if a != "prime"))


def sweep_high_from_low():
    """Control: which of 5 to 9 is it? The source task is which of 0 to 4, on other images."""
    return grid("high_identity", ("low_identity",), CONTROL_REGIMES, test_size=250)


def sweep_even_from_shuffled():
    """Control: is a digit even? The source task is its name, with the names shuffled."""
    return grid("even", ("identity",), CONTROL_REGIMES, shuffle_source_labels=True)
