"""The allow-lists hold exact names of data, and none that loads files or runs code."""

from __future__ import annotations

import pytest

from modelport.frameworks import allowed

GROUPS = ("python", "numpy", "sklearn", "xgboost", "lightgbm", "catboost", "scipy", "pandas", "joblib", "torch", "fastai")


@pytest.mark.parametrize("group", GROUPS)
def test_every_name_is_an_exact_name(group: str) -> None:
    for name in allowed.names(group):
        assert all(part.isidentifier() for part in name.removesuffix("()").split(".")), name
        assert "." in name


def test_old_and_new_names_of_a_class_are_there() -> None:
    names = allowed.names("sklearn")
    assert {"sklearn.svm.classes.SVC", "sklearn.svm._classes.SVC"} <= names
    assert {"sklearn.ensemble.forest.RandomForestClassifier", "sklearn.ensemble._forest.RandomForestClassifier"} <= names
    assert {"sklearn.tree._tree.Tree", "sklearn.tree._tree.Tree()"} <= names


@pytest.mark.parametrize(
    "name",
    [
        "builtins.eval", "builtins.exec", "builtins.getattr", "builtins.__import__", "builtins.open", "builtins.type", "builtins.map",
        "os.system", "posix.system", "subprocess.Popen", "operator.attrgetter", "operator.methodcaller", "importlib.import_module",
        "joblib.load", "joblib.numpy_pickle.load", "joblib.numpy_pickle_compat.NDArrayWrapper", "joblib.memory.Memory", "numpy.load",
        "numpy.memmap", "numpy.DataSource", "numpy.lib._npyio_impl.load", "numpy.vectorize", "numpy.frompyfunc", "pandas.read_pickle",
        "pandas.io.pickle.read_pickle", "pandas.eval", "sklearn.datasets._base.load_files", "sklearn.utils._joblib.load",
        "sklearn.metrics._dist_metrics.PyFuncDistance64", "scipy.stats._continuous_distns.norm_gen", "scipy.io.loadmat",
        "scipy.stats._distn_infrastructure.rv_continuous", "xgboost.core.DMatrix", "xgboost.callback.TrainingCheckPoint",
        "xgboost.core.Booster()", "catboost.core.Pool", "lightgbm.basic.Dataset", "torch.load", "torch.storage._load_from_bytes",
        "torch.hub.load", "cloudpickle.cloudpickle._make_function", "cloudpickle.cloudpickle._builtin_type", "types.CodeType",
        "types.FunctionType", "functools.reduce", "timeit.timeit", "cProfile.run", "webbrowser.open", "ctypes.CDLL",
    ],
)  # fmt: skip
def test_what_loads_files_or_runs_code_is_on_no_list(name: str) -> None:
    assert name not in allowed.names(*GROUPS)


def test_few_names_may_be_called() -> None:
    """Classes of estimators are made without arguments: only what is compiled and what rebuilds is called."""
    called = {name for name in allowed.names(*GROUPS) if name.endswith("()")}
    assert not {name for name in called if name.startswith(("xgboost.", "lightgbm.", "catboost."))}
    assert "sklearn.svm._classes.SVC()" not in called
    assert len(called) < len(allowed.names(*GROUPS)) / 3
