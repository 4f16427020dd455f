"""Small trained models of every kind that Modelport must take, each with the frame it was trained on.

`MODELS[name]()` trains one (once in a process) and gives a `Trained`; `write(name, folder)` puts it in a file as its users do.
All data is made here and every model is deterministic. Frames are shared: copy one before changing it.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Trained(NamedTuple):
    """A trained model, the frame of its inputs (also those it does not need), and the file it is kept in."""

    model: Any
    frame: Any
    framework: str
    file: str


def columns(frame: Any) -> dict[str, np.ndarray]:
    """A frame as Modelport's columns: the forms of the table in signature.py."""
    import pandas as pd

    out = {}
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.astype(object)
        missing = column.isna().to_numpy()
        if pd.api.types.is_bool_dtype(column.dtype):
            out[str(name)] = column.to_numpy(dtype=object if missing.any() else bool)
        elif pd.api.types.is_integer_dtype(column.dtype):
            out[str(name)] = column.to_numpy(dtype="float64" if missing.any() else "int64", na_value=np.nan)
        elif pd.api.types.is_float_dtype(column.dtype):
            out[str(name)] = column.to_numpy(dtype="float64")
        elif pd.api.types.is_datetime64_any_dtype(column.dtype):
            out[str(name)] = column.to_numpy(dtype="datetime64[us]")
        else:
            values = column.to_numpy(dtype=object).copy()
            values[missing] = None
            out[str(name)] = values
    return out


def records(frame: Any) -> list[dict[str, Any]]:
    """A frame as JSON records: null for what is missing."""
    return [{name: None if value != value else value for name, value in row.items()} for row in json.loads(frame.to_json(orient="records"))]


def write(name: str, folder: Path) -> Path:
    """The model called `name`, in a file of `folder`, as its users keep it: joblib, pickle or the library's own format."""
    trained = MODELS[name]()
    path = folder / trained.file
    if path.suffix == ".joblib":
        import joblib

        joblib.dump(trained.model, path)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(trained.model))
    elif path.suffix == ".onnx":
        path.write_bytes(trained.model)
    else:
        trained.model.save_model(path)
    return path


def rebuilt(framework: Any, model: Any, folder: Path) -> Any:
    """A model of `framework` out of the bytes in its pickle, which nothing unpickles."""
    from modelport import inspection

    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps(model))
    contents = inspection.read(path)
    card = framework.detect(contents)
    assert card is not None
    return framework.rebuild(contents, card)


# Data


@cache
def houses(rows: int = 200) -> Any:
    """Numbers, integers, booleans, strings and missing values, with column names that are no Python names; and a column of noise."""
    import pandas as pd

    random = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "Größe (m²)": random.normal(90, 25, rows).round(1),
            "rooms": random.integers(1, 7, rows),
            "year.built": random.integers(1900, 2025, rows).astype(float),
            "class": random.choice(["brick", "timber", "stone"], rows),
            "city": random.choice(["Jena", "Köln", "Łódź", "New York"], rows),
            "has garden": random.random(rows) < 0.4,
            "note": random.choice(["a", "b"], rows),
        }
    )
    frame.loc[random.random(rows) < 0.1, "year.built"] = np.nan
    frame.loc[random.random(rows) < 0.1, "city"] = np.nan
    return frame


def price(frame: Any) -> Any:
    """What a house of `houses` costs: a number."""
    worth = frame["Größe (m²)"] * 30 + frame["rooms"] * 100 + frame["class"].map({"brick": 0, "timber": -200, "stone": 400})
    return (worth + frame["year.built"].fillna(1960) - 1900 + frame["has garden"] * 250).to_numpy(dtype=float)


def cheap(frame: Any) -> Any:
    """Whether a house of `houses` is below the middle price, in words."""
    worth = price(frame)
    return np.where(worth < np.median(worth), "cheap", "dear")


def band(frame: Any) -> Any:
    """Which third of the prices a house of `houses` is in: 0, 1 or 2."""
    worth = price(frame)
    return np.digitize(worth, np.quantile(worth, [1 / 3, 2 / 3]))


@cache
def categorical_houses() -> Any:
    """Houses with `class` as a pandas categorical, and without the other strings."""
    frame = houses().drop(columns=["city", "note"])
    frame["class"] = frame["class"].astype("category")
    return frame


@cache
def iris() -> Any:
    """Fisher's iris: four measures in centimetres."""
    from sklearn.datasets import load_iris

    frame = load_iris(as_frame=True).data
    frame.columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    return frame


def iris_species() -> Any:
    from sklearn.datasets import load_iris

    data = load_iris()
    return data.target_names[data.target].astype(object)


@cache
def wide(count: int) -> Any:
    """60 rows of `count` numbers, called c0, c1, ..."""
    import pandas as pd

    return pd.DataFrame(np.random.default_rng(11).normal(size=(60, count)), columns=[f"c{index}" for index in range(count)])


@cache
def shipping() -> Any:
    """The five columns of the shipping story."""
    import pandas as pd

    random = np.random.default_rng(3)
    rows = 300
    return pd.DataFrame(
        {
            "price": random.lognormal(4, 1, rows).round(2),
            "product_weight_g": random.integers(50, 30_000, rows).astype(float),
            "product_height_cm": random.integers(2, 100, rows).astype(float),
            "delivery_distance_km": random.gamma(2, 300, rows).round(3),
            "product_volume_cm3": random.integers(100, 200_000, rows).astype(float),
        }
    )


def shipping_price(frame: Any) -> Any:
    return (8 + frame["product_weight_g"] / 700 + frame["delivery_distance_km"] / 60 + frame["price"] / 90).to_numpy()


OLD = Path(__file__).parent / "data" / "old_models"
OLD_FILES = sorted(path.relative_to(OLD).as_posix() for path in OLD.glob("*/*") if path.suffix in (".pkl", ".joblib"))
"""Models that libraries and Pythons of other times wrote; make.py beside them says how."""

REVIEWS = (
    ("a warm and funny film", "good"),
    ("funny, clever and kind", "good"),
    ("I loved every minute", "good"),
    ("the best film this year", "good"),
    ("dull and far too long", "bad"),
    ("I left after ten minutes", "bad"),
    ("a cold, dull, endless film", "bad"),
    ("the worst ending this year", "bad"),
)


# scikit-learn


@cache
def iris_svc() -> Trained:
    """A support vector machine with a linear kernel, trained on a frame, labels as words, no probabilities."""
    from sklearn.svm import SVC

    return Trained(SVC(kernel="linear").fit(iris(), iris_species()), iris(), "sklearn", "iris.joblib")


@cache
def iris_svc_proba() -> Trained:
    """The same with probabilities and integer labels, trained on a bare matrix: its inputs are called x0 to x3."""
    from sklearn.datasets import load_iris
    from sklearn.svm import SVC

    matrix, labels = load_iris(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = SVC(kernel="linear", probability=True, random_state=0).fit(matrix, labels)
    return Trained(model, iris().set_axis(["x0", "x1", "x2", "x3"], axis=1), "sklearn", "svc.pkl")


@cache
def random_forest() -> Trained:
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(20, random_state=0, n_jobs=-1).fit(iris(), iris_species())
    return Trained(model, iris(), "sklearn", "forest.joblib")


@cache
def hist_gradient_boosting() -> Trained:
    """Missing values and a pandas categorical."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    frame = categorical_houses()
    return Trained(HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(frame, cheap(houses())), frame, "sklearn", "hist.pkl")


@cache
def hist_gradient_boosting_numbers() -> Trained:
    """Missing values in numbers alone, a regressor."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    frame = houses()[["Größe (m²)", "rooms", "year.built"]]
    return Trained(HistGradientBoostingRegressor(max_iter=20, random_state=0).fit(frame, price(houses())), frame, "sklearn", "hist.joblib")


@cache
def pipeline() -> Trained:
    """Imputers, a scaler and a tolerant one-hot encoder in a ColumnTransformer; the column `note` is dropped."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    prepare = ColumnTransformer(
        [
            ("numbers", numbers, ["Größe (m²)", "rooms", "year.built"]),
            ("words", words, ["class", "city"]),
            ("flags", "passthrough", ["has garden"]),
        ]
    )
    model = make_pipeline(prepare, LogisticRegression(max_iter=1000)).fit(houses(), cheap(houses()))
    return Trained(model, houses(), "sklearn", "pipeline.joblib")


@cache
def strict_pipeline() -> Trained:
    """A one-hot encoder that refuses what it has not seen, before a forest."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    prepare = ColumnTransformer([("class", OneHotEncoder(), ["class", "has garden"])], remainder="passthrough")
    model = Pipeline([("prepare", prepare), ("forest", RandomForestRegressor(10, random_state=0))])
    frame = houses()[["Größe (m²)", "rooms", "class", "has garden"]]
    return Trained(model.fit(frame, price(houses())), frame, "sklearn", "strict.pkl")


@cache
def grid_search() -> Trained:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1.0]}, cv=3)
    return Trained(search.fit(iris(), iris_species()), iris(), "sklearn", "search.joblib")


@cache
def multi_output() -> Trained:
    from sklearn.linear_model import Ridge

    frame = iris()[["sepal_length", "sepal_width"]]
    return Trained(Ridge().fit(frame, iris()[["petal_length", "petal_width"]]), frame, "sklearn", "multi.pkl")


@cache
def multi_label() -> Trained:
    """Two labels a row, of different kinds."""
    from sklearn.ensemble import RandomForestClassifier

    frame = houses()[["Größe (m²)", "rooms"]]
    labels = np.column_stack([cheap(houses()).astype(object), np.where(houses()["rooms"] > 3, "large", "small")])
    return Trained(RandomForestClassifier(5, random_state=0).fit(frame, labels), frame, "sklearn", "labels.pkl")


@cache
def isolation_forest() -> Trained:
    from sklearn.ensemble import IsolationForest

    return Trained(IsolationForest(n_estimators=20, random_state=0).fit(iris()), iris(), "sklearn", "isolation.joblib")


@cache
def kmeans() -> Trained:
    from sklearn.cluster import KMeans

    model = KMeans(3, n_init=1, random_state=0).fit(iris().to_numpy())
    return Trained(model, iris().set_axis(["x0", "x1", "x2", "x3"], axis=1), "sklearn", "kmeans.pkl")


@cache
def text() -> Trained:
    import pandas as pd
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    prose, labels = zip(*REVIEWS, strict=True)
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(prose, labels)
    return Trained(model, pd.DataFrame({"text": prose}), "sklearn", "text.joblib")


@cache
def wide_200() -> Trained:
    from sklearn.linear_model import LinearRegression

    return Trained(LinearRegression().fit(wide(200), wide(200)["c0"] * 2), wide(200), "sklearn", "wide.joblib")


@cache
def wide_5000() -> Trained:
    from sklearn.linear_model import Ridge

    return Trained(Ridge().fit(wide(5000), wide(5000)["c0"] * 2), wide(5000), "sklearn", "wide.pkl")


def large_forest(path: Path, megabytes: int = 300) -> Path:
    """A forest of about `megabytes`, written to `path` with joblib in some seconds; not kept in memory. One tree, many times."""
    from copy import deepcopy

    import joblib
    from sklearn.ensemble import RandomForestRegressor

    random = np.random.default_rng(0)
    model = RandomForestRegressor(1, random_state=0).fit(random.normal(size=(20_000, 4)), random.normal(size=20_000))
    tree = model.estimators_[0]
    count = max(1, megabytes * 1_000_000 // len(pickle.dumps(tree)))
    model.set_params(n_estimators=count)
    model.estimators_ = [deepcopy(tree) for _ in range(count)]
    joblib.dump(model, path)
    return path


# XGBoost


@cache
def xgboost_classifier() -> Trained:
    """Three classes, a categorical column, missing values; the scikit-learn class."""
    from xgboost import XGBClassifier

    frame = categorical_houses()
    model = XGBClassifier(n_estimators=10, max_depth=3, enable_categorical=True, n_jobs=1).fit(frame, band(houses()))
    return Trained(model, frame, "xgboost", "xgb_classifier.pkl")


@cache
def xgboost_regressor() -> Trained:
    """The shipping story: five numbers to a price, in a pickle."""
    from xgboost import XGBRegressor

    model = XGBRegressor(n_estimators=20, max_depth=4, n_jobs=1).fit(shipping(), shipping_price(shipping()))
    return Trained(model, shipping(), "xgboost", "shipping.pkl")


@cache
def xgboost_booster() -> Trained:
    """The native class, two classes, a categorical column; kept as UBJSON."""
    import xgboost

    frame = categorical_houses()
    data = xgboost.DMatrix(frame, label=cheap(houses()) == "dear", enable_categorical=True)
    model = xgboost.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, data, 10)
    return Trained(model, frame, "xgboost", "booster.ubj")


@cache
def xgboost_booster_numbers() -> Trained:
    """The native class, trained on a bare matrix; kept as JSON."""
    import xgboost

    data = xgboost.DMatrix(shipping().to_numpy(), label=shipping_price(shipping()))
    model = xgboost.train({"max_depth": 3, "nthread": 1}, data, 10)
    return Trained(model, shipping().set_axis([f"x{index}" for index in range(5)], axis=1), "xgboost", "booster.json")


# LightGBM


@cache
def lightgbm_classifier() -> Trained:
    """Labels in words, a categorical column, missing values; the scikit-learn class."""
    from lightgbm import LGBMClassifier

    frame = categorical_houses()
    model = LGBMClassifier(n_estimators=10, num_leaves=7, n_jobs=1, verbose=-1).fit(frame, cheap(houses()))
    return Trained(model, frame, "lightgbm", "lgbm_classifier.pkl")


@cache
def lightgbm_regressor() -> Trained:
    from lightgbm import LGBMRegressor

    model = LGBMRegressor(n_estimators=10, num_leaves=7, n_jobs=1, verbose=-1).fit(shipping(), shipping_price(shipping()))
    return Trained(model, shipping(), "lightgbm", "lgbm_regressor.joblib")


@cache
def lightgbm_booster() -> Trained:
    """The native class, three classes, a categorical column; kept as text."""
    import lightgbm

    frame = categorical_houses().rename(columns={"Größe (m²)": "Größe", "has garden": "garden"})
    data = lightgbm.Dataset(frame, label=band(houses()), free_raw_data=False)
    settings = {"objective": "multiclass", "num_class": 3, "num_leaves": 7, "verbose": -1, "num_threads": 1}
    return Trained(lightgbm.train(settings, data, 10), frame, "lightgbm", "booster.txt")


# CatBoost


@cache
def catboost_houses() -> Any:
    frame = houses().drop(columns=["note"])
    frame["city"] = frame["city"].fillna("unknown")
    return frame


@cache
def catboost_classifier() -> Trained:
    """Labels in words, two categorical columns, missing numbers; in a pickle."""
    from catboost import CatBoostClassifier

    model = CatBoostClassifier(
        iterations=10, depth=3, cat_features=["class", "city"], thread_count=1, verbose=False, allow_writing_files=False, random_seed=0
    )
    return Trained(model.fit(catboost_houses(), cheap(houses())), catboost_houses(), "catboost", "catboost.pkl")


@cache
def catboost_regressor() -> Trained:
    """Numbers alone; kept in CatBoost's own format."""
    from catboost import CatBoostRegressor

    model = CatBoostRegressor(iterations=10, depth=3, thread_count=1, verbose=False, allow_writing_files=False, random_seed=0)
    return Trained(model.fit(shipping(), shipping_price(shipping())), shipping(), "catboost", "regressor.cbm")


@cache
def catboost_native() -> Trained:
    """The class CatBoost itself, three classes, trained on a Pool with a categorical column."""
    import catboost

    frame = catboost_houses()[["Größe (m²)", "rooms", "class"]]
    pool = catboost.Pool(frame, label=band(houses()), cat_features=["class"])
    settings = {
        "loss_function": "MultiClass",
        "iterations": 10,
        "depth": 3,
        "thread_count": 1,
        "verbose": False,
        "allow_writing_files": False,
        "random_seed": 0,
    }
    return Trained(catboost.train(pool, settings), frame, "catboost", "native.cbm")


# ONNX


@cache
def onnx_svc() -> Trained:
    """Converted by skl2onnx: one matrix in, a label in words and a vector of probabilities out."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000).fit(iris().to_numpy(), iris_species())
    graph = to_onnx(model, initial_types=[("X", FloatTensorType([None, 4]))], options={"zipmap": False})
    return Trained(graph.SerializeToString(), iris().set_axis(["x0", "x1", "x2", "x3"], axis=1), "onnx", "iris.onnx")


@cache
def onnx_pipeline() -> Trained:
    """Converted by skl2onnx with one input a column, strings among them, and the ZipMap output that is its default."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = houses()[["Größe (m²)", "rooms", "class"]].set_axis(["Größe", "rooms", "class"], axis=1).astype({"rooms": float})
    prepare = ColumnTransformer(
        [("numbers", StandardScaler(), ["Größe", "rooms"]), ("words", OneHotEncoder(handle_unknown="ignore"), ["class"])]
    )
    model = make_pipeline(prepare, LogisticRegression()).fit(frame, cheap(houses()))
    kinds = {"class": StringTensorType([None, 1])}
    graph = to_onnx(model, initial_types=[(name, kinds.get(name, FloatTensorType([None, 1]))) for name in frame.columns])
    return Trained(graph.SerializeToString(), frame, "onnx", "pipeline.onnx")


@cache
def onnx_xgboost() -> Trained:
    """A regressor converted by onnxmltools."""
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType
    from xgboost import XGBRegressor

    model = XGBRegressor(n_estimators=20, max_depth=4, n_jobs=1).fit(shipping().to_numpy(), shipping_price(shipping()))
    graph = convert_xgboost(model, initial_types=[("input", FloatTensorType([None, 5]))])
    return Trained(graph.SerializeToString(), shipping().set_axis([f"x{index}" for index in range(5)], axis=1), "onnx", "shipping.onnx")


MODELS: dict[str, Callable[[], Trained]] = {
    function.__name__: function
    for function in (
        iris_svc, iris_svc_proba, random_forest, hist_gradient_boosting, hist_gradient_boosting_numbers, pipeline, strict_pipeline,
        grid_search, multi_output, multi_label, isolation_forest, kmeans, text, wide_200, wide_5000,
        xgboost_classifier, xgboost_regressor, xgboost_booster, xgboost_booster_numbers,
        lightgbm_classifier, lightgbm_regressor, lightgbm_booster,
        catboost_classifier, catboost_regressor, catboost_native,
        onnx_svc, onnx_pipeline, onnx_xgboost,
    )
}  # fmt: skip
"""Every model above by name."""
