"""Small trained models of many kinds for the conversion to ONNX, beyond those of models.py: `CASES[name]()` gives a model and its frame.

The data is made here, every model is deterministic, and frames are shared: copy one before changing it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

import models

CASES: dict[str, Callable[[], tuple[Any, Any]]] = {}
_NUMBERS = ["Größe (m²)", "rooms", "year.built"]


def case(make: Callable[[], tuple[Any, Any]]) -> Callable[[], tuple[Any, Any]]:
    def quietly() -> tuple[Any, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library thinks of small data is no news here
            return make()

    CASES[make.__name__] = cache(quietly)
    return CASES[make.__name__]


def numbers() -> Any:
    frame = models.houses()[_NUMBERS].copy()
    frame["year.built"] = frame["year.built"].fillna(1960.0)
    return frame


def fitted(estimator: Any, target: str = "band") -> tuple[Any, Any]:
    """An estimator fitted to numbers: to a `band` (0, 1, 2), to `cheap` (in words) or to a `price`."""
    return estimator.fit(numbers(), getattr(models, target)(models.houses())), numbers()


def piped(*steps: Any, target: str = "cheap", columns: Any = None) -> tuple[Any, Any]:
    from sklearn.pipeline import make_pipeline

    frame = models.houses() if columns is None else models.houses()[columns]
    return make_pipeline(*steps).fit(frame, getattr(models, target)(models.houses())), frame


def prepared(**options: Any) -> Any:
    """Imputed and scaled numbers, imputed and one-hot encoded words, a flag as it is."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    return ColumnTransformer(
        [("numbers", scaled, _NUMBERS), ("words", words, ["class", "city"]), ("flags", "passthrough", ["has garden"])], **options
    )


# Trees


@case
def tree_of_bools() -> tuple[Any, Any]:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=4, random_state=0).fit(numbers(), models.cheap(models.houses()) == "cheap"), numbers()


@case
def tree_of_floats() -> tuple[Any, Any]:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=4, random_state=0).fit(numbers(), models.band(models.houses()) + 1.0), numbers()


@case
def tree_with_missing_values() -> tuple[Any, Any]:
    from sklearn.tree import DecisionTreeRegressor

    frame = models.houses()[_NUMBERS]
    return DecisionTreeRegressor(max_depth=5, random_state=0).fit(frame, models.price(models.houses())), frame


@case
def shallow_forest() -> tuple[Any, Any]:
    from sklearn.ensemble import RandomForestClassifier

    return fitted(RandomForestClassifier(30, max_depth=4, random_state=0))


@case
def extra_trees() -> tuple[Any, Any]:
    from sklearn.ensemble import ExtraTreesRegressor

    return fitted(ExtraTreesRegressor(20, random_state=0), "price")


@case
def boosting_of_two() -> tuple[Any, Any]:
    from sklearn.ensemble import GradientBoostingClassifier

    return fitted(GradientBoostingClassifier(n_estimators=20, random_state=0), "cheap")


@case
def boosting_of_three() -> tuple[Any, Any]:
    from sklearn.ensemble import GradientBoostingClassifier

    return fitted(GradientBoostingClassifier(n_estimators=20, random_state=0))


@case
def exponential_boosting() -> tuple[Any, Any]:
    from sklearn.ensemble import GradientBoostingClassifier

    return fitted(GradientBoostingClassifier(n_estimators=10, loss="exponential", random_state=0), "cheap")


@case
def boosting_of_a_number() -> tuple[Any, Any]:
    from sklearn.ensemble import GradientBoostingRegressor

    return fitted(GradientBoostingRegressor(n_estimators=30, random_state=0), "price")


@case
def histograms_of_three() -> tuple[Any, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return fitted(HistGradientBoostingClassifier(max_iter=10, random_state=0))


@case
def histograms_of_a_count() -> tuple[Any, Any]:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return fitted(HistGradientBoostingRegressor(loss="poisson", max_iter=10, random_state=0), "price")


@case
def contaminated_isolation_forest() -> tuple[Any, Any]:
    from sklearn.ensemble import IsolationForest

    return IsolationForest(n_estimators=20, contamination=0.1, max_features=2, random_state=0).fit(numbers()), numbers()


@case
def ada_boost() -> tuple[Any, Any]:
    from sklearn.ensemble import AdaBoostClassifier

    return fitted(AdaBoostClassifier(n_estimators=10, random_state=0), "cheap")


@case
def bagged_trees() -> tuple[Any, Any]:
    from sklearn.ensemble import BaggingClassifier

    return fitted(BaggingClassifier(n_estimators=10, random_state=0))


# Linear models


@case
def logistic_of_three() -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return fitted(make_pipeline(StandardScaler(), LogisticRegression()))


@case
def logistic_of_bools() -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import RobustScaler

    return make_pipeline(RobustScaler(), LogisticRegression()).fit(numbers(), models.cheap(models.houses()) == "cheap"), numbers()


@case
def discriminant() -> tuple[Any, Any]:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return fitted(LinearDiscriminantAnalysis())


@case
def quadratic_discriminant() -> tuple[Any, Any]:
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis

    return fitted(QuadraticDiscriminantAnalysis())


@case
def stochastic_gradient() -> tuple[Any, Any]:
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    return fitted(make_pipeline(MaxAbsScaler(), SGDClassifier(loss="log_loss", random_state=0)))


@case
def linear_svc() -> tuple[Any, Any]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler
    from sklearn.svm import LinearSVC

    return fitted(make_pipeline(MinMaxScaler(clip=True), LinearSVC(random_state=0)))


@case
def ridge_classifier() -> tuple[Any, Any]:
    from sklearn.linear_model import RidgeClassifier

    return fitted(RidgeClassifier(), "cheap")


@case
def poisson() -> tuple[Any, Any]:
    from sklearn.linear_model import PoissonRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return fitted(make_pipeline(StandardScaler(), PoissonRegressor()), "price")


@case
def partial_least_squares() -> tuple[Any, Any]:
    from sklearn.cross_decomposition import PLSRegression

    return fitted(PLSRegression(2), "price")


# Vectors, neighbours, networks, mixtures


@case
def radial_svc() -> tuple[Any, Any]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return fitted(make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)))


@case
def svc_of_two() -> tuple[Any, Any]:
    from sklearn.svm import SVC

    return fitted(SVC(kernel="rbf", gamma=0.001), "cheap")


@case
def svr() -> tuple[Any, Any]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    return fitted(make_pipeline(StandardScaler(), SVR(C=100.0)), "price")


@case
def one_class_svm() -> tuple[Any, Any]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import OneClassSVM

    return make_pipeline(StandardScaler(), OneClassSVM(nu=0.1)).fit(numbers()), numbers()


@case
def neighbours() -> tuple[Any, Any]:
    from sklearn.neighbors import KNeighborsClassifier

    return fitted(KNeighborsClassifier(5))


@case
def neighbours_of_a_number() -> tuple[Any, Any]:
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return fitted(make_pipeline(StandardScaler(), KNeighborsRegressor(5)), "price")


@case
def naive_bayes() -> tuple[Any, Any]:
    from sklearn.naive_bayes import GaussianNB

    return fitted(GaussianNB())


@case
def network() -> tuple[Any, Any]:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return fitted(make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=50, random_state=0)))


@case
def network_of_a_number() -> tuple[Any, Any]:
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return fitted(make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,), max_iter=50, random_state=0)), "price")


@case
def mixture() -> tuple[Any, Any]:
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(3, random_state=0).fit(numbers()), numbers()


@case
def calibrated() -> tuple[Any, Any]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier

    return fitted(CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), cv=2), "cheap")


# Made of others


@case
def voting() -> tuple[Any, Any]:
    from sklearn.ensemble import RandomForestClassifier, VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    each = [("a", make_pipeline(StandardScaler(), LogisticRegression())), ("b", RandomForestClassifier(5, random_state=0))]
    return fitted(VotingClassifier(each, voting="soft", weights=[1, 2]))


@case
def voting_on_a_number() -> tuple[Any, Any]:
    from sklearn.ensemble import RandomForestRegressor, VotingRegressor
    from sklearn.linear_model import Ridge

    return fitted(VotingRegressor([("a", Ridge()), ("b", RandomForestRegressor(5, random_state=0))]), "price")


@case
def stacking() -> tuple[Any, Any]:
    from sklearn.ensemble import RandomForestClassifier, StackingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    each = [("a", make_pipeline(StandardScaler(), LogisticRegression())), ("b", RandomForestClassifier(5, random_state=0))]
    return fitted(StackingClassifier(each, LogisticRegression(), cv=2), "cheap")


@case
def stacking_to_a_number() -> tuple[Any, Any]:
    from sklearn.ensemble import GradientBoostingRegressor, StackingRegressor
    from sklearn.linear_model import Ridge

    each = [("a", Ridge()), ("b", GradientBoostingRegressor(n_estimators=5, random_state=0))]
    return fitted(StackingRegressor(each, Ridge(), cv=2, passthrough=True), "price")


@case
def several_regressors() -> tuple[Any, Any]:
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.multioutput import MultiOutputRegressor

    targets = np.column_stack([models.price(models.houses()), models.band(models.houses()) + 0.5])
    return MultiOutputRegressor(GradientBoostingRegressor(n_estimators=5, random_state=0)).fit(numbers(), targets), numbers()


@case
def several_classifiers() -> tuple[Any, Any]:
    from sklearn.multioutput import MultiOutputClassifier
    from sklearn.tree import DecisionTreeClassifier

    targets = np.column_stack([models.band(models.houses()), models.band(models.houses()) > 0]).astype(int)
    return MultiOutputClassifier(DecisionTreeClassifier(max_depth=3, random_state=0)).fit(numbers(), targets), numbers()


@case
def logarithmic_target() -> tuple[Any, Any]:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.linear_model import Ridge

    return fitted(TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1), "price")


@case
def searched_forest() -> tuple[Any, Any]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import RandomizedSearchCV

    search = RandomizedSearchCV(RandomForestClassifier(5, random_state=0), {"max_depth": [2, 3]}, n_iter=2, cv=2, random_state=0)
    return fitted(search, "cheap")


# Steps before the last


@case
def strings_and_logistic() -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression

    return piped(prepared(), LogisticRegression(max_iter=1000))


@case
def strings_and_forest() -> tuple[Any, Any]:
    """Scaled numbers before trees: in single precision, rows near a threshold fall on the other side."""
    from sklearn.ensemble import RandomForestClassifier

    return piped(prepared(), RandomForestClassifier(30, random_state=0))


@case
def strings_and_boosting() -> tuple[Any, Any]:
    from sklearn.ensemble import GradientBoostingRegressor

    return piped(prepared(), GradientBoostingRegressor(n_estimators=20, random_state=0), target="price")


@case
def strings_and_xgboost() -> tuple[Any, Any]:
    from xgboost import XGBRegressor

    return piped(prepared(), XGBRegressor(n_estimators=10, max_depth=3, n_jobs=1), target="price")


@case
def sparse_strings_and_xgboost() -> tuple[Any, Any]:
    """XGBoost takes a zero that a sparse matrix does not hold for a missing value."""
    from xgboost import XGBClassifier

    return piped(prepared(sparse_threshold=1.0), XGBClassifier(n_estimators=10, max_depth=3, n_jobs=1), target="band")


@case
def strings_and_lightgbm() -> tuple[Any, Any]:
    from lightgbm import LGBMClassifier

    return piped(prepared(), LGBMClassifier(n_estimators=10, num_leaves=7, n_jobs=1, verbose=-1).set_params(min_child_samples=5))


@case
def strings_and_catboost() -> tuple[Any, Any]:
    from catboost import CatBoostRegressor

    settings = {"thread_count": 1, "verbose": False, "allow_writing_files": False, "random_seed": 0}
    return piped(prepared(sparse_threshold=0.0), CatBoostRegressor(iterations=10, depth=3, **settings), target="price")


@case
def ordinals_and_forest() -> tuple[Any, Any]:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    prepare = ColumnTransformer([("words", encoder, ["class", "city"])], remainder="passthrough", verbose_feature_names_out=False)
    return piped(prepare, RandomForestClassifier(10, random_state=0), columns=["Größe (m²)", "rooms", "class", "city", "has garden"])


@case
def rare_and_dropped_categories() -> tuple[Any, Any]:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import OneHotEncoder

    prepare = make_column_transformer(
        (OneHotEncoder(min_frequency=60, handle_unknown="infrequent_if_exist"), ["city"]),
        (OneHotEncoder(drop="first"), ["class"]),
        (OneHotEncoder(drop="if_binary"), ["has garden"]),
        (OneHotEncoder(max_categories=4, handle_unknown="infrequent_if_exist"), ["rooms"]),
        remainder="drop",
    )
    return piped(prepare, Ridge(), target="price")


@case
def encoded_by_target() -> tuple[Any, Any]:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import TargetEncoder

    prepare = make_column_transformer((TargetEncoder(random_state=0), ["city", "class"]), remainder="drop")
    return piped(prepare, LogisticRegression(), target="band")


@case
def marked_missing_values() -> tuple[Any, Any]:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    return piped(SimpleImputer(add_indicator=True), StandardScaler(), LogisticRegression(), columns=_NUMBERS)


@case
def a_number_for_missing() -> tuple[Any, Any]:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    frame = models.houses()[_NUMBERS].fillna(-1)
    return make_pipeline(SimpleImputer(missing_values=-1), Ridge()).fit(frame, models.price(models.houses())), frame


@case
def components() -> tuple[Any, Any]:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return fitted(make_pipeline(StandardScaler(), PCA(2, whiten=True), LogisticRegression()))


@case
def chosen_columns() -> tuple[Any, Any]:
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.feature_selection import SelectKBest
    from sklearn.pipeline import make_pipeline

    return fitted(make_pipeline(SelectKBest(k=2), ExtraTreesClassifier(5, random_state=0)))


@case
def polynomials() -> tuple[Any, Any]:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    return fitted(make_pipeline(StandardScaler(), PolynomialFeatures(2), Ridge()), "price")


@case
def powers() -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PowerTransformer

    return fitted(make_pipeline(PowerTransformer(), LogisticRegression()), "cheap")


@case
def bins() -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import KBinsDiscretizer

    return fitted(make_pipeline(KBinsDiscretizer(4, encode="onehot-dense", strategy="uniform"), LogisticRegression()), "cheap")


@case
def normalised() -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    return fitted(make_pipeline(Normalizer(), LogisticRegression()), "cheap")


@case
def united() -> tuple[Any, Any]:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    union = make_union(PCA(1), StandardScaler(), FunctionTransformer())
    return fitted(make_pipeline(StandardScaler(), union, LogisticRegression()))


@case
def weighed_branches() -> tuple[Any, Any]:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    prepare = ColumnTransformer(
        [("a", StandardScaler(), slice("Größe (m²)", "rooms")), ("b", MinMaxScaler(), [2]), ("none", StandardScaler(), [])],
        transformer_weights={"a": 2.0},
    )
    return fitted(make_pipeline(prepare, Ridge()), "price")


@case
def only_transforms() -> tuple[Any, Any]:
    from sklearn.preprocessing import StandardScaler

    return StandardScaler().fit(numbers()), numbers()


@case
def matrix_with_a_column_transformer() -> tuple[Any, Any]:
    """Trained on a bare matrix, the branches by number."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    prepare = ColumnTransformer([("a", StandardScaler(), [2, 0])], remainder="passthrough")
    model = make_pipeline(prepare, GradientBoostingClassifier(n_estimators=5, random_state=0))
    return model.fit(numbers().to_numpy(), models.band(models.houses())), numbers().set_axis(["x0", "x1", "x2"], axis=1)


@case
def frames_between_steps() -> tuple[Any, Any]:
    """With set_output, a second ColumnTransformer finds its columns by the names that the first one gave them."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    first = ColumnTransformer([("words", OneHotEncoder(sparse_output=False), ["class"])], remainder="passthrough")
    first.set_output(transform="pandas")
    second = ColumnTransformer([("size", StandardScaler(), ["remainder__Größe (m²)", "remainder__rooms"])], remainder="passthrough")
    return piped(first, second, LogisticRegression(), columns=["Größe (m²)", "rooms", "class"])


@case
def ranker_in_a_pipeline() -> tuple[Any, Any]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from xgboost import XGBRanker

    groups = np.repeat(np.arange(20), 10)
    model = make_pipeline(StandardScaler(), XGBRanker(n_estimators=5, max_depth=3, n_jobs=1))
    return model.fit(numbers(), models.band(models.houses()), xgbranker__qid=groups), numbers()


# Texts


def reviews() -> Any:
    import pandas as pd

    prose, labels = zip(*models.REVIEWS, strict=True)
    return pd.DataFrame({"text": prose * 3, "stars": [1.0, 2.0, 3.0, 4.0] * 6}), labels * 3


@case
def counted_words() -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    frame, labels = reviews()
    return make_pipeline(CountVectorizer(), MultinomialNB()).fit(frame["text"], labels), frame[["text"]]


@case
def pairs_of_words() -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    frame, labels = reviews()
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression())
    return model.fit(frame["text"], labels), frame[["text"]]


@case
def texts_and_numbers() -> tuple[Any, Any]:
    from sklearn.compose import make_column_transformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    frame, labels = reviews()
    prepare = make_column_transformer((TfidfVectorizer(stop_words="english"), "text"), (StandardScaler(), ["stars"]))
    return make_pipeline(prepare, LogisticRegression()).fit(frame, labels), frame


# Boosted trees of other libraries


def xgboost(**settings: Any) -> Any:
    import xgboost

    kind = xgboost.XGBClassifier if settings.pop("classifies", False) else xgboost.XGBRegressor
    return kind(n_estimators=20, max_depth=3, n_jobs=1, **settings)


@case
def xgboost_of_three() -> tuple[Any, Any]:
    return fitted(xgboost(classifies=True))


@case
def xgboost_softmax() -> tuple[Any, Any]:
    return fitted(xgboost(classifies=True, objective="multi:softmax"))


@case
def xgboost_with_a_base_score() -> tuple[Any, Any]:
    frame = numbers()
    labels = (models.cheap(models.houses()) == "cheap").astype(int)
    return xgboost(classifies=True, base_score=0.2).fit(frame, labels), frame


@case
def xgboost_with_a_number_for_missing() -> tuple[Any, Any]:
    frame = models.houses()[_NUMBERS].fillna(-999.0)
    return xgboost(missing=-999.0).fit(frame, models.price(models.houses())), frame


@case
def xgboost_with_missing_values() -> tuple[Any, Any]:
    frame = models.houses()[_NUMBERS]
    return xgboost().fit(frame, models.price(models.houses())), frame


@case
def xgboost_stopped_early() -> tuple[Any, Any]:
    frame, target = numbers(), models.price(models.houses())
    model = xgboost(early_stopping_rounds=2, learning_rate=1.0)
    return model.fit(frame[:150], target[:150], eval_set=[(frame[150:], target[150:])], verbose=False), frame


@case
def xgboost_of_counts() -> tuple[Any, Any]:
    return fitted(xgboost(objective="count:poisson"), "band")


@case
def xgboost_gamma() -> tuple[Any, Any]:
    return fitted(xgboost(objective="reg:gamma"), "price")


@case
def xgboost_forest() -> tuple[Any, Any]:
    from xgboost import XGBRFRegressor

    return fitted(XGBRFRegressor(n_estimators=10, max_depth=4, n_jobs=1), "price")


@case
def xgboost_dart() -> tuple[Any, Any]:
    return fitted(xgboost(booster="dart", rate_drop=0.3), "price")


@case
def xgboost_of_two_numbers() -> tuple[Any, Any]:
    targets = np.column_stack([models.price(models.houses()), models.band(models.houses())])
    return xgboost().fit(numbers(), targets), numbers()


@case
def xgboost_of_labels() -> tuple[Any, Any]:
    targets = np.column_stack([models.band(models.houses()) > 0, models.band(models.houses()) > 1]).astype(int)
    return xgboost(classifies=True).fit(numbers(), targets), numbers()


@case
def xgboost_ranker() -> tuple[Any, Any]:
    from xgboost import XGBRanker

    groups = np.repeat(np.arange(20), 10)
    return XGBRanker(n_estimators=5, max_depth=3, n_jobs=1).fit(numbers(), models.band(models.houses()), qid=groups), numbers()


@case
def lightgbm_tweedie() -> tuple[Any, Any]:
    from lightgbm import LGBMRegressor

    return fitted(LGBMRegressor(n_estimators=10, num_leaves=7, objective="tweedie", n_jobs=1, verbose=-1), "price")


@case
def lightgbm_forest() -> tuple[Any, Any]:
    from lightgbm import LGBMClassifier

    settings = {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.7, "n_jobs": 1, "verbose": -1}
    return fitted(LGBMClassifier(n_estimators=10, num_leaves=7, **settings), "cheap")


@case
def lightgbm_one_against_all() -> tuple[Any, Any]:
    from lightgbm import LGBMClassifier

    return fitted(LGBMClassifier(n_estimators=5, num_leaves=7, objective="multiclassova", n_jobs=1, verbose=-1))


@case
def lightgbm_with_missing_values() -> tuple[Any, Any]:
    from lightgbm import LGBMRegressor

    frame = models.houses()[_NUMBERS]
    return LGBMRegressor(n_estimators=10, num_leaves=7, n_jobs=1, verbose=-1).fit(frame, models.price(models.houses())), frame


def catboost(kind: str, **settings: Any) -> Any:
    import catboost

    said = {"iterations": 10, "depth": 3, "thread_count": 1, "verbose": False, "allow_writing_files": False, "random_seed": 0}
    return getattr(catboost, kind)(**{**said, **settings})


@case
def catboost_of_two() -> tuple[Any, Any]:
    frame = models.houses()[_NUMBERS]
    return catboost("CatBoostClassifier").fit(frame, models.cheap(models.houses())), frame


@case
def catboost_of_three() -> tuple[Any, Any]:
    return fitted(catboost("CatBoostClassifier"))


@case
def catboost_of_two_numbers() -> tuple[Any, Any]:
    targets = np.column_stack([models.price(models.houses()), models.band(models.houses())])
    return catboost("CatBoostRegressor", loss_function="MultiRMSE").fit(numbers(), targets), numbers()


@case
def catboost_of_counts() -> tuple[Any, Any]:
    return fitted(catboost("CatBoostRegressor", loss_function="Poisson"), "band")


# What has no ONNX form here


@case
def a_function() -> tuple[Any, Any]:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    return fitted(make_pipeline(FunctionTransformer(np.log1p), Ridge()), "price")


@case
def hashed_words() -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    frame, labels = reviews()
    return make_pipeline(HashingVectorizer(n_features=64), LogisticRegression()).fit(frame["text"], labels), frame[["text"]]


@case
def voting_by_hand() -> tuple[Any, Any]:
    from sklearn.ensemble import VotingClassifier
    from sklearn.linear_model import RidgeClassifier
    from sklearn.tree import DecisionTreeClassifier

    return fitted(VotingClassifier([("a", RidgeClassifier()), ("b", DecisionTreeClassifier(max_depth=3, random_state=0))]))


@case
def xgboost_linear() -> tuple[Any, Any]:
    return fitted(xgboost(booster="gblinear").set_params(max_depth=None), "price")
