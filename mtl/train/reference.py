"""Models of scikit-learn in place of a network: what the same labels are worth without one."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from mtl.tasks import Task

#: What is tried by cross-validation inside the labels: of each model, and of the one that takes its place for numbers.
GRIDS: dict[str, tuple[Mapping[str, Sequence[float]], Mapping[str, Sequence[float]]]] = {
    "logistic_regression": ({"C": (1e-3, 1e-2, 1e-1, 1.0, 10.0)}, {"alpha": (1e-1, 1.0, 10.0, 100.0, 1000.0)}),
    "forest": ({"min_samples_leaf": (1, 3, 10)}, {"min_samples_leaf": (1, 3, 10)}),
}

#: Folds of the cross-validation, where there are labels enough.
_FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a phase is solved by that has no network: no program is compiled for it.

    Attributes:
      name: of the model, one of ``regimes.REFERENCES``.
    """

    name: str


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A model of scikit-learn, fitted to all the labels that it was given.

    Attributes:
      task: what it predicts.
      model: scikit-learn's.
      loss: log loss, or squared error of numbers: the mean over folds where settings were chosen by it, else that of
        the very labels.
      prior: that of predicting the frequencies of all the labels, or their mean.
      chosen: the settings; empty where there were too few labels to choose by.
      seconds: that it took.
    """

    task: Task
    model: Any
    loss: float
    prior: float
    chosen: dict[str, int | float]
    seconds: float

    def outputs(self, x: Float[np.ndarray, "more inputs"]) -> Float[np.ndarray, "more outputs"]:
        """Return what a head's outputs would be: log-odds, log-probabilities of the classes, or numbers."""
        if not self.task.classes:
            return self.model.predict(x)[:, None]
        p = _probabilities(self.task, self.model, x)
        return np.log(p) if self.task.labels == "ids" else np.log(p[:, 1:] / p[:, :1])


def fit(name: str, task: Task, x: Float[np.ndarray, "rows inputs"], y: Real[np.ndarray, " rows"], seed: int) -> Fitted:
    """Return a reference, fitted to all labels that there are.

    Its settings are chosen from ``GRIDS`` by five-fold cross-validation inside all the labels, stratified by class, by
    log loss, or squared error of numbers. There are as many folds as labels of the second most frequent class if these
    are fewer, so that no fold trains on one class alone; with less than two, settings are scikit-learn's own.

    Args:
      name: of the model, one of ``regimes.REFERENCES``.
      task: what is predicted.
      x: inputs as a network sees them, flat.
      y: labels, all present; numbers as a loss sees them.
      seed: of the folds and of the trees.

    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> found = fit("logistic_regression", Task("goal", "binary"), x, (x[:, 0] > 0) * 1.0, 0)
    >>> found.chosen, found.outputs(np.array([[1.0, 0, 0]])).shape
    ({'C': 10.0}, (1, 1))
    """
    # Imported late, as it takes longer than the start of a command may.
    from sklearn.dummy import DummyClassifier
    from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
    from threadpoolctl import threadpool_limits

    model = _model(name, task, seed)
    begun = time.perf_counter()
    prior = float(np.var(y))
    if task.classes:
        y = y.astype(np.int64)
        counts = np.sort(np.unique(y, return_counts=True)[1])
        prior = -float(counts @ np.log(counts / len(y))) / len(y)
        if len(counts) < 2:  # Logistic regression has no coefficients then.
            model = DummyClassifier()
        folds, cut = min(_FOLDS, counts[-2] if len(counts) > 1 else 1), StratifiedKFold
    else:
        folds, cut = min(_FOLDS, len(y)), KFold

    def score(fitted: Any, x: np.ndarray, y: np.ndarray) -> float:
        if not task.classes:
            return -float(np.mean((fitted.predict(x) - y) ** 2))
        return float(np.mean(np.log(_probabilities(task, fitted, x)[np.arange(len(y)), y])))

    # One thread, so that bits depend on no machine's number of cores.
    with threadpool_limits(1), warnings.catch_warnings():
        # Of a class with fewer labels than folds, and of the least penalties, which converge slowly.
        warnings.simplefilter("ignore", UserWarning)
        if folds < 2:
            model.fit(x, y)
            return Fitted(task, model, -score(model, x, y), prior, {}, time.perf_counter() - begun)
        grid = GRIDS[name][not task.classes]
        search = GridSearchCV(
            model, grid, scoring=score, cv=cut(int(folds), shuffle=True, random_state=seed), error_score="raise"
        )
        search.fit(x, y)
    spent = time.perf_counter() - begun
    return Fitted(task, search.best_estimator_, -float(search.best_score_), prior, search.best_params_, spent)


def _model(name: str, task: Task, seed: int) -> Any:
    """Return scikit-learn's model, not fitted yet."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.linear_model import LogisticRegression, Ridge

    if name == "forest":
        return (RandomForestClassifier if task.classes else RandomForestRegressor)(random_state=seed)
    return LogisticRegression(max_iter=1000) if task.classes else Ridge()


def _probabilities(task: Task, model: Any, x: np.ndarray) -> Float[np.ndarray, "rows classes"]:
    """Return the probability of each class, none 0 or 1; one that the model has not seen has the least."""
    found = np.zeros((len(x), task.classes))
    found[:, model.classes_] = model.predict_proba(x)
    least = np.finfo(np.float64).eps
    return np.clip(found, least, 1 - least)
