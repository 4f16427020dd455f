"""The trees of models of any library as plain arrays, with what makes an answer of their sum."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np

from .graphs import NotConverted


class Tree(NamedTuple):
    """A binary tree of decisions. Node 0 is the root; every array has one entry a node."""

    feature: Any
    """int64: the feature that a node looks at; -1 in a leaf."""
    threshold: Any
    """float64: what is at most this (or below it, see `Forest.strict`) goes left."""
    left: Any
    right: Any
    missing_left: Any
    """bool: where a missing value goes."""
    value: Any
    """float64 (nodes, numbers): what a leaf adds to the sums of `outputs`."""
    outputs: tuple[int, ...]
    sets: Mapping[int, Sequence[float]] = MappingProxyType({})
    """For the nodes that ask for a category: the codes that go left."""


class Forest(NamedTuple):
    """Trees whose leaves are added up."""

    trees: tuple[Tree, ...]
    size: int
    """How many sums there are."""
    base: Any
    """float64 (size,): what the sums begin with."""
    divide: float = 1.0
    """What the sums are divided by in the end."""
    strict: bool = False
    """Whether a value must be below a threshold to go left."""
    single: bool = True
    """Whether the library looks at the features in single precision."""

    def thresholds(self) -> dict[int, Any]:
        """The sorted values at which each feature is parted."""
        parts: dict[int, list[Any]] = {}
        for tree in self.trees:
            inner = np.flatnonzero(tree.feature >= 0)
            for feature in np.unique(tree.feature[inner]):
                nodes = [node for node in inner[tree.feature[inner] == feature] if node not in tree.sets]
                parts.setdefault(int(feature), []).append(tree.threshold[nodes])
        found = {feature: np.unique(np.concatenate(values)) for feature, values in parts.items()}
        return {feature: values[np.isfinite(values)] for feature, values in found.items()}


# scikit-learn

_AVERAGED = ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor")
_SINGLE = ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor")
_BOOSTED = ("GradientBoostingClassifier", "GradientBoostingRegressor")
_BINNED = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
SKLEARN = _AVERAGED + _SINGLE + _BOOSTED + _BINNED
BOOSTED = _BOOSTED + _BINNED
"""The classes of scikit-learn that `sklearn_forest` reads; those of BOOSTED link their sums to probabilities."""


def sklearn_forest(estimator: Any) -> Forest:
    """The trees of one of the estimators of SKLEARN; the sums of a classifier of several things come one thing after the other.

    NotConverted for a start that is a model of its own.
    """
    name = type(estimator).__name__
    if name in _BINNED:
        return _binned(estimator)
    if name in _BOOSTED:
        return _boosted(estimator)
    classifies = name.endswith("Classifier")
    trees = [estimator] if name in _SINGLE else list(estimator.estimators_)
    read = tuple(_sklearn_tree(one.tree_, _leaves(one, classifies)) for one in trees)
    size = len(read[0].outputs)
    return Forest(read, size, np.zeros(size), divide=float(len(read)))


def _leaves(tree: Any, classifies: bool) -> Any:
    """What each node answers, (nodes, numbers): values, or the shares of the classes, of which old versions keep the counts."""
    values = np.asarray(tree.tree_.value, dtype=np.float64)
    if not classifies:
        return values[:, :, 0]
    counts = np.atleast_1d(tree.n_classes_)
    sums = values.sum(axis=2, keepdims=True)
    if not np.allclose(sums, 1.0):
        sums[sums == 0.0] = 1.0
        values = values / sums
    return np.concatenate([values[:, index, : int(count)] for index, count in enumerate(counts)], axis=1)


def _sklearn_tree(tree: Any, values: Any, outputs: tuple[int, ...] = ()) -> Tree:
    leaf = np.asarray(tree.children_left) < 0
    missing = np.asarray(getattr(tree, "missing_go_to_left", np.zeros(len(leaf), dtype=bool)), dtype=bool)
    return Tree(
        feature=np.where(leaf, -1, tree.feature).astype(np.int64),
        threshold=np.asarray(tree.threshold, dtype=np.float64),
        left=np.asarray(tree.children_left, dtype=np.int64),
        right=np.asarray(tree.children_right, dtype=np.int64),
        missing_left=missing,
        value=values,
        outputs=outputs or tuple(range(values.shape[1])),
    )


def isolation_forest(estimator: Any) -> tuple[Forest, float]:
    """An isolation forest, whose leaves are as deep as they stand and their rows would part further; and what its sums are divided by."""
    read = []
    for one, features in zip(estimator.estimators_, estimator.estimators_features_):
        raw = one.tree_
        left, right = raw.children_left, raw.children_right
        depth = np.zeros(raw.node_count)
        for node in range(raw.node_count):  # children come behind their parents
            if left[node] >= 0:
                depth[left[node]] = depth[right[node]] = depth[node] + 1
        tree = _sklearn_tree(raw, (depth + _further(raw.n_node_samples)).reshape(-1, 1))
        read.append(tree._replace(feature=np.where(tree.feature < 0, -1, np.asarray(features)[tree.feature])))
    normal = len(read) * float(_further(np.array([estimator._max_samples]))[0])
    return Forest(tuple(read), 1, np.zeros(1)), normal


def _further(counts: Any) -> Any:
    """The mean depth of an unsuccessful search among so many rows (Liu, Ting, Zhou: Isolation Forest, 2008, equation 1)."""
    counts = np.asarray(counts, dtype=np.float64)
    large = np.maximum(counts, 3.0)
    return np.where(
        counts <= 1, 0.0, np.where(counts == 2, 1.0, 2.0 * (np.log(large - 1.0) + np.euler_gamma) - 2.0 * (large - 1.0) / large)
    )


def _boosted(estimator: Any) -> Forest:
    """Gradient boosting: what it begins with, and the trees of each stage and class, times the learning rate."""
    name = type(estimator).__name__
    stages = estimator.estimators_
    size = stages.shape[1]
    if not (estimator.init is None or estimator.init == "zero" or type(estimator.init_).__name__.startswith("Dummy")):
        raise NotConverted(f"{name} that begins with a {type(estimator.init_).__name__}")
    row = np.zeros((1, int(getattr(estimator, "n_features_in_", 0) or estimator.n_features_)))
    start = getattr(estimator, "_raw_predict_init", None) or estimator._init_decision_function  # the latter before 0.21
    base = np.asarray(start(row), dtype=np.float64).reshape(-1)
    trees = tuple(
        _sklearn_tree(one.tree_, one.tree_.value[:, :, 0] * estimator.learning_rate, (index,))
        for stage in stages
        for index, one in enumerate(stage)
    )
    return Forest(trees, size, base)


def _binned(estimator: Any) -> Forest:
    """Histogram gradient boosting. Its trees look at double precision, and at categories by their codes."""
    size = int(estimator.n_trees_per_iteration_)
    trees = []
    for stage in estimator._predictors:
        for index, one in enumerate(stage):
            nodes = one.nodes
            names = nodes.dtype.names
            leaf = nodes["is_leaf"].astype(bool)
            threshold = nodes["num_threshold" if "num_threshold" in names else "threshold"].astype(np.float64)
            sets = {}
            for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf) if "is_categorical" in names else ():
                sets[int(node)] = _codes_left(one, nodes[node])
            trees.append(
                Tree(
                    feature=np.where(leaf, -1, nodes["feature_idx"]).astype(np.int64),
                    threshold=threshold,
                    left=nodes["left"].astype(np.int64),
                    right=nodes["right"].astype(np.int64),
                    missing_left=nodes["missing_go_to_left"].astype(bool),
                    value=nodes["value"].astype(np.float64).reshape(-1, 1),
                    outputs=(index,),
                    sets=sets,
                )
            )
    base = np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(-1)
    return Forest(tuple(trees), size, np.broadcast_to(base, (size,)).copy(), single=False)


def _codes_left(predictor: Any, node: Any) -> list[float]:
    """The codes of the categories that go left at a node of a histogram tree: bits of words of 32."""
    bits = predictor.raw_left_cat_bitsets[int(node["bitset_idx"])]
    return [float(code) for code in range(32 * len(bits)) if int(bits[code // 32]) >> (code % 32) & 1]


# XGBoost

_LOGISTIC = ("binary:logistic", "binary:logitraw", "reg:logistic")
_EXPONENTIAL = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft")
_PLAIN = (
    "binary:hinge", "multi:softmax", "multi:softprob", "rank:map", "rank:ndcg", "rank:pairwise", "reg:absoluteerror", "reg:linear",
    "reg:pseudohubererror", "reg:quantileerror", "reg:squarederror", "reg:squaredlogerror",
)  # fmt: skip


class Boosted(NamedTuple):
    """A model of a library of boosted trees: its trees, and how their sums become answers."""

    forest: Forest
    task: str
    """"binary", "multiclass", "labels" (several yes or no answers a row), "rank" or "number"."""
    link: str
    """What makes an answer of the sums: "", "sigmoid", "softmax", "exponential" or "step"."""
    chances: bool
    """Whether a classifier gives probabilities too."""
    labels: Any = None
    """The labels of the classes; None for 0, 1, ..."""
    cut: float = 0.5
    """Above which number the second of two classes is the answer."""
    missing: float = float("nan")
    """The number that means "missing", besides NaN."""
    categories: Mapping[int, Mapping[Any, int]] = MappingProxyType({})
    """For the features that are categories: the code of each value; a value without one counts as missing."""


def xgboost_model(model: Any) -> Boosted:
    """A booster of XGBoost, one of its scikit-learn classes, or both as Modelport has loaded them. NotConverted says what has no form."""
    if getattr(model, "garbled", None):
        raise NotConverted("XGBoost's categories that are not all ASCII, of which it keeps parts only")
    booster = model.booster if hasattr(model, "sklearn_type") else model.get_booster() if hasattr(model, "get_booster") else model
    attributes = booster.attributes()
    learner = _xgboost_json(booster)["learner"]
    sizes = learner["learner_model_param"]
    objective = learner["objective"]["name"]
    if hasattr(model, "sklearn_type"):
        kind, missing = model.sklearn_type, model.missing
    elif booster is model:
        kind, missing = None, float("nan")
    else:
        kind, missing = "classifier" if hasattr(model, "predict_proba") else "regressor", model.missing
    groups, targets = int(sizes.get("num_class", 0)), int(sizes.get("num_target", 1))
    size = max(1, groups, targets)
    best = attributes.get("best_iteration")
    trees = _xgboost_trees(learner["gradient_booster"], size, int(best) + 1 if kind and best is not None else None)
    base = _margin(objective, sizes["base_score"], size)
    binary = objective in ("binary:logistic", "binary:hinge") or (kind == "classifier" and objective == "binary:logitraw")
    task = "number"
    if objective.startswith("multi:"):
        task = "multiclass"
    elif binary:
        task = "labels" if targets > 1 else "binary"
    elif objective.startswith("rank:"):
        task = "rank"
    return Boosted(
        Forest(trees, size, base, strict=True),
        task=task,
        link=_xgboost_link(objective),
        chances=objective not in ("binary:hinge", "binary:logitraw"),
        labels=getattr(model, "labels", None) or None,
        categories=getattr(model, "categories", {}),
        missing=float("nan") if missing is None else float(missing),
    )


def _xgboost_json(booster: Any) -> Any:
    """The model as XGBoost's JSON, which versions from 1.0 on write."""
    try:
        return json.loads(bytes(booster.save_raw("json")).decode())
    except (TypeError, ValueError):
        pass  # before 1.6 there was no JSON in memory
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        booster.save_model(str(path))
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise NotConverted("a model of an XGBoost before 1.0, which writes no JSON") from None


def _xgboost_link(objective: str) -> str:
    if objective in ("binary:logistic", "reg:logistic"):
        return "sigmoid"
    if objective.startswith("multi:"):
        return "softmax"
    if objective in _EXPONENTIAL:
        return "exponential"
    return "step" if objective == "binary:hinge" else ""


def _margin(objective: str, base_score: str, size: int) -> Any:
    """What the sums begin with: the base score on the scale of the sums."""
    if objective not in _LOGISTIC + _EXPONENTIAL + _PLAIN:
        raise NotConverted(f"XGBoost's objective {objective!r}")
    read = json.loads(base_score) if base_score.startswith("[") else float(base_score)
    scores = np.atleast_1d(np.asarray(read, dtype=np.float32))
    if objective in _LOGISTIC:
        scores = -np.log(np.float32(1.0) / scores - np.float32(1.0))
    elif objective in _EXPONENTIAL:
        scores = np.log(scores)
    return np.broadcast_to(scores.astype(np.float64), (size,)).copy()


def _xgboost_trees(booster: Any, size: int, rounds: Any) -> tuple[Tree, ...]:
    if booster.get("name") == "gblinear":
        raise NotConverted("XGBoost's gblinear, which has no trees")
    weights = booster.get("weight_drop")
    model = booster["gbtree"]["model"] if "gbtree" in booster else booster["model"]
    raw, groups = model["trees"], model["tree_info"]
    if rounds is not None:
        parallel = int(model["gbtree_model_param"].get("num_parallel_tree", 1) or 1)
        kept = rounds * parallel * size
        raw, groups = raw[:kept], groups[:kept]
    return tuple(
        _xgboost_tree(tree, int(group), 1.0 if weights is None else weights[at]) for at, (tree, group) in enumerate(zip(raw, groups))
    )


def _xgboost_tree(tree: Any, group: int, weight: float) -> Tree:
    if int(tree["tree_param"].get("size_leaf_vector", 0) or 0) > 1:
        raise NotConverted("XGBoost's trees with several numbers a leaf (multi_strategy)")
    left, right = np.asarray(tree["left_children"], dtype=np.int64), np.asarray(tree["right_children"], dtype=np.int64)
    conditions = np.asarray(tree["split_conditions"], dtype=np.float32)
    missing_left = np.asarray(tree["default_left"]).astype(bool)
    leaf = left < 0
    sets = _xgboost_sets(tree)
    # the categories that a node names go right there
    turned = np.array(sorted(sets), dtype=np.int64)
    left[turned], right[turned], missing_left[turned] = right[turned], left[turned], ~missing_left[turned]
    return Tree(
        feature=np.where(leaf, -1, np.asarray(tree["split_indices"], dtype=np.int64)),
        threshold=conditions.astype(np.float64),
        left=left,
        right=right,
        missing_left=missing_left,
        value=(conditions * np.float32(weight)).astype(np.float64).reshape(-1, 1),
        outputs=(group,),
        sets=sets,
    )


def _xgboost_sets(tree: Any) -> dict[int, list[float]]:
    """The categories that the nodes that ask for one name: slices of one list."""
    named = tree.get("categories", ())
    places = zip(tree.get("categories_nodes", ()), tree.get("categories_segments", ()), tree.get("categories_sizes", ()))
    return {int(node): [float(code) for code in named[int(start) : int(start) + int(size)]] for node, start, size in places}


# LightGBM

_LIGHTGBM_LINKS = {
    "binary": "sigmoid", "multiclass": "softmax", "softmax": "softmax", "multiclassova": "sigmoid", "cross_entropy": "sigmoid",
    "poisson": "exponential", "gamma": "exponential", "tweedie": "exponential", "regression": "", "regression_l1": "", "huber": "",
    "fair": "", "quantile": "", "mape": "", "lambdarank": "", "rank_xendcg": "",
}  # fmt: skip


def lightgbm_model(model: Any) -> Boosted:
    """A booster of LightGBM, one of its scikit-learn classes, or both as Modelport has loaded them. NotConverted says what has no form."""
    labels = getattr(model, "labels", getattr(model, "classes_", None))
    model = model.booster if hasattr(model, "labels") else getattr(model, "booster_", model)
    dump = model.dump_model()
    words = dump.get("objective", "").split(" ")
    objective = words[0]
    if objective not in _LIGHTGBM_LINKS:
        raise NotConverted(f"LightGBM's objective {objective!r}")
    if "sqrt" in words:
        raise NotConverted("LightGBM's reg_sqrt")
    sigmoid = [float(word.split(":")[1]) for word in words if word.startswith("sigmoid:")]
    if sigmoid and sigmoid[0] != 1.0:
        raise NotConverted("LightGBM's parameter sigmoid")
    size = int(dump["num_tree_per_iteration"])
    trees = tuple(_lightgbm_tree(tree["tree_structure"], index % size) for index, tree in enumerate(dump["tree_info"]))
    averaged = len(trees) / size if dump.get("average_output") else 1.0
    tasks = {"binary": "binary", "multiclass": "multiclass", "multiclassova": "multiclass", "lambdarank": "rank", "rank_xendcg": "rank"}
    return Boosted(
        Forest(trees, size, np.zeros(size), divide=averaged, single=False),
        task=tasks.get(objective, "number"),
        link=_LIGHTGBM_LINKS[objective],
        chances=True,
        labels=labels,
        categories=_lightgbm_categories(model, dump),
    )


def _lightgbm_tree(root: Any, output: int) -> Tree:
    nodes: list[Any] = []
    waiting = [root]
    places: dict[int, int] = {}
    while waiting:
        node = waiting.pop()
        places[id(node)] = len(nodes)
        nodes.append(node)
        if "split_feature" in node:
            waiting += [node["right_child"], node["left_child"]]
    count = len(nodes)
    feature, threshold = np.full(count, -1, dtype=np.int64), np.zeros(count)
    left, right = np.full(count, -1, dtype=np.int64), np.full(count, -1, dtype=np.int64)
    missing, value = np.zeros(count, dtype=bool), np.zeros((count, 1))
    sets: dict[int, list[float]] = {}
    for place, node in enumerate(nodes):
        if "split_feature" not in node:
            value[place, 0] = float(node["leaf_value"])
            continue
        feature[place] = node["split_feature"]
        left[place], right[place] = places[id(node["left_child"])], places[id(node["right_child"])]
        if node["decision_type"] == "==":
            sets[place] = [float(code) for code in str(node["threshold"]).split("||")]
            continue
        if node["missing_type"] == "Zero":
            raise NotConverted("LightGBM's zero_as_missing")
        threshold[place] = float(node["threshold"])
        # without a way for missing values, they count as 0
        missing[place] = bool(node["default_left"]) if node["missing_type"] == "NaN" else threshold[place] >= 0.0
    return Tree(feature, threshold, left, right, missing, value, (output,), sets)


def _lightgbm_categories(booster: Any, dump: Any) -> dict[int, dict[Any, int]]:
    """The codes of the values of pandas categoricals, which LightGBM keeps in the order of the columns that it treats as categories."""
    kept = booster.pandas_categorical or []
    if not kept:
        return {}
    infos = dump["feature_infos"]
    names = dump["feature_names"]
    places = [index for index, name in enumerate(names) if infos.get(name, {}).get("values")]
    if len(places) != len(kept):
        raise NotConverted("LightGBM's columns of categories, of which one was never used or is ordered")
    return {place: {value: code for code, value in enumerate(values)} for place, values in zip(places, kept)}


# CatBoost

_CATBOOST_CLASSES = ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll")
_CATBOOST_LABELS = ("MultiLogloss", "MultiCrossEntropy")
_CATBOOST_RANKS = ("YetiRank", "PairLogit", "QueryRMSE", "QuerySoftMax", "QueryCrossEntropy", "Stochastic", "LambdaMart")
_CATBOOST_LINKS = {
    "Logloss": "sigmoid", "CrossEntropy": "sigmoid", "MultiClass": "softmax", "MultiClassOneVsAll": "sigmoid", "MultiLogloss": "sigmoid",
    "MultiCrossEntropy": "sigmoid", "Poisson": "exponential", "Tweedie": "exponential", "RMSE": "", "MAE": "", "Quantile": "",
    "MAPE": "", "Huber": "", "LogLinQuantile": "", "MultiRMSE": "", "Expectile": "", "Lq": "", "LogCosh": "",
}  # fmt: skip


def catboost_model(model: Any) -> Boosted:
    """A model of CatBoost whose features are all numbers. NotConverted says what has no form."""
    if model.get_cat_feature_indices():
        raise NotConverted("CatBoost's features that are categories")
    if model.get_text_feature_indices():
        raise NotConverted("CatBoost's features that are texts")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        raw = json.loads(path.read_text(encoding="utf-8"))
    known = dict(model.get_params())
    known.update(model.get_all_params())
    loss = str(known.get("loss_function", "")).split(":")[0]
    ranks = loss.startswith(_CATBOOST_RANKS)
    if loss not in _CATBOOST_LINKS and not ranks:
        raise NotConverted(f"CatBoost's loss {loss!r}")
    if "oblivious_trees" not in raw:
        raise NotConverted("CatBoost's trees that are not symmetric")
    scale, bias = raw["scale_and_bias"]
    base = np.atleast_1d(np.asarray(bias, dtype=np.float64))
    size = len(base)
    features = raw["features_info"]["float_features"]
    columns = {one["feature_index"]: one["flat_feature_index"] for one in features}
    missing = {one["feature_index"]: one.get("nan_value_treatment") != "AsTrue" for one in features}
    trees = tuple(_catboost_tree(tree, columns, missing, scale, size) for tree in raw["oblivious_trees"])
    classes = np.asarray(model.classes_)
    task = "rank" if ranks else "number"
    if loss in _CATBOOST_LABELS:
        task = "labels"
    elif loss in _CATBOOST_CLASSES and len(classes):
        task = "binary" if len(classes) == 2 else "multiclass"
    return Boosted(
        Forest(trees, size, base),
        task=task,
        link="" if task == "number" and loss in _CATBOOST_CLASSES else _CATBOOST_LINKS.get(loss, ""),
        chances=True,
        labels=classes if task in ("binary", "multiclass") else None,
        cut=float(model.get_metadata().get("binclass_probability_threshold", 0.5)),
    )


def _catboost_tree(tree: Any, columns: Mapping[int, int], missing: Mapping[int, bool], scale: float, size: int) -> Tree:
    """A symmetric tree as a common one: at depth d all nodes ask the same; what is above the border sets bit d of the leaf's number.

    CatBoost goes right above a border;
    what is missing goes left unless the feature treats it "AsTrue".
    """
    splits = tree.get("splits") or []
    depth = len(splits)
    inner = 2**depth - 1
    count = 2 ** (depth + 1) - 1
    feature, threshold = np.full(count, -1, dtype=np.int64), np.zeros(count)
    left, right = np.full(count, -1, dtype=np.int64), np.full(count, -1, dtype=np.int64)
    low = np.zeros(count, dtype=bool)
    value = np.zeros((count, size))
    leaves = np.asarray(tree["leaf_values"], dtype=np.float64).reshape(2**depth, size) * scale
    numbers = np.zeros(count, dtype=np.int64)
    for node in range(inner):
        level = (node + 1).bit_length() - 1
        split = splits[level]
        if split["split_type"] != "FloatFeature":
            raise NotConverted(f"CatBoost's split by {split['split_type']}")
        feature[node], threshold[node] = columns[split["float_feature_index"]], split["border"]
        low[node] = missing[split["float_feature_index"]]
        left[node], right[node] = 2 * node + 1, 2 * node + 2
        numbers[2 * node + 1], numbers[2 * node + 2] = numbers[node], numbers[node] | 1 << level
    value[inner:] = leaves[numbers[inner:]]
    return Tree(feature, threshold, left, right, low, value, tuple(range(size)))


def boosted(kind: str, model: Any) -> Boosted:
    """A model of "xgboost", "lightgbm" or "catboost"."""
    return {"xgboost": xgboost_model, "lightgbm": lightgbm_model, "catboost": catboost_model}[kind](model)
