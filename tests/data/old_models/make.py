"""Make the old models in the folders beside this file, each by the libraries of its time, with the answers it gave then.

    python tests/data/old_models/make.py [FOLDER ...]

makes an environment for each folder with uv, as the package index was at a date, and runs this file in it. It needs uv and the
interpreters that ENVIRONMENTS names (with pyenv: PYENV_VERSION=$(pyenv versions --bare | tr '\\n' :)), and keeps to Python 3.6, as it
runs in all of them. It writes the same bytes again, as far as the libraries do: CatBoost puts a time and an id into its models.

A model is NAME.pkl or NAME.joblib, its answers are NAME.json:

    made_by        the versions of Python and of what was installed
    columns        the names of the columns that it was trained on; null when it was trained on a bare matrix
    rows           what it was asked, a list a row; null for a missing value
    prediction     what it answered, one value a row
    classes        the labels in the order of the probabilities, when it gives any
    probabilities  a list a row
"""

import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

ENVIRONMENTS = {
    # what it is called: (Python, the index as of, what is installed)
    "joblib-0.9.4": ("3.6", "2018-09-01", ["joblib==0.9.4", "scikit-learn==0.19.2", "numpy", "scipy"]),
    "scikit-learn-0.19.2": ("3.6", "2018-09-01", ["scikit-learn==0.19.2", "numpy", "scipy"]),
    "scikit-learn-0.24.2": ("3.9", "2021-06-15", ["scikit-learn==0.24.2", "pandas"]),
    "scikit-learn-1.0.2": ("3.10", "2022-02-15", ["scikit-learn==1.0.2", "pandas"]),
    "scikit-learn-1.1.3": ("3.11", "2022-12-15", ["scikit-learn==1.1.3", "pandas"]),
    "scikit-learn-1.3.2": ("3.11", "2023-12-15", ["scikit-learn==1.3.2", "pandas"]),
    "scikit-learn-1.5.2": ("3.12", "2024-11-15", ["scikit-learn==1.5.2", "pandas"]),
    "scikit-learn-1.7.2": ("3.13", "2025-10-31", ["scikit-learn==1.7.2", "pandas"]),
    "scikit-learn-1.8.0": ("3.13", "2026-01-31", ["scikit-learn==1.8.0", "pandas"]),
    "xgboost-1.6.2": ("3.10", "2022-12-15", ["xgboost==1.6.2", "scikit-learn==1.1.3", "pandas", "setuptools<81"]),
    "lightgbm-3.3.5": ("3.10", "2023-04-30", ["lightgbm==3.3.5", "scikit-learn==1.2.2", "pandas"]),
    "catboost-1.2": ("3.11", "2023-06-30", ["catboost==1.2", "scikit-learn==1.2.2", "pandas"]),
    "cloudpickle-python3.8": ("3.8", "2023-12-15", ["cloudpickle==3.0.0", "scikit-learn==1.3.2", "pandas"]),
    "cloudpickle-python3.13": ("3.13", "2025-10-31", ["cloudpickle==3.1.1", "scikit-learn==1.7.2", "pandas"]),
}
INSTALL_S = 900


def main():
    """Make all folders, or those that are named; with --here, one of them by this interpreter."""
    words = sys.argv[1:]
    if words[:1] == ["--here"]:
        fill(words[1])
        return
    for name in words or ENVIRONMENTS:
        python, until, packages = ENVIRONMENTS[name]
        with tempfile.TemporaryDirectory() as folder:
            run("uv", "venv", "--quiet", "--python", python, folder)
            run("uv", "pip", "install", "--quiet", "--python", folder, "--only-binary", ":all:", "--exclude-newer", until, *packages)
            run(str(Path(folder) / "bin" / "python"), "-I", "-W", "ignore", __file__, "--here", name)


def run(*words):
    subprocess.run(words, check=True, timeout=INSTALL_S)


def fill(name):
    """Write all models of the folder `name`."""
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for model, how, held, rows, answers in MAKERS[name.split("-")[0]]():
        path = folder / (model + (".joblib" if how.startswith("joblib") else ".pkl"))
        write(path, how, held)
        size = path.stat().st_size
        if rows is not None:
            said = {"made_by": versions()}
            said.update(asked(rows))
            said.update(answers if answers is not None else answered(held, rows))
            text = ",\n".join(f"{json.dumps(key)}: {plain(value)}" for key, value in said.items())
            path.with_suffix(".json").write_text("{\n" + text + "\n}\n", encoding="utf-8")
            size += path.with_suffix(".json").stat().st_size
        print(f"{name:24}{path.name:28}{size:>8} bytes")


def write(path, how, model):
    """The model in the file `path`, `how`: "pickle", "pickle 2" for that protocol, "joblib", "joblib xz" for that compression."""
    way, _, detail = how.partition(" ")
    if way == "pickle":
        path.write_bytes(pickle.dumps(model, int(detail)) if detail else pickle.dumps(model))
    elif way == "cloudpickle":
        import cloudpickle

        path.write_bytes(cloudpickle.dumps(model))
    else:
        joblib().dump(model, str(path), compress=int(detail) if detail.isdigit() else (detail, 3) if detail else 0)


def joblib():
    try:
        import joblib
    except ImportError:
        from sklearn.externals import joblib
    return joblib


def versions():
    """The versions of Python and of the libraries that are here."""
    import importlib

    found = {"python": sys.version.split()[0]}
    for module, name in [
        ("catboost", "catboost"),
        ("joblib", "joblib"),
        ("lightgbm", "lightgbm"),
        ("numpy", "numpy"),
        ("pandas", "pandas"),
        ("sklearn", "scikit-learn"),
        ("xgboost", "xgboost"),
    ]:
        try:
            found[name] = importlib.import_module(module).__version__
        except ImportError:
            continue
    return found


def asked(rows):
    """The rows as JSON has them: categories as their values, NaN as null."""
    columns = list(rows.columns) if hasattr(rows, "columns") else None
    values = rows.values.tolist() if columns else rows.tolist()
    return {"columns": columns, "rows": [[None if value is None or value != value else value for value in row] for row in values]}


def answered(model, rows):
    """What an estimator answers to `rows`."""
    said = {"prediction": list(model.predict(rows))}
    if hasattr(model, "predict_proba"):
        said["classes"] = model.classes_
        said["probabilities"] = model.predict_proba(rows)
    return said


def plain(value):
    """A value as JSON, with the values of numpy as Python's own, and a line for each row of a list of lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        value = [one.item() if hasattr(one, "item") else one for one in value]
        if value and isinstance(value[0], list):
            return "[\n" + ",\n".join(map(plain, value)) + "\n]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


# What the models are trained on, and what they are asked


SEPALS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
SPECIES = ["setosa", "versicolor", "virginica"]


def iris():
    """Every second flower: the matrix, in centimetres to a tenth, and the numbers of the species."""
    from sklearn.datasets import load_iris

    found = load_iris()
    return found.data[::2], found.target[::2]


def iris_rows():
    """Some of the other flowers, and some that may never have been, to a twentieth: many values lie on the splits of trees."""
    import numpy as np
    from sklearn.datasets import load_iris

    random = np.random.RandomState(7)
    made = np.column_stack([random.randint(low, high, 14) / 20 for low, high in [(86, 158), (40, 88), (20, 138), (2, 50)]])
    return np.concatenate([load_iris().data[1::14], made])


def species(numbers):
    """The names of species, as an array of objects."""
    import numpy as np

    return np.array(SPECIES, dtype=object)[numbers]


def named(matrix, names):
    """A matrix as a frame; as it is where pandas is not installed."""
    try:
        import pandas as pd
    except ImportError:
        return matrix
    return pd.DataFrame(matrix, columns=names)


NUMBERS = ["area", "rooms", "built"]
WORDS = ["district", "garden"]
DISTRICTS = ["Centre", "Harbour", "Hill", "Old Town"]


def houses(count=120, seed=3, step=2):
    """A frame of houses with missing areas, years and districts; areas are multiples of 1/step."""
    import numpy as np
    import pandas as pd

    random = np.random.RandomState(seed)
    frame = pd.DataFrame(
        {
            "area": random.randint(30 * step, 200 * step, count) / step,
            "rooms": random.randint(1, 8, count),
            "built": random.randint(1900, 2021, count).astype(float),
            "district": np.array(DISTRICTS, dtype=object)[random.randint(0, 4, count)],
            "garden": np.array(["no", "yes"], dtype=object)[random.randint(0, 2, count)],
        }
    )
    for name in ("area", "built", "district"):
        frame.loc[random.rand(count) < 0.1, name] = np.nan
    return frame


def price(frame):
    """The price of a house in thousands, as a function of all of its columns."""
    district = frame["district"].map({"Centre": 90.0, "Harbour": 60.0, "Hill": 20.0, "Old Town": 40.0}).fillna(30.0)
    area = frame["area"].fillna(100.0) * 2.5 + frame["rooms"] * 7.0
    return (area + district + (frame["garden"] == "yes") * 35.0 - (2021 - frame["built"].fillna(1960.0)) * 0.8).values


def band(frame):
    """Whether a house is cheap or dear, as an array of objects."""
    import numpy as np

    return np.where(price(frame) < 330.0, "cheap", "dear").astype(object)


def house_rows():
    """Other houses, by the quarter of a square metre; the last ones have a district that nobody knows, and nothing but a garden."""
    import numpy as np

    frame = houses(24, seed=11, step=4)
    frame.loc[22, "district"] = "Atlantis"
    frame.loc[23, ["area", "built", "district"]] = np.nan
    return frame


def coded(frame, kind="category"):
    """A frame whose words are pandas categoricals of the districts and of yes and no, or the numbers of these."""
    import pandas as pd

    out = frame.copy()
    for name, values in (("district", DISTRICTS), ("garden", ["no", "yes"])):
        column = pd.Categorical(frame[name], categories=values)
        out[name] = column if kind == "category" else pd.Series(column.codes, dtype=float).replace(-1.0, float("nan"))
    return out


def pipeline(estimator):
    """Imputers, a scaler and a tolerant encoder in a ColumnTransformer before an estimator, as tutorials have it."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = Pipeline([("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler())])
    words = Pipeline([("impute", SimpleImputer(strategy="most_frequent")), ("encode", OneHotEncoder(handle_unknown="ignore"))])
    prepare = ColumnTransformer([("numbers", numbers, NUMBERS), ("words", words, WORDS)])
    return Pipeline([("prepare", prepare), ("estimate", estimator)])


# The models: name, how it is written, the model, what it is asked, and its answers where it does not give them by itself


def sklearn_models():
    import sklearn
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    minor = tuple(map(int, sklearn.__version__.split(".")[:2]))
    flowers, kinds = iris()
    rows = iris_rows()
    names = species(kinds)
    yield ("svc", "pickle 2", svc(), named(rows, SEPALS), None)
    yield ("logistic", "pickle", LogisticRegression(solver="lbfgs", max_iter=1000).fit(flowers, kinds), rows, None)
    forest = RandomForestClassifier(n_estimators=5, max_depth=4, random_state=0).fit(named(flowers, SEPALS), names)
    yield ("forest", "joblib", forest, named(rows, SEPALS), None)
    yield ("knn", "pickle", KNeighborsClassifier(n_neighbors=5).fit(flowers, names), rows, None)
    boosting = GradientBoostingClassifier(n_estimators=5, max_depth=2, random_state=0).fit(flowers, kinds)
    yield ("boosting", "joblib 3", boosting, rows, None)
    if minor < (0, 24):
        return  # it knows neither ColumnTransformer nor histograms, and uv cannot read what pandas of its time says of itself
    train = houses().fillna({"area": 100.0, "built": 1960.0})
    full = house_rows().fillna({"area": 100.0, "built": 1960.0})
    regressor = GradientBoostingRegressor(n_estimators=12, max_depth=2, random_state=0).fit(train[NUMBERS], price(train))
    yield ("boosting_regressor", "joblib xz", regressor, full[NUMBERS], None)
    if minor < (1, 0):
        from sklearn.experimental import enable_hist_gradient_boosting  # noqa: F401 it makes the next import possible
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    settings = {"max_iter": 8, "max_leaf_nodes": 6, "max_bins": 32, "min_samples_leaf": 5, "random_state": 0}
    train, asking = houses(), house_rows()
    hist = HistGradientBoostingClassifier(**settings).fit(train[NUMBERS], band(train))
    yield ("hist", "joblib 3", hist, asking[NUMBERS], None)
    numbers = train[NUMBERS].values.astype(float)
    hist = HistGradientBoostingRegressor(**settings).fit(numbers, price(train))
    yield ("hist_regressor", "joblib bz2", hist, asking[NUMBERS].values.astype(float), None)
    yield ("pipeline", "pickle", pipeline(LogisticRegression(max_iter=1000)).fit(train, band(train)), asking, None)
    forest = RandomForestClassifier(n_estimators=8, max_depth=5, random_state=0)
    yield ("pipeline_forest", "joblib lzma", pipeline(forest).fit(train, band(train)), asking, None)


def svc():
    """The support vector machine of the iris tutorials, with probabilities, trained on a frame, its labels words."""
    from sklearn.svm import SVC

    flowers, kinds = iris()
    return SVC(kernel="rbf", gamma=0.5, probability=True, random_state=0).fit(named(flowers, SEPALS), species(kinds))


def joblib_models():
    """In the layout of joblib before 0.10, which begins with ZF."""
    yield ("svc", "joblib 3", svc(), iris_rows(), None)


def xgboost_models():
    import xgboost
    from xgboost import XGBClassifier, XGBRegressor

    train, asking = houses(), house_rows()
    dear = (band(train) == "dear").astype(int)
    settings = {"n_estimators": 6, "max_depth": 3, "n_jobs": 1}
    classifier = XGBClassifier(use_label_encoder=False, **settings).fit(train[NUMBERS], dear)
    yield ("classifier", "pickle", classifier, asking[NUMBERS], None)
    regressor = XGBRegressor(**settings).fit(train[NUMBERS], price(train))
    yield ("regressor", "pickle 2", regressor, asking[NUMBERS], None)
    # this version keeps the numbers of categories and not their values: that is what it is asked, today
    by_category = XGBClassifier(use_label_encoder=False, tree_method="hist", enable_categorical=True, **settings)
    by_category.fit(coded(train), dear)
    yield ("categories", "joblib", by_category, coded(asking, "numbers"), answered(by_category, coded(asking)))
    flowers, kinds = iris()
    booster = xgboost.train(
        {"objective": "multi:softprob", "num_class": 3, "max_depth": 2, "nthread": 1}, xgboost.DMatrix(flowers, label=kinds), 5
    )
    chances = booster.predict(xgboost.DMatrix(iris_rows()))
    answers = {"prediction": chances.argmax(axis=1), "classes": [0, 1, 2], "probabilities": chances}
    yield ("booster", "pickle", booster, iris_rows(), answers)
    piped = pipeline(XGBClassifier(use_label_encoder=False, **settings)).fit(train, dear)
    yield ("pipeline", "joblib 3", piped, asking, None)


def lightgbm_models():
    import lightgbm
    from lightgbm import LGBMClassifier, LGBMRegressor

    train, asking = houses(), house_rows()
    settings = {"n_estimators": 6, "num_leaves": 5, "min_child_samples": 8, "n_jobs": 1, "random_state": 0}
    yield ("classifier", "pickle", LGBMClassifier(**settings).fit(train[NUMBERS], band(train)), asking[NUMBERS], None)
    by_category = LGBMClassifier(**settings).fit(coded(train), band(train))
    yield ("categories", "joblib", by_category, asking, answered(by_category, coded(asking)))
    numbers = train[NUMBERS].values.astype(float)
    regressor = LGBMRegressor(**settings).fit(numbers, price(train))
    yield ("regressor", "joblib 3", regressor, asking[NUMBERS].values.astype(float), None)
    flowers, kinds = iris()
    learning = {"objective": "multiclass", "num_class": 3, "num_leaves": 4, "min_data_in_leaf": 8, "num_threads": 1, "verbose": -1}
    booster = lightgbm.train(learning, lightgbm.Dataset(flowers, label=kinds), 5)
    chances = booster.predict(iris_rows())
    answers = {"prediction": chances.argmax(axis=1), "classes": [0, 1, 2], "probabilities": chances}
    yield ("booster", "pickle", booster, iris_rows(), answers)


def catboost_models():
    from catboost import CatBoost, CatBoostClassifier, CatBoostRegressor, Pool

    train, asking = houses().fillna({"district": "unknown"}), house_rows().fillna({"district": "unknown"})
    settings = {"iterations": 6, "depth": 3, "thread_count": 1, "verbose": False, "allow_writing_files": False, "random_seed": 0}
    by_category = CatBoostClassifier(cat_features=WORDS, max_ctr_complexity=1, **settings).fit(train, band(train))
    yield ("categories", "pickle", by_category, asking, None)
    yield ("classifier", "joblib", CatBoostClassifier(**settings).fit(train[NUMBERS], band(train)), asking[NUMBERS], None)
    numbers = train[NUMBERS].values.astype(float)
    regressor = CatBoostRegressor(**settings).fit(numbers, price(train))
    yield ("regressor", "joblib 3", regressor, asking[NUMBERS].values.astype(float), None)
    flowers, kinds = iris()
    booster = CatBoost(dict(settings, loss_function="MultiClass")).fit(Pool(flowers, label=kinds))
    chances = booster.predict(iris_rows(), prediction_type="Probability")
    answers = {"prediction": chances.argmax(axis=1), "classes": [0, 1, 2], "probabilities": chances}
    yield ("booster", "pickle", booster, iris_rows(), answers)


def cloudpickle_models():
    """Functions of this script, pickled with their code: what they do stands in the file as the bytecode of this Python."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    flowers, kinds = iris()
    model = make_pipeline(FunctionTransformer(lambda rows: rows * 2.0), LogisticRegression(max_iter=1000)).fit(flowers, kinds)
    yield ("function", "cloudpickle", lambda rows: model.predict(rows), None, None)
    yield ("pipeline", "cloudpickle", model, None, None)


MAKERS = {
    "scikit": sklearn_models,
    "joblib": joblib_models,
    "xgboost": xgboost_models,
    "lightgbm": lightgbm_models,
    "catboost": catboost_models,
    "cloudpickle": cloudpickle_models,
}

if __name__ == "__main__":
    main()
