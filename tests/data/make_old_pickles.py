"""Make the small old pickles beside this file: run it in an environment that has the old libraries.

    uv venv --python 3.10 old
    uv pip install --python old --exclude-newer 2022-12-15 scikit-learn==1.1.3 xgboost==1.6.2 pandas "setuptools<81"
    old/bin/python tests/data/make_old_pickles.py

Made with scikit-learn 0.19.2 on Python 3.6, 1.1.3 (and xgboost 1.6.2) on 3.10, and 1.3.2 on 3.11. It keeps to Python 3.6.
"""

import pickle
import sys
from pathlib import Path

HERE = Path(__file__).parent


def save(name, version, model):
    """Written with protocol 2, as models were kept then."""
    (HERE / f"{name}-{version}.pkl").write_bytes(pickle.dumps(model, 2))


def main():
    import sklearn
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.svm import SVC

    version = sklearn.__version__
    features, species = load_iris(return_X_y=True)
    try:
        import pandas as pd

        features = pd.DataFrame(features, columns=["sepal_length", "sepal_width", "petal_length", "petal_width"])
    except ImportError:
        sys.stderr.write("without pandas: the models have no names of their features\n")
    save("sklearn-svc", version, SVC(kernel="linear", C=0.05).fit(features[::5], species[::5]))
    save("sklearn-forest", version, RandomForestClassifier(n_estimators=2, max_depth=2, random_state=0).fit(features, species))
    try:
        import xgboost
    except ImportError:
        return
    model = xgboost.XGBRegressor(n_estimators=2, max_depth=2).fit(features, species)
    save("xgboost-regressor", xgboost.__version__, model)


if __name__ == "__main__":
    main()
