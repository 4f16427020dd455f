"""The ONNX files that are written with numpy alone are those that ONNX's own library reads and checks."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from modelport.frameworks.portable.graphs import BOOL, DOUBLE, FLOAT, INT64, ML, STRING, Graph, Tensor


def small() -> bytes:
    """Numbers and words in; a sum of numbers, a place among words, and constants of every type out."""
    graph = Graph(DOUBLE)
    rows, words = graph.input("Größe (m²)", DOUBLE, 2), graph.input("words", STRING, 1)
    total = graph.add("Add", rows, graph.constant(np.array([[0.1, -0.2]])))
    place = graph.add("LabelEncoder", words, kind=INT64, domain=ML, keys_strings=["ä", ""], values_int64s=[3, -(2**62)], default_int64=-1)
    graph.output("total", total)
    graph.output("place", place)
    for name, values in (("flags", [True, False]), ("names", ["a\0b", "ß"]), ("counts", [-1, 2**40])):
        graph.output(name, graph.constant(np.array(values, dtype=object if name == "names" else None)))
    return graph.to_bytes({"inputs": ["Größe (m²)", "words"]})


def test_onnx_s_own_checker_takes_the_file() -> None:
    model = onnx.load_from_string(small())
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17), (ML, 3)]
    assert [one.name for one in model.graph.input] == ["Größe (m²)", "words"]
    assert [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == ["rows", 2]


def test_what_was_put_in_comes_out() -> None:
    session = onnxruntime.InferenceSession(small(), providers=["CPUExecutionProvider"])
    total, place, flags, names, counts = session.run(None, {"Größe (m²)": np.array([[1.0, 2.0]]), "words": np.array([["ä"]], dtype=object)})
    assert total.tolist() == [[1.1, 1.8]]
    assert place.tolist() == [[3]]
    assert (flags.tolist(), counts.tolist()) == ([True, False], [-1, 2**40])
    assert names.tolist()[1] == "ß"
    assert session.get_modelmeta().custom_metadata_map == {"modelport": '{"inputs": ["Gr\\u00f6\\u00dfe (m\\u00b2)", "words"]}'}


def test_attributes_are_of_the_type_of_their_values() -> None:
    graph = Graph(FLOAT)
    rows = graph.input("rows", FLOAT, 1)
    values = {
        "number": 3, "negative": -3, "real": 0.5, "text": "ä", "numbers": [1, -2], "reals": [0.5, 1e30], "texts": ["a", "ß"],
        "flags": np.array([True, False]), "tensor": Tensor(np.array([1.5, 2.5])),
    }  # fmt: skip
    graph.output("out", graph.add("Own", rows, domain="own", **values))
    node = onnx.load_from_string(graph.to_bytes({})).graph.node[0]
    read = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    assert numpy_helper.to_array(read.pop("tensor")).tolist() == [1.5, 2.5]
    wanted = {
        "number": 3,
        "negative": -3,
        "real": 0.5,
        "text": "ä".encode(),
        "numbers": [1, -2],
        "flags": [1, 0],
        "texts": [b"a", "ß".encode()],
    }
    assert np.allclose(read.pop("reals"), [0.5, 1e30])
    assert read == wanted
    assert (node.domain, node.op_type) == ("own", "Own")


def test_a_constant_is_written_once_and_types_are_not_mixed_up() -> None:
    graph = Graph(FLOAT)
    assert graph.constant(np.array([1.0, 2.0])) == graph.constant(np.array([1.0, 2.0]))
    assert graph.constant(np.array([1.0, 2.0])) != graph.constant(np.array([1.0, 2.0]), DOUBLE)
    assert graph.constant(np.array(["a\0b", "c"], dtype=object)) != graph.constant(np.array(["a", "b\0c"], dtype=object))
    assert graph.cast(graph.constant(np.array([True])), BOOL) == graph.constant(np.array([True]))
