"""How alike models and their ONNX graphs answer, and how fast: every kind of model that is converted, as `modelport pack` does it."""

from __future__ import annotations

import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 1000
_CALLS, _LONGEST_S = 40, 0.5
COLUMNS = (
    "model", "rows", "flips", "largest difference", "precision, or why native", "1 row: native", "ONNX", "1,000 rows: native", "ONNX",
    "pickle kB", "ONNX kB",
)  # fmt: skip


def run(*options: str) -> str:
    """The table. Options: parts of the names of the models to show."""
    lines = []
    for name, make in MODELS.items():
        if options and not any(word in name for word in options):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lines.append(_line(name, *make()))
    shown = ("scikit-learn", "xgboost-cpu", "lightgbm", "catboost", "skl2onnx", "onnxruntime", "numpy")
    head = [
        "# Parity",
        "",
        "`python -m bench parity`: each model is packed with its 1,000 training rows as the sample, and asked these and up to 2,000 rows",
        "made from the model itself: on and beside its thresholds, at its categories, with missing values. A graph passes when no label",
        "flips and no number is off by 1e-4 (relative for regression); single precision is tried first, then double. Times are the",
        "shortest of some calls, in ms, with one thread, without HTTP.",
        f"Python {platform.python_version()}; {', '.join(f'{one} {version(one)}' for one in shown)}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
    ]
    return "\n".join([*head, *lines]) + "\n"


def _line(name: str, model: Any, frame: Any) -> str:
    import pickle

    from modelport import engines
    from modelport.packing import Options, pack_file

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = folder / "model.pkl"
        path.write_bytes(pickle.dumps(model))
        (folder / "bundle").mkdir()
        bundle = pack_file(path, folder / "bundle", Options(name="model", sample=frame))
        proof = bundle.read_json("parity.json")
        columns = _columns(bundle, frame)
        speeds = _speeds(engines.load(bundle, "native"), columns)
        sizes = f"{path.stat().st_size / 1000:,.0f}"
        if proof["passed"]:
            faster = _speeds(engines.load(bundle, "onnx"), columns)
            precision, size = proof["precision"], f"{bundle.files['model.onnx']['size'] / 1000:,.0f}"
        else:
            faster, precision, size = ("", ""), proof["reason"], ""
    far = "" if proof["largest_difference"] is None or not proof["rows"] else f"{proof['largest_difference']:.1g}"
    rows = f"{proof['rows']:,}" if proof["rows"] else ""
    flips = str(proof["flips"]) if proof["rows"] else ""
    cells = (name, rows, flips, far, precision, speeds[0], faster[0], speeds[1], faster[1], sizes, size)
    return f"| {' | '.join(cells)} |"


def _columns(bundle: Any, frame: Any) -> Mapping[str, Any]:
    """The frame as the columns of the bundle's signature."""
    from modelport.samples import from_object
    from modelport.signature import to_array

    sample = from_object(frame)
    by_kept = {name.replace(" ", "_"): name for name in sample.columns}
    fields = bundle.signature.inputs
    return {field.name: to_array(field, sample.columns[by_kept[field.name.replace(" ", "_")]]) for field in fields}


def _speeds(engine: Any, columns: Mapping[str, Any]) -> tuple[str, str]:
    """Milliseconds for one row and for 1,000."""
    one = {name: array[:1] for name, array in columns.items()}
    many = {name: np.resize(array, ROWS) for name, array in columns.items()}
    return f"{_shortest(lambda: engine.predict(one)):.3f}", f"{_shortest(lambda: engine.predict(many)):.1f}"


def _shortest(call: Callable[[], Any]) -> float:
    call()
    times: list[float] = []
    while len(times) < _CALLS and sum(times) < _LONGEST_S:
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return min(times) * 1000


# Models


def _frame() -> Any:
    """1,000 houses: numbers, some missing, strings, some missing, and a flag."""
    import pandas as pd

    random = np.random.default_rng(7)
    rows = ROWS
    frame = pd.DataFrame(
        {
            "size": random.normal(90, 25, rows).round(1),
            "rooms": random.integers(1, 7, rows),
            "year": random.integers(1900, 2025, rows).astype(float),
            "walls": random.choice(["brick", "timber", "stone"], rows),
            "city": random.choice(["Jena", "Köln", "Łódź", "New York"], rows),
            "garden": random.random(rows) < 0.4,
        }
    )
    frame.loc[random.random(rows) < 0.1, "year"] = np.nan
    frame.loc[random.random(rows) < 0.1, "city"] = np.nan
    return frame


def _price(frame: Any) -> Any:
    worth = frame["size"] * 30 + frame["rooms"] * 100 + frame["walls"].map({"brick": 0, "timber": -200, "stone": 400})
    noise = np.random.default_rng(8).normal(0, 300, len(frame))
    return (worth + frame["year"].fillna(1960) - 1900 + frame["garden"] * 250).to_numpy(dtype=float) + noise


def _band(frame: Any) -> Any:
    price = _price(frame)
    return np.digitize(price, np.quantile(price, [1 / 3, 2 / 3]))


def _word(frame: Any) -> Any:
    price = _price(frame)
    return np.where(price < np.median(price), "cheap", "dear")


def _numbers(*, missing: bool = False) -> Any:
    frame = _frame()[["size", "rooms", "year"]]
    return frame if missing else frame.fillna(1960.0)


def _prepare(**options: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    return ColumnTransformer(
        [("numbers", scaled, ["size", "rooms", "year"]), ("words", words, ["walls", "city"]), ("flags", "passthrough", ["garden"])],
        **options,
    )


def _on_numbers(estimator: Any, target: Callable[[Any], Any] = _band, *, missing: bool = False) -> tuple[Any, Any]:
    frame = _numbers(missing=missing)
    return estimator.fit(frame, target(_frame())), frame


def _scaled(estimator: Any, target: Callable[[Any], Any] = _band) -> tuple[Any, Any]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return _on_numbers(make_pipeline(StandardScaler(), estimator), target)


def _piped(estimator: Any, target: Callable[[Any], Any] = _word) -> tuple[Any, Any]:
    from sklearn.pipeline import make_pipeline

    return make_pipeline(_prepare(), estimator).fit(_frame(), target(_frame())), _frame()


def _ensemble(name: str, target: Callable[[Any], Any] = _band, *, missing: bool = False, **settings: Any) -> tuple[Any, Any]:
    from sklearn import ensemble

    return _on_numbers(getattr(ensemble, name)(random_state=0, **settings), target, missing=missing)


def _hist_with_categories() -> tuple[Any, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    frame = _with_categories()
    return HistGradientBoostingClassifier(random_state=0).fit(frame, _word(_frame())), frame


def _with_categories() -> Any:
    frame = _frame().drop(columns="city")
    return frame.assign(walls=frame["walls"].astype("category"))


def _piped_in(package: str, name: str, target: Callable[[Any], Any], **settings: Any) -> tuple[Any, Any]:
    from importlib import import_module

    return _piped(getattr(import_module(package), name)(**settings), target)


def _sklearn(place: str, **settings: Any) -> Any:
    from importlib import import_module

    module, _, name = place.rpartition(".")
    return getattr(import_module(f"sklearn.{module}"), name)(**settings)


def _several_ridges() -> tuple[Any, Any]:
    frame = _numbers()
    return _sklearn("linear_model.Ridge").fit(frame, np.column_stack([_price(_frame()), _band(_frame())])), frame


def _grid() -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    return _on_numbers(GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=3))


def _words() -> tuple[Any, Any]:
    import pandas as pd
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    random = np.random.default_rng(9)
    known = [
        f"{first}{last}" for first in ("good", "bad", "film", "slow", "warm", "cold", "long", "kind") for last in ("", "ly", "er", "est")
    ]
    texts = [" ".join(random.choice(known, random.integers(3, 15))) for _ in range(ROWS)]
    labels = ["good" if sum(word.startswith(("good", "warm", "kind")) for word in text.split()) > 3 else "bad" for text in texts]
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels), pd.DataFrame({"text": texts})


def _unsupervised(place: str, **settings: Any) -> tuple[Any, Any]:
    return _sklearn(place, **settings).fit(_numbers()), _numbers()


def _xgboost(name: str, target: Callable[[Any], Any], **settings: Any) -> tuple[Any, Any]:
    import xgboost

    return _on_numbers(getattr(xgboost, name)(n_estimators=100, max_depth=6, n_jobs=1, **settings), target, missing=True)


def _xgboost_with_categories() -> tuple[Any, Any]:
    from xgboost import XGBClassifier

    frame = _with_categories()
    labels = (_word(_frame()) == "dear").astype(int)
    return XGBClassifier(n_estimators=20, enable_categorical=True, n_jobs=1).fit(frame, labels), frame


def _lightgbm(name: str, target: Callable[[Any], Any], frame: Any = None) -> tuple[Any, Any]:
    import lightgbm

    frame = _numbers(missing=True) if frame is None else frame
    return getattr(lightgbm, name)(n_estimators=100, n_jobs=1, verbose=-1).fit(frame, target(_frame())), frame


def _catboost(name: str, target: Callable[[Any], Any], **settings: Any) -> tuple[Any, Any]:
    import catboost

    said = {"iterations": 100, "thread_count": 1, "verbose": False, "allow_writing_files": False, "random_seed": 0}
    frame = _frame().assign(city=_frame()["city"].fillna("")) if settings else _numbers(missing=True)
    return getattr(catboost, name)(**said, **settings).fit(frame, target(_frame())), frame


MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "SVC, probabilities": lambda: _scaled(_sklearn("svm.SVC", probability=True, random_state=0)),
    "SVC, linear": lambda: _scaled(_sklearn("svm.SVC", kernel="linear")),
    "SVR": lambda: _scaled(_sklearn("svm.SVR", C=100.0), _price),
    "LogisticRegression, scaled": lambda: _scaled(_sklearn("linear_model.LogisticRegression")),
    "Ridge, two numbers": _several_ridges,
    "GridSearchCV of a scaler and LogisticRegression": _grid,
    "RandomForestClassifier, 100 trees": lambda: _ensemble("RandomForestClassifier"),
    "RandomForestRegressor, 100 trees": lambda: _ensemble("RandomForestRegressor", _price),
    "ExtraTreesClassifier, 100 trees": lambda: _ensemble("ExtraTreesClassifier"),
    "GradientBoostingClassifier": lambda: _ensemble("GradientBoostingClassifier"),
    "GradientBoostingRegressor": lambda: _ensemble("GradientBoostingRegressor", _price),
    "HistGradientBoostingClassifier, missing values": lambda: _ensemble("HistGradientBoostingClassifier", missing=True),
    "HistGradientBoostingRegressor, missing values": lambda: _ensemble("HistGradientBoostingRegressor", _price, missing=True),
    "HistGradientBoostingClassifier, categories": _hist_with_categories,
    "KNeighborsClassifier, ties": lambda: _on_numbers(_sklearn("neighbors.KNeighborsClassifier")),
    "KNeighborsRegressor, scaled": lambda: _scaled(_sklearn("neighbors.KNeighborsRegressor"), _price),
    "GaussianNB": lambda: _on_numbers(_sklearn("naive_bayes.GaussianNB")),
    "MLPClassifier": lambda: _scaled(_sklearn("neural_network.MLPClassifier", max_iter=300, random_state=0)),
    "IsolationForest": lambda: _unsupervised("ensemble.IsolationForest", random_state=0),
    "KMeans": lambda: _unsupervised("cluster.KMeans", n_clusters=5, n_init=1, random_state=0),
    "TfidfVectorizer and LogisticRegression": _words,
    "strings: ColumnTransformer and LogisticRegression": lambda: _piped(_sklearn("linear_model.LogisticRegression", max_iter=1000)),
    "strings: ColumnTransformer and RandomForestClassifier": lambda: _piped(_sklearn("ensemble.RandomForestClassifier", random_state=0)),
    "strings: ColumnTransformer and GradientBoostingRegressor": lambda: _piped(
        _sklearn("ensemble.GradientBoostingRegressor", random_state=0), _price
    ),
    "strings: ColumnTransformer and XGBClassifier": lambda: _piped_in("xgboost", "XGBClassifier", _band, n_jobs=1),
    "strings: ColumnTransformer and LGBMClassifier": lambda: _piped_in("lightgbm", "LGBMClassifier", _word, n_jobs=1, verbose=-1),
    "XGBClassifier, three classes": lambda: _xgboost("XGBClassifier", _band),
    "XGBRegressor": lambda: _xgboost("XGBRegressor", _price),
    "XGBClassifier, enable_categorical": _xgboost_with_categories,
    "LGBMClassifier": lambda: _lightgbm("LGBMClassifier", _word),
    "LGBMRegressor": lambda: _lightgbm("LGBMRegressor", _price),
    "LGBMClassifier, categories": lambda: _lightgbm("LGBMClassifier", _band, _with_categories()),
    "CatBoostClassifier": lambda: _catboost("CatBoostClassifier", _word),
    "CatBoostRegressor": lambda: _catboost("CatBoostRegressor", _price),
    "CatBoostClassifier, categories": lambda: _catboost("CatBoostClassifier", _word, cat_features=["walls", "city"]),
}
