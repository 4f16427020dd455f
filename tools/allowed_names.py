"""Make the allow-lists of src/modelport/frameworks/names from the libraries themselves.

    python tools/allowed_names.py PYTHON [PYTHON ...]

Each PYTHON is the interpreter of an environment with some versions of the libraries; names of all of them are gathered, for a model file
may be of any age. In each, this same file runs as `walk FOLDER` (so it keeps to the Python of then, 3.6): it lists the classes that hold
a model's data, and writes pickles of common values, whose imports are read by Modelport's own machine. The lists by hand below are
what no walk can find. torch.txt and fastai.txt are kept by hand.

What is left out on purpose: whatever loads files, runs code or calls what it is given (joblib.load, numpy.memmap, pandas.read_pickle,
sklearn.datasets, scipy.stats distributions, whose __setstate__ runs text as code).
"""

# ruff: noqa: UP031 one of the interpreters is Python 3.6

import inspect
import json
import pickle
import pkgutil
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

NAMES = Path(__file__).resolve().parent.parent / "src" / "modelport" / "frameworks" / "names"

BY_HAND = {
    "python": [
        "builtins." + name for name in ("bool", "bytearray", "bytes", "complex", "dict()", "float()", "frozenset", "int()", "list()")
    ]
    + ["builtins." + name for name in ("object", "range", "set()", "slice", "str", "tuple")]
    + ["_codecs.encode", "copyreg.__newobj__", "copyreg.__newobj_ex__", "copyreg._reconstructor"]
    + ["collections.Counter()", "collections.OrderedDict()", "collections.defaultdict", "collections.deque()", "decimal.Decimal()"]
    + ["datetime." + name + "()" for name in ("date", "datetime", "time", "timedelta", "timezone")]
    + ["builtins.FutureWarning", "builtins.DeprecationWarning", "fractions.Fraction()", "uuid.UUID"],
    "numpy": [
        "numpy." + module + "." + name
        for module in ("core", "_core")
        for name in (
            "_ufunc_reconstruct",
            "multiarray._reconstruct",
            "multiarray.scalar",
            "numeric._frombuffer",
        )
    ]
    + ["numpy.dtype", "numpy.ndarray", "numpy.matrix", "numpy.matrixlib.defmatrix.matrix", "numpy.recarray", "numpy.record", "numpy.void"]
    + ["numpy.ma.core._mareconstruct()", "numpy.ma.core.MaskedArray", "numpy.ma.MaskedArray", "numpy.ma.core.mvoid"]
    + ["numpy.random.__RandomState_ctor()", "numpy.random.mtrand.__RandomState_ctor()", "numpy.random.mtrand.RandomState"]
    + ["numpy.random._pickle.__" + name + "_ctor()" for name in ("bit_generator", "generator", "randomstate")]
    + ["numpy.random._" + name for name in ("mt19937.MT19937()", "pcg64.PCG64()", "pcg64.PCG64DXSM()", "philox.Philox()", "sfc64.SFC64()")]
    + ["numpy.random.bit_generator.SeedSequence", "numpy.random.bit_generator.__pyx_unpickle_SeedSequence()"]
    + ["numpy.random._generator.Generator", "numpy.random.bit_generator.SeedlessSequence"]
    + [
        place + name
        for place in ("numpy.", "numpy.core.fromnumeric.")
        for name in (
            "abs",
            "amax",
            "amin",
            "asarray",
            "clip",
            "max",
            "mean",
            "median",
            "min",
            "nan_to_num",
            "ravel",
            "round",
            "std",
            "sum",
            "var",
        )
    ],
    "joblib": ["joblib.numpy_pickle.NumpyArrayWrapper", "sklearn.externals.joblib.numpy_pickle.NumpyArrayWrapper"],
    "pandas": ["pandas.core.indexes.base._new_Index()"],
    "xgboost": [],
    "lightgbm": [],
    "catboost": [],
    "scipy": ["scipy._lib.array_api_compat.numpy._aliases.asarray"],
    "sklearn": [
        "sklearn.utils.validation.check_array",
        # HistGradientBoosting and others keep a partial of a function that is on the list itself; only what is called can call it
        "functools.partial()",
        "sklearn.cluster._kmeans._kmeans_single_lloyd",
        "sklearn.cluster._kmeans._kmeans_single_elkan",
        "sklearn.impute._iterative._ImputerTriplet()",
        "sklearn.impute._iterative.ImputerTriplet()",
        "sklearn.impute.ImputerTriplet()",
        "sklearn._loss.glm_distribution.DistributionBoundary()",
        "sklearn.covariance._graph_lasso._DictWithDeprecatedKeys",
        "sklearn.model_selection._classification_threshold._CurveScorer",
    ],
}
"""Names no walk finds. "()" behind one says that a pickle may call it with arguments."""

SKIPPED = (
    ".tests.", ".conftest", ".setup", "sklearn.datasets", "sklearn.externals", "sklearn.experimental", "sklearn.utils._testing",
    "sklearn.utils.testing", "sklearn.utils.estimator_checks", "sklearn.utils.mocking", "sklearn.utils._mocking",
    "sklearn.__check_build", "sklearn.utils._test_common", "xgboost.dask", "xgboost.spark", "xgboost.testing", "lightgbm.dask",
    "catboost.widget", "catboost.eval", "catboost.dev_utils", "scipy.stats", "scipy._lib", "scipy.io", "scipy.misc", "scipy.weave",
    "scipy.fft", "scipy.signal", "scipy.odr", "scipy.datasets",
)  # fmt: skip
"""Parts of the libraries that hold no models, or files and code."""

SKLEARN_CLASSES = (
    "sklearn._loss", "sklearn.calibration", "sklearn.cluster", "sklearn.compose", "sklearn.ensemble", "sklearn.gaussian_process",
    "sklearn.linear_model", "sklearn.metrics._dist_metrics", "sklearn.metrics._scorer", "sklearn.metrics.scorer",
    "sklearn.model_selection._split", "sklearn.neighbors", "sklearn.neural_network", "sklearn.tree", "sklearn.utils._bunch",
    "sklearn.utils._metadata_requests", "sklearn.utils._tags", "sklearn.utils.deprecation", "sklearn.cross_validation",
    "sklearn.kernel_approximation", "sklearn.naive_bayes",
)  # fmt: skip
"""Where classes that are no estimators hold parts of them: losses, trees, kernels, binners, splitters, scorers."""
SKLEARN_FUNCTIONS = ("sklearn.metrics", "sklearn.feature_selection", "sklearn.feature_extraction.text", "sklearn.neural_network._base")
SKLEARN_FUNCTIONS += ("sklearn.gaussian_process.correlation_models", "sklearn.gaussian_process.regression_models")
"""Whose functions stand as values in estimators: scores, kernels, the texts' accents. They may be named, not called."""
NOT_DATA = (
    "Builder", "CallbackBridge", "CallbackEnv", "Controller", "Display", "DrawTree", "Exporter", "FenwickTree", "Grower", "Heap",
    "MixIn", "Mixin", "PQueue", "Pruner", "PathFinder", "PyFuncDistance", "PyFuncDistance32", "PyFuncDistance64", "Partitioner",
    "Solver", "Stack", "UnionFind", "Warning", "_reingold_tilford.Tree", "Calculator", "deprecated", "error", "CenterStackOp",
    "SplitInfo",
)  # fmt: skip
"""How names end that no model holds. PyFuncDistance calls the function it is given when it is made."""


def modules(package):
    """Every module of a package that can be imported here."""
    found = []
    try:
        root = import_module(package)
    except ImportError:
        return found
    names = [package] + [info[1] for info in pkgutil.walk_packages(root.__path__, package + ".", onerror=lambda name: None)]
    for name in names:
        if any(part in name + "." for part in SKIPPED):
            continue
        try:
            found.append(import_module(name))
        except BaseException:  # noqa: BLE001 an optional part that does not import is not there
            continue
    return found


def full(value):
    return value.__module__ + "." + value.__qualname__


def classes(package):
    """The classes that a package's modules define, once each, under the name that pickle gives them."""
    seen = {}
    for module in modules(package):
        for value in list(vars(module).values()):
            if inspect.isclass(value) and str(value.__module__).split(".")[0] == package and "<" not in value.__qualname__:
                seen[full(value)] = value
    return seen


def is_extension(cls):
    """Whether it is compiled: then its `__reduce__` calls the class itself, or a function beside it, with arguments."""
    return not cls.__flags__ & (1 << 9) or "__reduce_cython__" in vars(cls)


def marked(name, cls):
    """The name, with "()" when a pickle of its objects calls it; and the function beside it that Cython has made for that."""
    found = [name + "()" if is_extension(cls) or cls.__reduce__ is not object.__reduce__ else name]
    beside = "__pyx_unpickle_" + cls.__name__
    if hasattr(sys.modules.get(cls.__module__), beside):
        found.append(cls.__module__ + "." + beside + "()")
    return found


def in_parts(name, parts):
    return any(name.startswith((part + ".", part + "_")) for part in parts)


def walk_sklearn():
    from sklearn.base import BaseEstimator

    found = []
    for name, cls in classes("sklearn").items():
        if any(part in name + "." for part in SKIPPED) or issubclass(cls, (BaseException, Warning)):
            continue
        if issubclass(cls, BaseEstimator) or in_parts(name, SKLEARN_CLASSES) or name == "sklearn.utils.Bunch":
            found += marked(name, cls)
    # scikit-learn 1.5 to 1.7 compile this module under a name of its own
    found += [name.replace("sklearn._loss._loss.", "_loss.") for name in found if name.startswith("sklearn._loss._loss.")]
    for module in modules("sklearn"):
        name = module.__name__
        if hasattr(module, "newObj"):
            found.append(name + ".newObj()")
        if name.startswith(SKLEARN_FUNCTIONS):
            for value in vars(module).values():
                own = inspect.isfunction(value) and value.__module__ == name
                if own and not value.__name__.startswith(("_", "check_", "get_scorer", "make_")):
                    found.append(full(value))
    return found


def walk_scipy():
    import scipy.sparse

    found = []
    bases = tuple(getattr(scipy.sparse, base) for base in ("spmatrix", "sparray") if hasattr(scipy.sparse, base))
    for package in ("scipy.sparse", "scipy.interpolate", "scipy.optimize", "scipy.spatial", "scipy.special"):
        for module in modules(package):
            for value in list(vars(module).values()):
                name = full(value) if inspect.isclass(value) and str(value.__module__).startswith("scipy.") else ""
                if not name or any(part in name for part in SKIPPED):
                    continue
                kept = issubclass(value, bases) or name.startswith("scipy.interpolate.")
                if kept or value.__name__ in ("OptimizeResult", "cKDTree", "KDTree"):
                    found += marked(name, value)
    import scipy.special
    from scipy.spatial import distance

    found += ["scipy.special._ufuncs." + name for name in dir(scipy.special) if type(getattr(scipy.special, name)).__name__ == "ufunc"]
    found += ["scipy.spatial.distance." + name for name in distance.__all__ if inspect.isfunction(getattr(distance, name))]
    return found


def walk_boosters():
    found = {"xgboost": [], "lightgbm": [], "catboost": []}
    for package in found:
        for name, cls in classes(package).items():
            kept = cls.__name__ in ("Booster", "EarlyStopping", "EvaluationMonitor", "LearningRateScheduler", "_CatBoostBase")
            kept = kept or cls.__name__.startswith(("XGB", "LGBM", "CatBoost", "_LGBM"))
            if kept and not issubclass(cls, (BaseException, Warning)):
                found[package].append(name)
    return found


def walk_numpy():
    import numpy as np

    found = []
    for name in dir(np):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = getattr(np, name, None)
        if inspect.isclass(value) and issubclass(value, np.generic):
            found += ["numpy." + value.__name__ + "()", "numpy." + name + "()"]
        elif isinstance(value, np.ufunc):
            # before 2.0 a ufunc is pickled under the module where it is kept
            found += [place + name for place in ("numpy.", "numpy.core._multiarray_umath.", "numpy.core.umath.")]
    if hasattr(np, "dtypes"):
        found += ["numpy.dtypes." + name for name in dir(np.dtypes) if name.endswith("DType") and name != "StringDType"]
    return found


def walk_pandas():
    """The names that pickles of frames of every kind of column hold; they are written out, and read by Modelport's machine."""
    import numpy as np
    import pandas as pd

    columns = {
        "number": np.arange(4.0),
        "integer": np.arange(4),
        "flag": [True, False, True, True],
        "text": ["a", "b", None, "d"],
        "category": pd.Categorical(["u", "v", "u", "v"]),
        "ordered": pd.Categorical([1, 2, 1, 2], ordered=True),
        "when": pd.date_range("2020-01-01", periods=4),
        "zone": pd.date_range("2020-01-01", periods=4, tz="UTC"),
        "span": pd.to_timedelta([1, 2, 3, 4], unit="D"),
        "period": pd.period_range("2020-01", periods=4, freq="M"),
    }
    for kind in ("Int64", "Float64", "boolean", "string", "category", "UInt8", "Int32", "Float32"):
        try:
            columns[kind] = pd.Series([1, 2, None, 4]).astype("float" if kind == "string" else kind).astype(kind)
        except (TypeError, ValueError):
            continue
    frame = pd.DataFrame(columns)
    values = [frame, frame.iloc[0], frame.columns, frame.index, frame.set_index("text"), frame.set_index(["text", "when"]).index]
    values += [frame[name] for name in frame] + [frame[name].dtype for name in frame] + [pd.Index(frame[name]) for name in frame]
    values += [pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-01", tz="UTC"), pd.Timedelta("1D"), pd.NaT, pd.Interval(0, 1)]
    values += [getattr(pd, "NA", None), pd.interval_range(0, 3), pd.cut([1, 2, 3], 2)]
    return values


def walk(folder):
    """What this environment's libraries have, into `folder`."""
    warnings.simplefilter("ignore")
    found = {"numpy": walk_numpy(), "sklearn": walk_sklearn(), "scipy": walk_scipy()}
    found.update(walk_boosters())
    (Path(folder) / "names.json").write_text(json.dumps(found))
    try:
        values = walk_pandas()
    except ImportError:
        return
    for index, value in enumerate(values):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            try:
                data = pickle.dumps(value, protocol)
            except Exception:  # noqa: BLE001 a value that this version cannot pickle tells nothing
                continue
            (Path(folder) / ("pandas-%d-%d.pkl" % (index, protocol))).write_bytes(data)


def harvest(folder):
    """The names in the pickles that a walk has left, with "()" behind those that are called."""
    from modelport.inspection.bounds import Budget
    from modelport.inspection.pickles import Machine

    found = set()
    for file in sorted(Path(folder).glob("*.pkl")):
        machine = Machine(file.read_bytes(), Budget())
        machine.load()
        found |= machine.imports | {name + "()" for name in machine.calls}
    return {name for name in found if name.startswith(("pandas.", "pyarrow.lib.", "pytz."))}


def main(pythons):
    import tempfile

    groups = {name: set(names) for name, names in BY_HAND.items()}
    for python in pythons:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([python, __file__, "walk", folder], check=True, timeout=600)
            for group, names in json.loads((Path(folder) / "names.json").read_text()).items():
                groups[group].update(names)
            groups["pandas"] |= harvest(folder)
            print(python, {group: len(names) for group, names in sorted(groups.items())})
    for group, names in groups.items():
        kept = {name for name in names if name.startswith("builtins.") or not name.replace("()", "").endswith(NOT_DATA)}
        kept -= {name for name in kept if name + "()" in kept}
        (NAMES / (group + ".txt")).write_text("\n".join(sorted(kept)) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["walk"]:
        walk(sys.argv[2])
    else:
        main(sys.argv[1:])
