"""Networks become ONNX graphs that take pixels and give labels with their chances, by either exporter, and without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import needed

needed.torch("torch", "onnx", "onnxscript")

import numpy as np
import onnxruntime
import pytest
import torch

import torch_world as world
from modelport.frameworks import torch_graph
from modelport.frameworks.portable.graphs import NotConverted
from modelport.frameworks.torch_graph import Input
from modelport.preprocessing import Preprocessing


def run(graph: bytes, **feed: np.ndarray[Any, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


def test_a_picture_goes_in_as_its_pixels_and_comes_out_with_label_and_chances(tmp_path: Path) -> None:
    net = world.network(tmp_path)
    graph = torch_graph.picture_graph(net, world.HOW, activation="softmax", labels=world.LABELS)
    labels, chances = run(graph, image=world.pictures())
    want = world.answers(net, world.pictures())
    np.testing.assert_allclose(chances, want, atol=1e-6)
    assert labels.tolist() == [world.LABELS[place] for place in want.argmax(axis=1)]
    (alone,) = run(graph, image=world.pictures()[:1])[1]
    np.testing.assert_allclose(alone, want[0], atol=1e-6)


@pytest.mark.parametrize("exporter", [torch_graph._by_torchscript, torch_graph._by_dynamo])
def test_both_exporters_do_it_and_neither_says_a_word(exporter: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    net = world.network(tmp_path)
    whole = torch_graph.chain(torch_graph.pixels(world.HOW), net, torch_graph.scores("softmax", 3))
    taken = (Input("image", "uint8", world.HOW.shape),)
    graph = torch_graph.graph(whole, taken, ("probabilities",), fields=("image",), labels=world.LABELS, exporters=(exporter,))
    np.testing.assert_allclose(run(graph, image=world.pictures())[1], world.answers(net, world.pictures()), atol=1e-6)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(16, 16, scale=1 / 255, layout="NCHW", dtype="float32", mode="BGR", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)),
        Preprocessing(16, 16, scale=1 / 127.5, layout="NHWC", dtype="float32", mean=(1.0, 1.0, 1.0)),
        Preprocessing(16, 16, layout="NCHW", dtype="float32"),
        Preprocessing(16, 16, scale=1 / 255, layout="NCHW", dtype="float32", mode="L"),
    ],
)
def test_pixels_become_in_the_graph_what_they_become_outside(how: Preprocessing) -> None:
    pixels = world.pictures()[..., : how.channels]
    (made,) = run(torch_graph.picture_graph(torch.nn.Identity(), how), image=pixels)
    np.testing.assert_allclose(made, how.tensor(pixels).reshape(len(pixels), -1), atol=1e-5)


def test_one_number_for_two_labels_is_the_chance_of_the_second() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16 * 16 * 3, 1)).eval()
    labels, chances = run(torch_graph.picture_graph(net, world.HOW, activation="sigmoid", labels=("no", "yes")), image=world.pictures())
    with torch.inference_mode():
        second = net(torch.from_numpy(world.HOW.tensor(world.pictures()))).sigmoid().numpy()
    np.testing.assert_allclose(chances, np.hstack([1 - second, second]), atol=1e-6)
    assert labels.tolist() == ["yes" if chance > 0.5 else "no" for chance in second.ravel()]


def test_a_network_that_no_exporter_takes_is_named_with_the_reason() -> None:
    class Asks(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            raise RuntimeError("it never answers\nand says so at length")

    with pytest.raises(NotConverted, match=r"^torch\.onnx: RuntimeError: it never answers$"):
        torch_graph.picture_graph(Asks(), world.HOW)
