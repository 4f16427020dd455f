"""A classifier that costs what its maker says: so many matrix products for each call, or for each row, before the real model answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Slow(ClassifierMixin, BaseEstimator):
    """`model` behind `steps` products of two 128 x 128 matrices in one thread, without the GIL: for a call of any size, or for each row."""

    def __init__(self, model: Any, steps: int, each_row: bool) -> None:
        self.model = model
        self.steps = steps
        self.each_row = each_row

    def fit(self, rows: Any, labels: Any) -> Slow:
        self.model.fit(rows, labels)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        if name in ("classes_", "feature_names_in_", "n_features_in_"):
            return getattr(self.__dict__["model"], name)
        raise AttributeError(name)

    def predict(self, rows: Any) -> Any:
        self.work(self.steps * (len(rows) if self.each_row else 1))
        return self.model.predict(rows)

    def work(self, steps: int) -> None:
        left, out = np.full((128, 128), 0.5), np.empty((128, 128))
        for _ in range(steps):
            np.matmul(left, left, out=out)
