"""`python fastai_tables.py FOLDER`: tabular learners of the installed fast.ai, exported to FOLDER, and what each predicts.

FOLDER/answers.json has the rows that were asked, and for each learner what `learn.predict` answers to each: the chances, or the number.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import numpy as np
import pandas as pd
import torch
from fastai.tabular.all import (
    Categorify,
    CategoryBlock,
    FillMissing,
    Normalize,
    RegressionBlock,
    TabularDataLoaders,
    tabular_learner,
)


def people(count: int = 200) -> pd.DataFrame:
    """Rows with categories, of words and of numbers, and with ages that are missing."""
    random = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "age": random.integers(18, 80, count).astype(float),
            "hours": random.normal(40, 10, count),
            "work": random.choice(["office", "field", "home"], count),
            "rooms": random.integers(1, 5, count),
        }
    )
    rows.loc[::9, "age"] = np.nan
    rows["income"] = np.where(rows["hours"] + 3 * rows["rooms"] > 48, "high", "low")
    rows["rent"] = rows["hours"] * 2 + rows["rooms"]
    return rows


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = people()
    asked = rows.drop(columns=["income", "rent"]).iloc[::17].copy()
    asked.loc[asked.index[1], "work"] = "sea"  # which was not seen in training
    answers: dict[str, Any] = {"rows": json.loads(asked.to_json(orient="records"))}
    for name, target, block in (("classifier", "income", CategoryBlock()), ("regressor", "rent", RegressionBlock())):
        torch.manual_seed(0)
        loaders = TabularDataLoaders.from_df(
            rows,
            procs=[Categorify, FillMissing, Normalize],
            cat_names=["work", "rooms"],
            cont_names=["age", "hours"],
            y_names=target,
            y_block=block,
            valid_idx=list(range(160, 200)),
            bs=32,
        )
        learn = tabular_learner(loaders, layers=[16, 8], path=folder)
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(3, 1e-2)
            answers[name] = [learn.predict(row)[2].tolist() for _, row in asked.iterrows()]
        learn.export(f"{name}.pkl")
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
