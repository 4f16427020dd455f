"""A loaded model: its answers are checked, its golden rows reproduced, and its code kept apart from that of other models."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import bundles
import converted
import models
from modelport import bundle as bundle_module
from modelport import engines, gates, inspection
from modelport.bundle import Bundle
from modelport.engines import Engine, Measured
from modelport.errors import (
    BundleError,
    GoldenMismatch,
    InvalidInput,
    ModelContract,
    ModelFailed,
    ModelFileError,
    SignatureError,
    Untrusted,
    UsageError,
)
from modelport.frameworks import Card
from modelport.packing import Options, pack_file
from modelport.signature import Columns, Field, Signature

SIGNATURE = Signature((Field("x", "number", example=1.0),), (Field("y", "number"),))


class Function:
    """A framework whose model is a function from columns to whatever it answers."""

    def predict(self, model: Callable[[Columns], Any], columns: Columns, signature: Signature) -> Any:
        return model(columns)


def engine(model: Callable[[Columns], Any], outputs: tuple[Field, ...] = SIGNATURE.outputs) -> Engine:
    signature = Signature(SIGNATURE.inputs, outputs)
    return Engine(Function(), model, signature, signature)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "the model gave a NoneType where its outputs by name are expected"),
        (np.array([1.0, 2.0]), "the model gave a ndarray where its outputs by name are expected"),
        ({}, "the model gave nothing for output 'y' of 2 rows"),
        ({"y": None}, "the model gave nothing for output 'y' of 2 rows"),
        ({"z": np.array([1.0, 2.0])}, "the model gave nothing for output 'y' of 2 rows"),
        ({"y": np.array([1.0])}, "the model gave 1 values for output 'y' of 2 rows"),
        ({"y": [1, 2, 3]}, "the model gave 3 values for output 'y' of 2 rows"),
        ({"y": 1.0}, "the model gave a float for output 'y' of 2 rows"),
        ({"y": np.float64(1.0)}, "the model gave a float64 for output 'y' of 2 rows"),
        ({"y": "ab"}, "the model gave a str for output 'y' of 2 rows"),
        ({"y": object()}, "the model gave a object for output 'y' of 2 rows"),
        ({"y": [[1.0], [1.0, 2.0]]}, "the model gave rows of different shapes for output 'y'"),
        ({"y": np.ones((2, 3))}, "the model gave rows of shape (3,) for output 'y', which has the shape ()"),
        ({"y": np.array([1.0, np.nan])}, "output 'y' of row 1 is nan, which is no number"),
        ({"y": np.array([-np.inf, 1.0])}, "output 'y' of row 0 is -inf, which is no number"),
        ({"y": np.array([1.0, None])}, "output 'y' holds None, which is no answer"),
    ],
)
def test_an_answer_that_is_none_breaks_the_contract(answer: Any, words: str) -> None:
    with pytest.raises(ModelContract) as caught:
        engine(lambda columns: answer).answer([{"x": 1}, {"x": 2}])
    assert caught.value.message == words


def test_a_sparse_matrix_is_no_answer() -> None:
    from scipy.sparse import csr_matrix

    with pytest.raises(ModelContract, match="a csr_matrix for output 'y'"):
        engine(lambda columns: {"y": csr_matrix(np.ones((2, 1)))}).answer([{"x": 1}, {"x": 2}])


def test_lists_pandas_columns_and_vectors_are_answers() -> None:
    import pandas as pd

    assert engine(lambda columns: {"y": pd.Series(columns["x"] * 2)}).answer([{"x": 1}]) == [{"y": 2.0}]
    assert engine(lambda columns: {"y": [1, 2]}).answer([{"x": 1}, {"x": 2}]) == [{"y": 1}, {"y": 2}]
    vector = (Field("y", "number", shape=(2,), choices=("no", "yes")),)
    assert engine(lambda columns: {"y": np.array([[0.5, 0.5]])}, vector).answer([{"x": 1}]) == [{"y": {"no": 0.5, "yes": 0.5}}]
    with pytest.raises(ModelContract, match=r"rows of shape \(3,\) for output 'y', which has the shape \(2,\)"):
        engine(lambda columns: {"y": np.ones((1, 3))}, vector).answer([{"x": 1}])


def test_a_model_that_raises_is_named_and_the_cause_kept() -> None:
    def broken(columns: Columns) -> Columns:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(ModelFailed, match="the model raised ZeroDivisionError: division by zero") as caught:
        engine(broken).answer([{"x": 1}])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_models_own_code_may_refuse_an_input() -> None:
    def picky(columns: Columns) -> Columns:
        raise InvalidInput("x", "no figures for 1")

    with pytest.raises(InvalidInput, match="/x: no figures for 1"):
        engine(picky).answer([{"x": 1}])


def test_no_rows_are_not_asked_about() -> None:
    assert engine(lambda columns: pytest.fail("asked")).answer([]) == []


# Golden rows


def golden(tmp_path: Path, content: Any) -> Bundle:
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "m").write_bytes(b"")
    (folder / "golden.json").write_text(json.dumps(content))
    return bundle_module.write(folder, name="lines", card=Card("sklearn", "a.B", "b"), signature=SIGNATURE, model="model/m", python="3.11")


def rows(*outputs: Any) -> dict[str, Any]:
    return {"tolerance": 1e-5, "rows": [{"input": {"x": index}, "output": {"y": output}} for index, output in enumerate(outputs)]}


def test_golden_rows_within_the_tolerance_pass(tmp_path: Path) -> None:
    bundle = golden(tmp_path, rows(0.0, 1.0, 1e9))
    assert engines.verify_golden(engine(lambda columns: {"y": np.array([9e-6, 1.000009, 1e9 + 9e3])}), bundle) == 3


@pytest.mark.parametrize(
    ("answer", "recorded", "words"),
    [
        (1.1, 1.0, "golden row 1 of 'lines' answers differently now: /y was 1.0 and is 1.1"),
        ("dear", "cheap", "golden row 1 of 'lines' answers differently now: /y was 'cheap' and is 'dear'"),
        (1, True, "golden row 1 of 'lines' answers differently now: /y was True and is 1"),
        (2, 1, "golden row 1 of 'lines' answers differently now: /y was 1 and is 2"),
        ([1.0, 3.0], [1.0, 2.0], "golden row 1 of 'lines' answers differently now: /y/1 was 2.0 and is 3.0"),
        ([1.0], [1.0, 2.0], "golden row 1 of 'lines' answers differently now: /y was [1.0, 2.0] and is [1.0]"),
        ({"a": 1.0}, {"b": 1.0}, "golden row 1 of 'lines' answers differently now: /y was {'b': 1.0} and is {'a': 1.0}"),
        (None, 1.0, "golden row 1 of 'lines' answers differently now: /y was 1.0 and is None"),
    ],
)
def test_a_golden_row_that_differs_is_named_with_both_answers(tmp_path: Path, answer: Any, recorded: Any, words: str) -> None:
    output = (Field("y", "json", nullable=True),)

    def model(columns: Columns) -> Columns:
        values = np.empty(2, dtype=object)
        values[0], values[1] = 0, answer
        return {"y": values}

    with pytest.raises(GoldenMismatch) as caught:
        engines.verify_golden(engine(model, output), golden(tmp_path, rows(0, recorded)))
    assert caught.value.message == words
    assert caught.value.exit_code == 3


def test_golden_rows_that_do_not_fit_the_signature_are_a_mismatch(tmp_path: Path) -> None:
    bundle = golden(tmp_path, {"tolerance": 1e-5, "rows": [{"input": {"x": "1"}, "output": {"y": 1}}]})
    with pytest.raises(GoldenMismatch, match="do not fit its signature"):
        engines.verify_golden(engine(lambda columns: {}), bundle)


@pytest.mark.parametrize("content", [[], {}, {"rows": []}, {"rows": [{}], "tolerance": 1}, {"rows": [1], "tolerance": 1}, {"rows": 1}])
def test_a_golden_file_that_is_none_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(BundleError, match="holds no rows with an input and an output"):
        engines.verify_golden(engine(lambda columns: {}), golden(tmp_path, content))


def test_a_bundle_without_golden_rows_has_nothing_to_reproduce(tmp_path: Path) -> None:
    assert engines.verify_golden(engine(lambda columns: {}), bundles.write(tmp_path / "bundle")) == 0


# Code that comes with a model


@pytest.fixture
def modules() -> Iterator[Mapping[str, ModuleType]]:
    """The imported modules, put back as they were."""
    before, brought = dict(sys.modules), dict(engines._brought)
    yield sys.modules
    for name in set(sys.modules) - set(before):
        if name.startswith("mine"):
            del sys.modules[name]
    engines._brought.clear()
    engines._brought.update(brought)


def pickled(folder: Path, code: Mapping[str, str], module: str = "__main__") -> tuple[bytes, Path]:
    """A pickle of the function `clean` in `module`, and the folder of the code that defines it."""
    folder.mkdir(parents=True)
    for name, source in code.items():
        (folder / name).write_text(source)
    return f"c{module}\nclean\n.".encode(), folder


def call(raw: bytes, code: Path) -> float:
    """What the function in the pickle makes of 3."""
    with engines._at_hand(code):
        clean = pickle.loads(raw)
    return float(clean(3))


def test_two_models_may_mean_two_functions_by_one_name_in_main(tmp_path: Path, modules: Mapping[str, ModuleType]) -> None:
    first = pickled(tmp_path / "1", {"mine_first.py": "def clean(x):\n    return x + 1\n"})
    second = pickled(tmp_path / "2", {"mine_second.py": "def clean(x):\n    return x * 10\n"})
    main = sys.modules["__main__"]
    assert [call(*first), call(*second), call(*first)] == [4.0, 30.0, 4.0]
    assert sys.modules["__main__"] is main
    assert not hasattr(main, "clean")


def test_two_modules_of_one_name_in_one_process_are_refused(tmp_path: Path, modules: Mapping[str, ModuleType]) -> None:
    first = pickled(tmp_path / "1", {"mine.py": "def clean(x):\n    return x + 1\n"}, module="mine")
    same = pickled(tmp_path / "2", {"mine.py": "def clean(x):\n    return x + 1\n"}, module="mine")
    other = pickled(tmp_path / "3", {"mine.py": "def clean(x):\n    return x * 10\n"}, module="mine")
    assert [call(*first), call(*same)] == [4.0, 4.0]
    with pytest.raises(UsageError) as caught:
        call(*other)
    assert caught.value.message == f"the model brings a module 'mine' along, and another 'mine' is here, from {tmp_path / '1' / 'mine.py'}"
    assert "processes of their own" in caught.value.hint


def test_a_module_with_the_name_of_one_of_pythons_own_or_of_a_loaded_library_is_refused(
    tmp_path: Path, modules: Mapping[str, ModuleType]
) -> None:
    for number, name in enumerate(("json", "numpy", "this")):
        path = pickled(tmp_path / str(number), {f"{name}.py": "def clean(x):\n    return x\n"}, module=name)
        with pytest.raises(UsageError, match=f"another '{name}' is here"):
            call(*path)


def test_modules_that_come_along_find_each_other_also_later(tmp_path: Path, modules: Mapping[str, ModuleType]) -> None:
    code = {
        "mine_a.py": "import mine_b\ndef clean(x):\n    import mine_c\n    return x + mine_b.ONE + mine_c.TEN\n",
        "mine_b.py": "ONE = 1\n",
        "mine_c.py": "TEN = 10\n",
    }
    folder = tmp_path / "code"
    assert call(*pickled(folder, code)) == 14.0
    assert sorted(path.name for path in folder.iterdir()) == sorted(code)
    assert str(folder) not in sys.path


def test_code_that_does_not_import_is_named(tmp_path: Path, modules: Mapping[str, ModuleType]) -> None:
    path, code = pickled(tmp_path / "code", {"mine_broken.py": "import a_library_that_is_not_here\n"})
    with pytest.raises(ModelFileError, match="does not import: ModuleNotFoundError: No module named 'a_library_that_is_not_here'"):
        call(path, code)
    assert "mine_broken" not in sys.modules


def test_code_runs_as_a_module_and_not_as_a_script(tmp_path: Path, modules: Mapping[str, ModuleType]) -> None:
    source = "def clean(x):\n    return x\n\nif __name__ == '__main__':\n    raise SystemExit('trained again')\n"
    assert call(*pickled(tmp_path / "code", {"mine_script.py": source})) == 3.0


# Files


def loaded(path: Path, signature: Signature | None = None) -> Engine:
    card = inspection.inspect(path).card
    assert card is not None
    return engines.load_model(path, card, signature)


def boosted(folder: Path) -> Path:
    path = folder / "shipping.ubj"
    models.xgboost_regressor().model.save_model(path)
    return path


def test_a_model_file_answers_under_its_own_names_and_under_the_signatures(tmp_path: Path) -> None:
    path = boosted(tmp_path)
    own = loaded(path)
    record = models.records(models.xgboost_regressor().frame.head(1))
    renamed = Signature(own.signature.inputs, (Field("price", "number", dtype="float32"),))
    assert list(own.answer(record)[0]) == ["prediction"]
    assert loaded(path, renamed).answer(record) == [{"price": own.answer(record)[0]["prediction"]}]


def test_a_signature_with_another_number_of_outputs_than_the_model_is_refused(tmp_path: Path) -> None:
    path = boosted(tmp_path)
    own = loaded(path).signature
    with pytest.raises(SignatureError, match=r"the model gives 1 outputs, the signature has 2"):
        loaded(path, Signature(own.inputs, (Field("a", "number"), Field("b", "number"))))


# ONNX


def test_a_bundle_with_onnx_is_loaded_from_it_and_its_pickle_is_not_opened(tmp_path: Path) -> None:
    mark = tmp_path / "the pickle was loaded"
    bundle = converted.iris(tmp_path / "bundle", {"model/model.pkl": converted.writes(mark)}, model="model/model.pkl")
    engine = engines.load(bundle)
    assert (engine.name, engines.verify_golden(engine, bundle)) == ("onnx", 20)
    assert not mark.exists()
    with pytest.raises(SignatureError):
        engines.load(bundle, "native")
    assert mark.exists()


def test_each_engine_can_be_asked_for(tmp_path: Path) -> None:
    bundle = converted.iris(tmp_path / "bundle")
    rows = models.records(models.iris().iloc[::10])
    onnx, native = engines.load(bundle, "onnx"), engines.load(bundle, "native")
    assert (onnx.name, native.name, engines.verify_golden(native, bundle)) == ("onnx", "native", 20)
    for one, other in zip(onnx.answer(rows), native.answer(rows), strict=True):
        assert not engines.difference(one, other, 1e-5)
        assert list(one) == ["prediction", "probabilities"]


def test_an_engine_that_is_not_there_is_refused_with_the_reason(tmp_path: Path) -> None:
    bundle = bundles.write(tmp_path / "plain")
    with pytest.raises(UsageError) as caught:
        engines.load(bundle, "onnx")
    assert caught.value.message == "iris has no ONNX: it was packed without being converted"
    assert caught.value.hint.startswith("Pack it again")
    parity = {**converted.PARITY, "passed": False, "reason": "3 of 1,212 rows get another label"}
    failed = converted.changed(bundle, tmp_path / "failed", {"parity.json": json.dumps(parity).encode()})
    with pytest.raises(UsageError, match="iris has no ONNX: 3 of 1,212 rows get another label"):
        engines.load(failed, "onnx")
    with pytest.raises(UsageError, match="there is no engine 'onix'; did you mean \"onnx\""):
        engines.load(bundle, "onix")


def test_a_bundle_with_functions_is_loaded_as_it_is(tmp_path: Path) -> None:
    """Its functions are in the model's file: who loads them must have passed the gates of that."""
    mark = tmp_path / "mark"
    files = {"model/model.pkl": converted.writes(mark)}
    card = Card("sklearn", "a.B", "scikit-learn", details={"other_functions": ["other"]})
    functions = {"other": bundle_module.Function(SIGNATURE)}
    bundle = converted.iris(tmp_path / "bundle", files, model="model/model.pkl", card=card, functions=functions)
    assert engines.choose(bundle) == "native"
    with pytest.raises(Untrusted):
        gates.check_bundle(bundle)
    with pytest.raises(UsageError, match="iris has no ONNX: it is made of functions"):
        engines.choose(bundle, "onnx")
    assert engines.beside(bundle) is None


def test_a_model_that_came_as_onnx_is_that_whatever_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    bundle = pack_file(models.write("onnx_svc", tmp_path), tmp_path / "bundle", Options(name="m"))
    assert {engines.load(bundle, wanted).name for wanted in engines.WANTED} == {"onnx"}


def test_the_golden_rows_of_onnx_may_differ_as_much_as_they_might_when_it_was_converted(tmp_path: Path) -> None:
    bundle = golden(tmp_path, rows(1.0))
    proven = converted.changed(bundle, tmp_path / "proven", {"parity.json": json.dumps(converted.PARITY).encode()})
    near, far = ({"y": np.array([value])} for value in (1.00005, 1.0005))
    assert engines.verify_golden(replace(engine(lambda columns: near), name="onnx"), proven) == 1
    for native, bad in (("native", near), ("onnx", far)):
        with pytest.raises(GoldenMismatch):
            engines.verify_golden(replace(engine(lambda columns, answer=bad: answer), name=native), proven)


# Two engines


class Clock:
    """Time that passes when a model computes."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def engine(self, name: str, fixed_s: float, each_s: float) -> Engine:
        """An engine whose calls take so long, and which answers with its name."""

        def model(columns: Columns) -> Columns:
            self.now_s += fixed_s + each_s * len(columns["x"])
            return {"y": np.full(len(columns["x"]), name, dtype=object)}

        return replace(engine(model, (Field("y", "string"),)), name=name)


def asked(measured: Measured, count: int) -> str:
    """Who answers a call of so many rows."""
    (name,) = set(measured.predict({"x": np.ones(count)})["y"])
    return str(name)


def test_each_size_of_call_goes_to_the_engine_that_was_faster_for_it() -> None:
    clock, told = Clock(), list[Mapping[str, Any]]()
    onnx, native = clock.engine("onnx", 1e-5, 1e-5), clock.engine("native", 1.01e-3, 1e-6)
    measured = Measured(onnx, lambda: native, [{"x": 1.0}], told=told.append, begin=lambda load: load(), clock=clock)
    assert measured.signature is onnx.signature
    while not told:
        assert asked(measured, 64) == "onnx"
    assert clock.now_s > 1.0
    # a straight line from 64 to 512 rows, as the costs are: they are equal at 111.1
    assert [asked(measured, count) for count in (1, 8, 64, 111, 112, 512, 100_000)] == ["onnx"] * 4 + ["native"] * 3
    assert told[0]["from_rows"] == 112
    assert measured.answer([{"x": 1.0}] * 200) == [{"y": "native"}] * 200


def test_the_other_engine_is_not_loaded_for_calls_of_few_rows() -> None:
    clock = Clock()
    measured = Measured(
        clock.engine("onnx", 1.0, 0.0),
        lambda: pytest.fail("loaded"),
        [{"x": 1.0}],
        told=pytest.fail,
        begin=lambda load: load(),
        clock=clock,
    )
    assert {asked(measured, count) for count in (1, 32, 63) for _ in range(10)} == {"onnx"}
    assert clock.now_s > 10


def test_an_engine_that_is_never_faster_is_never_asked() -> None:
    clock, told = Clock(), list[Mapping[str, Any]]()
    native = clock.engine("native", 1.0, 1.0)
    measured = Measured(
        clock.engine("onnx", 1.0, 0.1), lambda: native, [{"x": 1.0}], told=told.append, begin=lambda load: load(), clock=clock
    )
    assert {asked(measured, count) for count in (64, 64, 1, 8, 512, 1000)} == {"onnx"}
    assert told[0]["from_rows"] is None


def test_while_the_other_engine_is_loaded_and_where_it_fails_the_first_answers() -> None:
    clock, told, waiting = Clock(), list[Mapping[str, Any]](), list[Callable[[], None]]()

    def broken() -> Engine:
        raise GoldenMismatch("golden row 0 of 'm' answers differently now")

    measured = Measured(clock.engine("onnx", 2.0, 0.0), broken, [{"x": 1.0}], told=told.append, begin=waiting.append, clock=clock)
    assert [asked(measured, 64) for _ in range(3)] == ["onnx"] * 3
    assert len(waiting) == 1
    waiting[0]()
    assert told == [{"reason": "golden row 0 of 'm' answers differently now"}]
    assert asked(measured, 512) == "onnx"


def test_engines_are_compared_by_straight_lines_between_and_beyond_what_was_measured() -> None:
    assert engines.fastest([[(1, 1.0), (8, 8.0)], [(1, 4.5), (8, 4.5)]])[:8] == [0, 0, 0, 0, 1, 1, 1, 1]
    # 0.2 s a row against 0.1 s and 0.3 s for each row more: they meet at two rows
    assert engines.fastest([[(1, 0.2)], [(1, 0.1), (2, 0.4)]])[:4] == [1, 0, 0, 0]
    # 1 ms and 2 ms for each row more: they meet at 964 rows
    places = engines.fastest([[(64, 2.0), (512, 2.448)], [(64, 1.1), (512, 1.996)]])
    assert (places[962], places[964], len(places)) == (1, 0, 8192)


def test_a_measurement_ends_with_the_size_that_takes_long() -> None:
    clock = Clock()
    assert engines.measure_rows(clock.engine("m", 0.01, 0.01), [{"x": 1.0}], clock) == [
        (1, pytest.approx(0.02)),
        (8, pytest.approx(0.09)),
        (64, pytest.approx(0.65)),
    ]


def test_the_library_itself_is_held_beside_onnx_and_answers_alike(tmp_path: Path) -> None:
    bundle = converted.shipping(tmp_path / "bundle")
    load_native = engines.beside(bundle)
    assert load_native is not None
    told = list[Mapping[str, Any]]()
    clock = Clock()
    onnx = engines.load(bundle)
    measured = Measured(onnx, load_native, bundle.read_json("example.json"), told=told.append, begin=lambda load: load(), clock=clock)
    sample = models.records(models.shipping().head(100))
    before = measured.answer(sample)
    clock.now_s = 0.0

    class Slow:
        def predict(self, *given: Any) -> Columns:
            clock.now_s += 2.0
            answer: Columns = plain.predict(*given)
            return answer

    plain = onnx.framework
    onnx.framework = Slow()  # type: ignore[assignment]
    measured.answer(sample)
    assert told[0]["from_rows"] == 1
    for one, other in zip(before, measured.answer(sample), strict=True):
        assert not engines.difference(one, other, 1e-5)
    onnx.framework = None  # type: ignore[assignment]
    assert len(measured.answer(sample)) == 100


def test_only_what_runs_no_code_is_held_beside_onnx(tmp_path: Path) -> None:
    bundle = converted.shipping(tmp_path / "bundle")
    assert bundle.model == "model/model.ubj"
    pickled = {"model/model.ubj": converted.writes(tmp_path / "mark")}
    for name, about in {
        "a pickle": {"files": pickled},
        "code": {"files": {"code/mine.py": b""}},
        "scikit-learn": {"card": replace(bundle.card, framework="sklearn")},
        "not installed": {"card": replace(bundle.card, framework="h2o")},
    }.items():
        assert engines.beside(converted.changed(bundle, tmp_path / name, about.pop("files", {}), **about)) is None, name
    assert engines.beside(bundles.write(tmp_path / "plain", name="plain")) is None
