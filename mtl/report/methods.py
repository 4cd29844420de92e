"""A paragraph for a paper's experimental section: protocol, statistics, software, and the works to be cited."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import mtl
from mtl.regimes import REFERENCES
from mtl.report import phrases
from mtl.report.analysis import Analysis
from mtl.report.made_by import made_by
from mtl.report.targets import Targets
from mtl.report.text import number_text, row_text, size_text

# What each cited work is, by how it is cited.
_WORKS = {
    "Owen, 2007": 'A. B. Owen. "The pigeonhole bootstrap". Annals of Applied Statistics, 2007. arXiv:0712.1111',
    "Satterthwaite, 1946": 'F. E. Satterthwaite. "An approximate distribution of estimates of variance components". '
    "Biometrics Bulletin, 1946",
    "Holm, 1979": 'S. Holm. "A simple sequentially rejective multiple test procedure". Scandinavian Journal of '
    "Statistics, 1979",
    "Schuirmann, 1987": 'D. J. Schuirmann. "A comparison of the two one-sided tests procedure and the power approach". '
    "Journal of Pharmacokinetics and Biopharmaceutics, 1987",
    "Hsu, 1984": 'J. C. Hsu. "Constrained simultaneous confidence intervals for multiple comparisons with the best". '
    "Annals of Statistics, 1984",
    "Maninis et al., 2019": 'K.-K. Maninis et al. "Attentive single-tasking of multiple tasks". 2019. arXiv:1904.08918',
    "Agarwal et al., 2021": 'R. Agarwal et al. "Deep reinforcement learning at the edge of the statistical precipice". '
    "2021. arXiv:2108.13264",
    "Kumar et al., 2022": 'A. Kumar et al. "Fine-tuning can distort pretrained features and underperform '
    'out-of-distribution". 2022. arXiv:2202.10054',
    "Howard & Ruder, 2018": 'J. Howard and S. Ruder. "Universal language model fine-tuning for text classification". '
    "2018. arXiv:1801.06146",
    "Hu et al., 2021": 'E. J. Hu et al. "LoRA: low-rank adaptation of large language models". 2021. arXiv:2106.09685',
    "Caruana, 1997": 'R. Caruana. "Multitask learning". Machine Learning, 1997',
    "Pedregosa et al., 2011": 'F. Pedregosa et al. "Scikit-learn: machine learning in Python". JMLR, 2011',
}
# Whose a regime is.
_REGIMES = {
    "lp_ft": "Kumar et al., 2022",
    "gradual": "Howard & Ruder, 2018",
    "lora": "Hu et al., 2021",
    "multitask": "Caruana, 1997",
} | dict.fromkeys(REFERENCES, "Pedregosa et al., 2011")


def methods(analysis: Analysis | Targets, base: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> str:
    """Write how a sweep was made: a paragraph of protocol, one of statistics and software, and what they cite.

    Args:
      analysis: of the sweep.
      base: its config, flat, before what the sweep changes.
      results: of its trials.

    Returns:
      Plain text; works are cited as (name, year) and listed at its end.
    """
    scores = analysis.scores
    text = f"{_protocol(analysis, base)}\n\n{_statistics(analysis)} {_software(results)}"
    cited = [f"[{name}] {work}." for name, work in _WORKS.items() if name in text]
    return "\n".join([f"{scores.study} / {scores.sweep}", "", text, "", *cited]) + "\n"


def _protocol(analysis: Analysis | Targets, base: Mapping[str, Any]) -> str:
    scores = analysis.scores
    rows = [r for r in scores.regimes if r not in scores.doubled]
    named = [f"{row_text(r)} ({_REGIMES[r]})" if r in _REGIMES else row_text(r) for r in rows]
    tasks = list(analysis.of) if isinstance(analysis, Targets) else [scores.task]
    sizes, column = phrases.join([size_text(n) for n in scores.sizes]), phrases.column(scores.sizes)
    at = f"{sizes} labelled examples" if column == "n" else f"{column} of {sizes}"
    source = tuple(base["data.source"])
    beside = f" (source task{'s' * (len(source) > 1)}: {_few(source)})" if source and scores.row == "regime" else ""
    what = "task" if len(tasks) == 1 else f"{len(tasks)} tasks"
    text = (
        f"On {base['data.name']} we compared {phrases.join(named)} for the {what} {_few(tasks)}{beside} with {at}, in "
        f"{len(scores.replicates)} replicates. The network is {base['model.name']}, the optimizer "
        f"{base['optimizer.name']} with batches of {base['batch_size']}."
    )
    if scores.doubled:
        text += f" {phrases.join([row_text(r) for r in scores.doubled])} had a doubled budget of updates."
    notes = [note for note in scores.notes if not note.startswith("Intervals:")]  # The statistics say that.
    return " ".join([text, *notes, *scores.data_notes])


def _few(names: Sequence[str]) -> str:
    return phrases.join(names) if len(names) <= 12 else f"{phrases.join([*names[:3], f'{len(names) - 3:,} more'])}"


def _statistics(analysis: Analysis | Targets) -> str:
    scores, several = analysis.scores, isinstance(analysis, Targets)
    first = next(iter(analysis.of.values())) if isinstance(analysis, Targets) else analysis
    units = "test examples" if scores.groups is None else "groups of test examples"
    family = "targets, regimes and sizes" if several else "all regimes and sizes of the sweep"
    margin = f"{number_text(scores.margin, scores.unit)}{' points' if scores.unit == 100 else ''}"
    text = (
        f"We report {scores.metric.replace('_', ' ')} with 95 % intervals from a two-way bootstrap over replicates "
        f"and {units} ({first.resamples:,} resamples; Owen, 2007). Gains over {scores.baseline} are paired within "
        f"replicates and {units}; p values come from Student's t with Satterthwaite's degrees of freedom "
        f"(Satterthwaite, 1946) and are corrected over {family} (Holm, 1979). Equivalence is a true gain within "
        f"±{margin}, by two one-sided tests (Schuirmann, 1987), corrected likewise. The regimes not told from the best "
        "are those of Hsu's comparisons with the best at 95 % (Hsu, 1984)."
    )
    if scores.looks > 1:
        text += f" The level was spent in equal parts over {scores.looks} planned looks at the test set (Bonferroni)."
    if several:
        text += (
            " Over targets we report the mean gain, Δ_m (Maninis et al., 2019), and the interquartile mean and the "
            "probability of improvement (Agarwal et al., 2021), with replicates and test rows resampled together."
        )
    return text


def _software(results: Iterable[Mapping[str, Any]]) -> str:
    made = made_by(results)
    versions = [f"{name} {' or '.join(of)}" for name, of in made.items() if name not in ("processor", "device", "mtl")]
    where = " or ".join(filter(None, made.get("processor", ()))) or " or ".join(made.get("device", ()))
    return f"Networks were trained with mtl {mtl.__version__} ({', '.join(versions)})" + (
        f" on {where}." if where else "."
    )
