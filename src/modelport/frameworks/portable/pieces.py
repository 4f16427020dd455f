"""The parts of a graph that several models share: columns on their way, sums of trees, labels, links and categories."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np

from . import trees
from .graphs import BOOL, DOUBLE, FLOAT, INT64, ML, STRING, Graph, NotConverted, Tensor
from .trees import Forest

NULL = "\ufdd0null"
"""What a graph takes for a string that is missing: no text begins with this code point, which Unicode keeps for a program's own use."""
_MOST_NODES = 2_000_000
"""A graph of more nodes would be some 50 MB, for which onnxruntime needs seconds and a gigabyte when it loads it."""
_RESERVED = ("prediction", "probabilities", "score")


class Table(NamedTuple):
    """Columns on their way: for each the tensor it is in, and its place there."""

    columns: tuple[tuple[str, int], ...]
    names: tuple[str, ...] = ()
    """The names of the columns, where they have some."""
    sparse: bool = False
    """Whether the library holds them as a sparse matrix, in which some see a zero as missing."""

    def some(self, places: Sequence[int]) -> Table:
        return Table(tuple(self.columns[place] for place in places), tuple(self.names[place] for place in places) if self.names else ())


def inputs_of(graph: Graph, columns: Sequence[Mapping[str, Any]]) -> Table:
    names = tuple(column["name"] for column in columns)
    strings = [_is_string(column) for column in columns]
    for column in columns:
        if column["kind"] not in ("number", "integer", "boolean", "category", "string", "text"):
            raise NotConverted(f"column {column['name']!r}, which is a {column['kind']}")
    if not any(strings):
        rows = graph.input("rows", graph.number, len(columns))
        return Table(tuple((rows, place) for place in range(len(columns))), names)
    taken = [name + "_" if name.startswith(_RESERVED) else name for name in names]
    tensors = [graph.input(name, STRING if string else graph.number, 1) for name, string in zip(taken, strings)]
    return Table(tuple((tensor, 0) for tensor in tensors), names)


def _is_string(column: Mapping[str, Any]) -> bool:
    return column["kind"] in ("string", "text") or (column["kind"] == "category" and any(isinstance(one, str) for one in column["choices"]))


def as_numbers(graph: Graph, table: Table, kind: int | None = None) -> str:
    """The columns as one matrix of numbers."""
    kind = graph.number if kind is None else kind
    if not table.columns:
        raise NotConverted("a step that gets no columns")
    if any(graph.types[tensor] == STRING for tensor, _ in table.columns):
        raise NotConverted("a column of strings that no step turns into numbers")
    runs: list[tuple[str, list[int]]] = []
    for tensor, place in table.columns:
        if not runs or runs[-1][0] != tensor:
            runs.append((tensor, []))
        runs[-1][1].append(place)
    # numbers of one type are joined before they are cast
    parts = [some_columns(graph, tensor, places) for tensor, places in runs]
    if len({graph.types[part] for part in parts}) > 1:
        parts = [graph.cast(part, kind) for part in parts]
    joined = parts[0]
    if len(parts) > 1:
        joined = graph.add("Concat", *parts, axis=1)
    joined = graph.cast(joined, kind)
    graph.widths[joined] = len(table.columns)
    return joined


def some_columns(graph: Graph, tensor: str, places: Sequence[int]) -> str:
    if list(places) == list(range(graph.widths[tensor])):
        return tensor
    out = graph.add("Gather", tensor, graph.constant(np.asarray(places, dtype=np.int64)), axis=1)
    graph.widths[out] = len(places)
    return out


def one_column(graph: Graph, table: Table, place: int) -> str:
    """One column, (rows, 1)."""
    tensor, at = table.columns[place]
    return some_columns(graph, tensor, [at])


def whole(graph: Graph, tensor: str, width: int, sparse: bool = False) -> Table:
    graph.widths[tensor] = width
    return Table(tuple((tensor, place) for place in range(width)), sparse=sparse)


# Trees


def sums_of(graph: Graph, forest: Forest, rows: str) -> str:
    """The sums of a forest's leaves, (rows, size).

    Where the library looks at features in single precision, so does the graph: what it computed in double is rounded as the library rounds
    it. Thresholds of double precision are then rounded down, which parts single precision numbers the same way.
    """
    single = forest.single or graph.number == FLOAT
    rows = graph.cast(rows, FLOAT if single else DOUBLE)
    sums = graph.add("TreeEnsembleRegressor", rows, kind=FLOAT, domain=ML, **_ensemble(forest, single))
    graph.widths[sums] = forest.size
    return sums


def _ensemble(forest: Forest, single: bool) -> dict[str, Any]:
    count = sum(len(tree.feature) for tree in forest.trees)
    if count > _MOST_NODES:
        raise NotConverted(f"trees of {count:,} nodes together: onnxruntime would take too long to load more than {_MOST_NODES:,}")
    parts: dict[str, list[Any]] = {name: [] for name in ("tree", "node", "feature", "value", "mode", "left", "right", "missing")}
    weights: dict[str, list[Any]] = {name: [] for name in ("tree", "node", "output", "weight")}
    for number, tree in enumerate(forest.trees):
        tree = _without_sets(tree)
        count = len(tree.feature)
        leaf = tree.feature < 0
        mode = np.where(leaf, "LEAF", "BRANCH_LT" if forest.strict else "BRANCH_LEQ")
        for node in tree.sets:
            mode[node] = "BRANCH_EQ"
        parts["tree"].append(np.full(count, number))
        parts["node"].append(np.arange(count))
        parts["feature"].append(np.where(leaf, 0, tree.feature))
        parts["value"].append(np.where(leaf, 0.0, _rounded_down(tree.threshold) if single and not forest.strict else tree.threshold))
        parts["mode"].append(mode)
        parts["left"].append(np.where(leaf, 0, tree.left))
        parts["right"].append(np.where(leaf, 0, tree.right))
        parts["missing"].append(tree.missing_left & ~leaf)
        nodes = np.flatnonzero(leaf)
        for place, output in enumerate(tree.outputs):
            weights["tree"].append(np.full(len(nodes), number))
            weights["node"].append(nodes)
            weights["output"].append(np.full(len(nodes), output))
            weights["weight"].append(tree.value[nodes, place])
    all_parts = {name: np.concatenate(values) for name, values in parts.items()}
    all_weights = {name: np.concatenate(values) for name, values in weights.items()}
    # weights of a leaf stand together: that is what the format's readers expect
    order = np.lexsort((all_weights["output"], all_weights["node"], all_weights["tree"]))
    all_weights = {name: values[order] for name, values in all_weights.items()}
    attributes = {
        "n_targets": forest.size,
        "post_transform": "NONE",
        "aggregate_function": "SUM",
        "nodes_treeids": all_parts["tree"],
        "nodes_nodeids": all_parts["node"],
        "nodes_featureids": all_parts["feature"],
        "nodes_modes": all_parts["mode"],
        "nodes_truenodeids": all_parts["left"],
        "nodes_falsenodeids": all_parts["right"],
        "nodes_missing_value_tracks_true": all_parts["missing"],
        "target_treeids": all_weights["tree"],
        "target_nodeids": all_weights["node"],
        "target_ids": all_weights["output"],
    }
    floats = {"nodes_values": all_parts["value"], "target_weights": all_weights["weight"]}
    if np.any(forest.base):
        floats["base_values"] = forest.base
    for name, values in floats.items():
        if single:
            attributes[name] = values.astype(np.float32)
        else:
            attributes[name + "_as_tensor"] = Tensor(values.astype(np.float64))
    return attributes


def _rounded_down(values: Any) -> Any:
    """The largest single precision number that is at most the value: what is at most the one is at most the other."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    return np.where(near.astype(np.float64) > values, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float64)


def _without_sets(tree: trees.Tree) -> trees.Tree:
    """A tree that asks for one category at a time: a node for each of a set, each going on to the next one."""
    if not tree.sets:
        return tree
    count = len(tree.feature)
    total = count + sum(len(codes) - 1 for codes in tree.sets.values())

    def longer(values: Any, fill: Any) -> Any:
        out = np.full((total, *values.shape[1:]), fill, dtype=values.dtype)
        out[:count] = values
        return out

    feature, threshold = longer(tree.feature, 0), longer(tree.threshold, 0.0)
    left, right, missing = longer(tree.left, 0), longer(tree.right, 0), longer(tree.missing_left, False)
    sets: dict[int, Sequence[float]] = {}
    at = count
    for node, codes in tree.sets.items():
        threshold[node], sets[node] = codes[0], codes[:1]
        end, last = right[node], node
        for code in codes[1:]:
            feature[at], threshold[at], left[at], right[at] = feature[node], code, left[node], end
            right[last], last = at, at
            sets[at] = (code,)
            at += 1
    return trees.Tree(feature, threshold, left, right, missing, longer(tree.value, 0.0), tree.outputs, sets)


# Labels and links


def labels_at(graph: Graph, index: str, classes: Any) -> str:
    """The labels at places, (rows,): of the type that the classes have."""
    if classes is None or (classes.dtype.kind in "iu" and np.array_equal(classes, np.arange(len(classes)))):
        return index
    if classes.dtype.kind == "O" and not all(isinstance(label, str) for label in classes):
        raise NotConverted("labels that are neither all strings nor all numbers")
    out = graph.add("Gather", graph.constant(classes, DOUBLE if classes.dtype.kind == "f" else None), index, axis=0)
    graph.flat.add(out)
    return out


def place_of_most(graph: Graph, scores: str) -> str:
    """The place of the highest of each row, the first of several alike."""
    out = graph.add("ArgMax", scores, kind=INT64, axis=1, keepdims=0)
    graph.flat.add(out)
    return out


def is_above(graph: Graph, column: str, cut: float, op: str = "Greater") -> str:
    """Whether the numbers of one column (rows, 1) are above a cut, as places (rows,): 0 or 1."""
    above = graph.add(op, column, graph.constant(np.asarray(cut), graph.types[column]), kind=BOOL)
    return flat(graph, graph.cast(above, INT64))


def both_classes(graph: Graph, second: str) -> str:
    """The chances of both classes, (rows, 2), of those of the second, (rows, 1)."""
    first = graph.add("Sub", graph.constant(np.asarray(1.0), graph.types[second]), second, kind=graph.types[second])
    return graph.add("Concat", first, second, axis=1)


def flat(graph: Graph, column: str) -> str:
    """One column, (rows, 1), as (rows,)."""
    out = graph.add("Reshape", column, graph.constant(np.array([-1])))
    graph.flat.add(out)
    return out


def divided(graph: Graph, values: str, by: float) -> str:
    return values if by == 1.0 else graph.add("Div", values, graph.constant(np.asarray(by), graph.types[values]))


def linked(graph: Graph, sums: str, link: str) -> str:
    """What a link makes of sums."""
    if link == "softmax":
        return graph.add("Softmax", sums, axis=1)
    if link == "step":
        above = graph.add("Greater", sums, graph.constant(np.asarray(0.0), graph.types[sums]), kind=BOOL)
        return graph.cast(above, graph.types[sums])
    return graph.add({"sigmoid": "Sigmoid", "exponential": "Exp"}[link], sums) if link else sums


# Categories


def places_of(graph: Graph, table: Table, place: int, categories: Sequence[Any], places: Sequence[int], unknown: int) -> str:
    """One column's categories as whole numbers, (rows, 1): for each of `categories` that of `places`, and `unknown` for any other value."""
    column = one_column(graph, table, place)
    if graph.types[column] == STRING:
        return graph.add(
            "LabelEncoder", column, kind=INT64, domain=ML,
            keys_strings=[_key(one) for one in categories], values_int64s=list(places), default_int64=unknown,
        )  # fmt: skip
    alike = graph.cast(is_alike(graph, column, categories), INT64)
    weighed = graph.add("Mul", alike, graph.constant(np.arange(len(categories)) - len(categories)))
    first = graph.add("ReduceMin", weighed, axes=[1], keepdims=1)
    at = graph.add("Add", first, graph.constant(np.array(len(categories))))
    if list(places) == list(range(len(categories))) and unknown == len(categories):
        return at
    return graph.add("Gather", graph.constant(np.array([*places, unknown], dtype=np.int64)), at, axis=0)


def codes_of(graph: Graph, table: Table, place: int, categories: Sequence[Any], codes: Sequence[float], unknown: float) -> str:
    """One column's categories as numbers, (rows, 1): for each of `categories` that of `codes`, and `unknown` for any other value."""
    count = len(categories)
    at = places_of(graph, table, place, categories, range(count), count)
    out = graph.add("Gather", graph.constant(np.array([*codes, unknown], dtype=np.float64)), at, axis=0)
    graph.widths[out] = 1
    return out


def _key(category: Any) -> str:
    if category is None:
        raise NotConverted("None among the categories of strings")
    if isinstance(category, float) and np.isnan(category):
        return NULL
    if not isinstance(category, str):
        raise NotConverted(f"the category {category!r} among strings")
    return category


def is_alike(graph: Graph, column: str, categories: Sequence[Any]) -> str:
    """Which of the categories a number is, (rows, categories), as booleans; NaN is the category NaN."""
    try:
        numbers = np.array([float(one) for one in categories])
    except (TypeError, ValueError):
        raise NotConverted("categories of strings for a column of numbers") from None
    alike = graph.add("Equal", column, graph.constant(numbers.reshape(1, -1), graph.types[column]), kind=BOOL)
    if np.isnan(numbers).any():
        missing = graph.add("And", graph.add("IsNaN", column, kind=BOOL), graph.constant(np.isnan(numbers).reshape(1, -1)), kind=BOOL)
        alike = graph.add("Or", alike, missing, kind=BOOL)
    return alike
