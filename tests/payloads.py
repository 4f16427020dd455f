"""Files that would run a command when they are loaded: one for each way of hiding it. Where none is given the command is `true`."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np


class Call:
    """An object whose pickle calls `function(*args)`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


POSIX = f"{os.system.__module__}.system"


def system(command: str) -> Call:
    return Call(os.system, command)


def python(command: str) -> str:
    """The command as Python code."""
    return f"__import__('os').system({command!r})"


def plain(protocol: int) -> Callable[..., bytes]:
    return lambda command="true": pickle.dumps({"model": system(command)}, protocol)


def joblibbed(command: str = "true", **options: Any) -> bytes:
    return dumped(system(command), **options)


def dumped(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump({"model": value, "weights": np.arange(3.0)}, buffer, **options)
    return buffer.getvalue()


def compressed(*how: Any) -> Callable[..., bytes]:
    return lambda command="true": joblibbed(command, compress=how)


def object_array(command: str = "true", **options: Any) -> bytes:
    array = np.empty(1, dtype=object)
    array[0] = system(command)
    return dumped(array, **options)


def compressed_object_array(command: str = "true") -> bytes:
    return object_array(command, compress=3)


def zf(command: str = "true") -> bytes:
    return zipped_by_old_joblib(pickle.dumps(system(command), 2))


def zipped_by_old_joblib(data: bytes) -> bytes:
    """In the layout of joblib before 0.10."""
    return b"ZF" + hex(len(data)).ljust(19).encode() + zlib.compress(data)


def torch_zip(command: str = "true") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(system(command), 2))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def torch_legacy(command: str = "true") -> bytes:
    return b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, system(command), []))


def nested_loads(command: str = "true") -> bytes:
    return pickle.dumps(Call(pickle.loads, pickle.dumps(system(command))), 4)


def in_a_model(command: str = "true") -> bytes:
    """A support vector machine of scikit-learn 1.1.3 as it may be, but for one of its parameters."""
    state = {"gamma": text("scale"), "_sklearn_version": text("1.1.3"), "n_features_in_": b"K\x04", "tol": called("os", "system", command)}
    return b"\x80\x04" + instance("sklearn.svm._classes", "SVC", **state) + b"."


def getattr_chain() -> bytes:
    """`getattr(os, "system")` by way of a name that is on no list."""
    return b"\x80\x04" + named("builtins", "getattr") + named("os", "path") + text("join") + b"\x86R" + b")R."


def getattr_loose() -> bytes:
    """getattr handed on as a value, for another to call."""
    return b"\x80\x04" + b"]" + named("builtins", "getattr") + b"a."


def memo_confusion(command: str = "true") -> bytes:
    """A scan of the opcodes that does not keep a memo reads "system.true"."""
    return b"\x80\x04" + text("os") + b"\x94" + text("system") + b"\x94" + text(command) + b"\x940" + b"00" + b"h\x00h\x01\x93h\x02\x85R."


def protocol_names(command: str = "true") -> bytes:
    """Python 2's name of a module, which Python 3 turns into its own."""
    return b"c__builtin__\neval\n(S" + repr(python(command)).encode() + b"\ntR."


def inst(command: str = "true") -> bytes:
    return b"(S" + repr(command).encode() + b"\nios\nsystem\n."


def obj(command: str = "true") -> bytes:
    return b"(cos\nsystem\nS" + repr(command).encode() + b"\no."


def broken_tail(command: str = "true") -> bytes:
    return pickle.dumps(system(command), 4)[:-1] + b"\xff\xff"


def truncated(command: str = "true") -> bytes:
    return pickle.dumps([system(command), "x" * 100], 3)[:-60]


def two_streams() -> bytes:
    """Loading it runs the first one alone."""
    return pickle.dumps({"fine": 1}, 4) + pickle.dumps(system("true"), 4)


def set_attributes_of_a_class() -> bytes:
    """BUILD on a class, not on an object: it would put eval in the place of a method."""
    return b"\x80\x04" + named("sklearn.svm._classes", "SVC") + b"N}" + text("predict") + named("builtins", "eval") + b"s\x86b."


def partial_called() -> bytes:
    """A partial may be kept in a model; called by the pickle itself it would call anything named."""
    made = named("functools", "partial") + named("xgboost.core", "Booster") + b"\x85R"
    return b"\x80\x04" + made + text("/tmp/other.json") + b"\x85R."


def array_in_a_frame() -> bytes:
    """joblib reads the array behind the frame, a reader that knows no frames reads it within."""
    inner = named("os", "system") + text("true") + b"\x85R."
    dtype = named("numpy", "dtype") + text("u1") + b"\x89\x88\x87R"
    body = instance("joblib.numpy_pickle", "NumpyArrayWrapper", shape=b"K\x08\x85", dtype=dtype, order=text("C"))
    frame = body + inner.ljust(40, b".")
    return b"\x80\x04\x95" + struct.pack("<Q", len(frame)) + frame + b"x" * 8


def lying_dtype() -> bytes:
    """A dtype of numbers whose flags say objects: joblib would read a second pickle where data seems to be."""
    state = b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ft"
    dtype = named("numpy", "dtype") + text("f8") + b"\x89\x88\x87R" + state + b"b"
    wrapper = instance("joblib.numpy_pickle", "NumpyArrayWrapper", dtype=dtype, shape=b"K\x05\x85", order=text("C"))
    return b"\x80\x04" + wrapper + pickle.dumps(system("true"), 4).ljust(40, b".") + b"."


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def instance(module: str, name: str, **attributes: bytes) -> bytes:
    """The opcodes of an object: its class, and the opcodes of its attributes."""
    return named(module, name) + b")\x81}(" + b"".join(text(key) + value for key, value in attributes.items()) + b"ub"


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value.encode())]) + value.encode()


def called(module: str, name: str, argument: str) -> bytes:
    """The opcodes of a call."""
    return named(module, name) + text(argument) + b"\x85R"


def gadget(module: str, name: str, argument: str = "/tmp/other.pkl") -> Callable[[], bytes]:
    return lambda: b"\x80\x04" + called(module, name, argument) + b"."


def code_run_by(module: str, name: str) -> Callable[..., bytes]:
    """The code ends with an error: timeit would run it a million times."""
    return lambda command="true": b"\x80\x04" + called(module, name, f"{python(command)} or 1 / 0") + b"."


PAYLOADS: dict[str, tuple[Callable[..., bytes], str]] = {
    "plain p0": (plain(0), POSIX),
    "plain p2": (plain(2), POSIX),
    "plain p5": (plain(5), POSIX),
    "joblib": (joblibbed, POSIX),
    "joblib object array": (object_array, POSIX),
    "within a model": (in_a_model, "os.system"),
    "nested loads": (nested_loads, "_pickle.loads"),
    "two streams": (two_streams, POSIX),
    "eval": (code_run_by("builtins", "eval"), "builtins.eval"),
    "exec": (code_run_by("builtins", "exec"), "builtins.exec"),
    "getattr": (getattr_chain, "os.path.join"),
    "getattr handed on": (getattr_loose, "builtins.getattr"),
    "subprocess": (gadget("subprocess", "check_output", "true"), "subprocess.check_output"),
    "joblib zlib": (compressed("zlib", 3), POSIX),
    "joblib gzip": (compressed("gzip", 3), POSIX),
    "joblib bz2": (compressed("bz2", 3), POSIX),
    "joblib xz": (compressed("xz", 3), POSIX),
    "joblib lzma": (compressed("lzma", 3), POSIX),
    "joblib lz4": (compressed("lz4", 3), POSIX),
    "gzip of a pickle": (lambda command="true": gzip.compress(plain(4)(command)), POSIX),
    "bz2 of a pickle": (lambda command="true": bz2.compress(plain(4)(command)), POSIX),
    "xz of a pickle": (lambda command="true": lzma.compress(plain(4)(command)), POSIX),
    "ZF": (zf, POSIX),
    "compressed object array": (compressed_object_array, POSIX),
    "torch zip": (torch_zip, POSIX),
    "torch legacy": (torch_legacy, POSIX),
    "timeit": (code_run_by("timeit", "timeit"), "timeit.timeit"),
    "cProfile": (code_run_by("cProfile", "run"), "cProfile.run"),
    "cloudpickled function": (gadget("cloudpickle.cloudpickle", "_make_function"), "cloudpickle.cloudpickle._make_function"),
    "joblib.load": (gadget("joblib.numpy_pickle", "load"), "joblib.numpy_pickle.load"),
    "joblib.load by its short name": (gadget("joblib", "load"), "joblib.load"),
    "pandas.read_pickle": (gadget("pandas.io.pickle", "read_pickle"), "pandas.io.pickle.read_pickle"),
    "numpy.load": (gadget("numpy", "load"), "numpy.load"),
    "numpy.memmap": (gadget("numpy", "memmap"), "numpy.memmap"),
    "torch.load": (gadget("torch.storage", "_load_from_bytes"), "torch.storage._load_from_bytes"),
    "operator.methodcaller": (gadget("operator", "methodcaller"), "operator.methodcaller"),
    "scipy's distributions": (gadget("scipy.stats._continuous_distns", "norm_gen"), "scipy.stats._continuous_distns.norm_gen"),
    "an unknown function": (gadget("some_package.tools", "start"), "some_package.tools.start"),
    "a file for a booster": (gadget("xgboost.core", "Booster"), "xgboost.core.Booster()"),
    "a partial called": (partial_called, "functools.partial.__call__"),
    "a name by the memo": (memo_confusion, "os.system"),
    "Python 2's eval": (protocol_names, "builtins.eval"),
    "INST": (inst, "os.system"),
    "OBJ": (obj, "os.system"),
}
"""Files that can be read to their end: what they hold, and the name that is refused."""

BROKEN: dict[str, tuple[Callable[..., bytes], str]] = {
    "broken tail": (broken_tail, POSIX),
    "truncated": (truncated, POSIX),
    "attributes of a class": (set_attributes_of_a_class, "sklearn.svm._classes.SVC.__setattr__"),
    "an array within a frame": (array_in_a_frame, "joblib.numpy_pickle.NumpyArrayWrapper"),
    "a dtype that lies": (lying_dtype, "joblib.numpy_pickle.NumpyArrayWrapper"),
    "an extension code": (lambda: b"\x80\x02\x82\x01.", ""),
    "a buffer kept elsewhere": (lambda: b"\x80\x05\x97.", ""),
}
"""Files that cannot: what they would import before they break is told with the error."""


def write(data: bytes, folder: Path, name: str = "model.pkl") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path
