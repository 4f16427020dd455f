"""The inert pickle machine reads what the real one makes, calls nothing, and names what would be called."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import io
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

import payloads
from modelport import inspection
from modelport.errors import ModelFileError
from modelport.frameworks import Instance, Name, instances
from modelport.inspection.bounds import Budget, Malformed
from modelport.inspection.pickles import Machine

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
PLAIN: list[Any] = [
    *(None, True, False, 0, 255, 65535, -1, 2**31, -(2**70), 1.5, float("inf"), 1 + 2j),
    *("text", "ünï", "new\nline", "x" * 300, b"", b"\x00\xff", b"y" * 300, bytearray(b"ab")),
    *((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1, [2, [3]]], list(range(2000)), range(3), slice(1, 2)),
    *({}, {"a": {"b": 1}}, {(1, 2): "x"}, {str(i): i for i in range(2000)}, collections.OrderedDict(a=1)),
    *(set(), {1, 2}, frozenset({3})),
]
ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.array(3.5),
    np.zeros((0, 3)),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bcd"]),
    np.array([True, False]),
    np.array([1, 2], dtype=">i4"),
    np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"),
    np.array([1, 2], dtype="timedelta64[25s]"),
    np.array([(1, 2.5, "ab")], dtype=[("a", "i4"), ("b", ">f8"), ("c", "U3")]),
    np.array([1 + 2j]),
    np.float32([1, 2]),
]


def load(data: bytes) -> tuple[Any, Machine]:
    machine = Machine(data, Budget())
    return machine.load(), machine


def joblib_bytes(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(value, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:20])
def test_plain_values_are_themselves_in_every_protocol(value: Any, protocol: int) -> None:
    read, machine = load(pickle.dumps(value, protocol))
    assert read == value
    assert type(read) is type(value) or isinstance(value, collections.OrderedDict)
    assert machine.protocol == protocol or (protocol, machine.protocol) == (1, 0)
    assert not machine.calls


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_are_themselves_in_pickles_and_in_joblib_files(array: np.ndarray, protocol: int) -> None:
    for data in (pickle.dumps([array, array], protocol), joblib_bytes([array, array], protocol=protocol)):
        read, machine = load(data)
        for copy in read:
            assert copy.dtype == array.dtype
            assert copy.shape == array.shape
            assert copy.tobytes() == array.tobytes()
            assert not copy.flags.writeable
        assert not machine.calls


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_objects_hold_what_their_pickle_holds(protocol: int) -> None:
    array = np.array(["a", None, {"b": 1}, np.arange(2)], dtype=object)
    for data in (pickle.dumps(array, protocol), joblib_bytes(array, protocol=protocol)):
        read, _ = load(data)
        assert read.dtype == object
        assert read[:3].tolist() == ["a", None, {"b": 1}]
        assert read[3].tolist() == [0, 1]


def test_scalars_of_numpy_are_themselves() -> None:
    for value in (np.float32(1.5), np.int64(3), np.bool_(True), np.str_("ab"), np.datetime64("2020-01-01")):
        read, _ = load(pickle.dumps(value))
        assert read == value
        assert read.dtype == value.dtype


def test_an_object_is_an_instance_with_its_state() -> None:
    read, machine = load(pickle.dumps(decimal.Decimal, 2))
    assert read == Name("decimal.Decimal")
    read, machine = load(pickle.dumps(dt.timedelta(1), 4))
    assert (read.cls, read.args) == ("datetime.timedelta", (1, 0, 0))
    assert machine.calls == {"datetime.timedelta"}
    read, machine = load(pickle.dumps(decimal.Decimal("1.5"), 4))
    assert (read.cls, read.args) == ("decimal.Decimal", ("1.5",))


def test_names_of_python_2_become_those_of_python_3() -> None:
    _, machine = load(b"c__builtin__\nobject\n.")
    assert machine.imports == {"builtins.object"}
    _, machine = load(b"\x80\x03c__builtin__\nobject\n.")
    assert machine.imports == {"__builtin__.object"}


def test_text_of_python_2_is_text_where_it_is_ascii_and_bytes_where_not() -> None:
    assert load(b"S'a\\nb'\n.")[0] == "a\nb"
    assert load(b"U\x02ab.")[0] == "ab"
    assert load(b"U\x02\xff\xfe.")[0] == b"\xff\xfe"


def test_an_object_in_itself_is_read() -> None:
    value: list[Any] = []
    value.append(value)
    read, _ = load(pickle.dumps(value))
    assert read[0] is read
    assert not list(instances(read))


def test_a_deep_value_is_read_without_recursion() -> None:
    read, _ = load(b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".")
    depth = 0
    while read:
        read, depth = read[0], depth + 1
    assert depth == 99_999


@pytest.mark.parametrize("name", payloads.PAYLOADS)
def test_a_payload_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    made, refused = payloads.PAYLOADS[name]
    contents = inspection.read(payloads.write(made(), tmp_path))
    assert refused in inspection.refused(contents, inspection.card(contents))


@pytest.mark.parametrize("name", payloads.BROKEN)
def test_a_broken_payload_is_refused_and_told_what_it_would_import(name: str, tmp_path: Path) -> None:
    made, refused = payloads.BROKEN[name]
    with pytest.raises(ModelFileError) as caught:
        inspection.read(payloads.write(made(), tmp_path))
    assert refused in caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04" + payloads.named("builtins", "bytes") + b"\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85R.",
        b"\x80\x04" + payloads.named("builtins", "bytearray") + b"\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85R.",
        b"\x80\x04]r\xff\xff\xff\xff.",
        b"\x80\x04\x8b\xff\xff\xff\x7f.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04}(" + b"(" * 0 + b"K\x01\x85" + b"2\x86" * 60 + b"K\x01u.",
        b"\x80\x04" + b")" + b"\x85" * 5000 + b"\x94}h\x00K\x01s.",
    ],
    ids=["bytes", "bytearray", "memo", "integer", "length", "frame", "laughing key", "deep key"],
)
def test_a_bomb_of_a_few_bytes_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(Malformed):
        load(data)


def test_copies_of_a_large_list_are_counted() -> None:
    copy = b"h\x00h\x01\x85R0"
    data = b"\x80\x04" + payloads.named("builtins", "list") + b"\x94]\x94(" + b"K\x01" * 100_000 + b"e" + copy * 1000 + b"."
    with pytest.raises(Malformed, match="bomb"):
        Machine(data, Budget(objects=10_000_000)).load()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04K\x01K\x02K\x03s.",
        b"\x80\x04K\x01K\x02a.",
        b"\x80\x04}]K\x01s.",
        b"\x80\x04(K\x01\x90.",
        b"\x80\x04K\x01K\x02b.",
        b"\x80\x04K\x01)R.",
        b"\x80\x04K\x01K\x02\x93.",
        b"\x80\x04h\x07.",
        b"\x80\x04(.",
        b"\x80\x04e.",
        b"\x80\x09.",
        b"\x80\x04\xff.",
        b"\x80\x04\x8f(]\x90.",
        b"\x80\x04.",
    ],
)
def test_what_no_pickler_writes_is_refused_with_one_clear_error(data: bytes) -> None:
    with pytest.raises(Malformed):
        load(data)


def test_getattr_of_a_class_is_the_name_it_stands_for() -> None:
    owner = payloads.named("pkg.mod", "Class")
    read, machine = load(b"\x80\x04" + payloads.named("builtins", "getattr") + owner + payloads.text("make") + b"\x86R.")
    assert read == Name("pkg.mod.Class.make")
    assert machine.imports == {"pkg.mod.Class", "pkg.mod.Class.make"}


def test_a_state_that_changes_later_does_not_change_what_was_set() -> None:
    """The real machine copies the state into the object's attributes: so must this one, or they read arrays differently."""
    data = b"\x80\x04" + payloads.named("m", "C") + b")\x81}\x94" + payloads.text("a") + b"K\x01sbh\x00" + payloads.text("a") + b"K\x02s0."
    assert load(data)[0].get("a") == 1


def test_a_torch_tensor_is_an_instance_with_the_persistent_id_of_its_storage() -> None:
    read, _ = load(b"\x80\x02(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ.")
    assert isinstance(read, Instance)
    assert read.cls == "persistent"
    assert read.args[0][:3] == ("storage", Name("torch.FloatStorage"), "0")
