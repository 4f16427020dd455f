"""The contents of a model file, by its first bytes."""

from __future__ import annotations

import json
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError

import msgspec

from modelport.errors import MissingLibrary, ModelFileError
from modelport.frameworks import Contents, instances
from modelport.inspection import catboost, lightgbm, onnx, source, xgboost
from modelport.inspection.archives import read_zip
from modelport.inspection.bounds import Budget, Malformed
from modelport.inspection.compression import compression, inflate
from modelport.inspection.pickles import Machine

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of a file that torch.save wrote before 1.6; the object is the fourth."""
_LARGEST = 16 * 1024**3
_HEADER = 256 * 1024**2
_STREAMS = 16
_DAMAGES = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, EOFError, StopIteration,
    NotImplementedError, RuntimeError, SystemError, struct.error, ZlibError, BadZipFile, msgspec.MsgspecError,
)  # fmt: skip
"""What Python and numpy raise for bytes that are not what they should be."""
_ROWS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
_KNOWN = (
    "Known are pickle and joblib files, skops, torch.save, TorchScript and .pt2, XGBoost JSON and UBJ, LightGBM text, CatBoost, ONNX, "
    "Keras 3, safetensors and .py."
)


def read(path: Path, budget: Budget | None = None) -> Contents:
    """What the file at `path` holds, with nothing of it run, within `budget`.

    ModelFileError, in one line, for a file that is missing, a folder, empty, cut short, damaged, of no known kind or a bomb; MissingLibrary
    when what is needed to unpack it is not installed.
    """
    path = Path(path)
    size = _checked_size(path)
    machines: list[Machine] = []
    try:
        return _read(path, size, budget or Budget(), machines)
    except MissingLibrary as error:
        raise MissingLibrary(f"{path} {error.message}", hint=error.hint) from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from None
    except Malformed as error:
        raise _told(path, str(error), machines) from None
    except MemoryError as error:
        # what was read stands in the frames of the traceback: let go of it, or there is no memory to say so
        error.__traceback__ = None
        machines.clear()
        raise ModelFileError(f"{path} is a bomb: it takes more memory to read than is allowed") from None
    except _DAMAGES as error:
        raise _told(path, f"is damaged: {_first_line(error)}", machines) from None


def _checked_size(path: Path) -> int:
    try:
        status = path.stat()
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        raise ModelFileError(f"there is no file {path}" if missing else f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ModelFileError(f"{str(path)!r} is no name of a file") from None
    if stat.S_ISDIR(status.st_mode):
        hint = "Name the file in it." if (path / "saved_model.pb").is_file() or any(path.glob("*.json")) else "Name the model file itself."
        raise ModelFileError(f"{path} is a folder, not a model file", hint=hint)
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(f"{path} is a device or pipe, not a model file")
    if status.st_size == 0:
        raise ModelFileError(f"{path} is empty", hint="The copy or download that made it did not finish.")
    return status.st_size


def _told(path: Path, words: str, machines: list[Machine]) -> ModelFileError:
    """The error for a file; of a broken pickle also what it would import before it breaks: loading it would run that."""
    found = sorted({name for machine in machines for name in machine.imports})
    hint = "The copy or download that made it did not finish." if "cut short" in words else _KNOWN if "no known kind" in words else ""
    if path.suffix.lower() in _ROWS:
        hint = "--key COLUMN serves it as a table, by that column; rows for a model are a --sample."
    elif found:
        hint = f"Before that it would import {', '.join(found[:8])}{' and more' if len(found) > 8 else ''}. {hint}".strip()
    return ModelFileError(f"{path} {words}", hint=hint)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


def _read(path: Path, size: int, budget: Budget, machines: list[Machine]) -> Contents:
    with path.open("rb") as file:
        head = file.read(64)
        if path.suffix == ".py":
            return Contents(path, size, "python", root=source.from_source(head + file.read()))
        if head.startswith(b"PK\x03\x04"):
            machine = Machine(b"", budget)
            machines.append(machine)
            kind, root = read_zip(file, size, machine)
            return _pickled(path, size, kind, root, machine)
        recognised = _by_magic(head)
        if recognised:
            return Contents(path, size, recognised, root={})
        if _is_safetensors(head, size):
            return Contents(path, size, "safetensors", root=_read_safetensors(head + file.read(_header_length(head)), size))
        if size > _LARGEST:
            raise Malformed(f"has {size // 1024**3} GB, more than any model that is read whole")
        file.seek(0)
        data = file.read(size)
    return _read_whole(path, data, budget, machines)


def _by_magic(head: bytes) -> str | None:
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head[4:8] == b"TFL3":
        return "tflite"
    return "gguf" if head.startswith(b"GGUF") else None


def _header_length(head: bytes) -> int:
    return int.from_bytes(head[:8], "little")


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and head[0] != 0x80 and 0 < _header_length(head) <= min(size - 8, _HEADER)


def _read_safetensors(data: bytes, size: int) -> dict[str, Any]:
    header = json.loads(data[8 : 8 + _header_length(data)])
    metadata = header.pop("__metadata__", {})
    tensors = {str(name): {"dtype": str(tensor["dtype"]), "shape": list(tensor["shape"])} for name, tensor in header.items()}
    ends = [tensor["data_offsets"][1] for tensor in header.values()]
    if max(ends, default=0) + 8 + _header_length(data) > size:
        raise Malformed("is cut short: it has fewer bytes than its tensors")
    return {"tensors": tensors, "metadata": {str(name): str(value) for name, value in metadata.items()}}


def _read_whole(path: Path, data: bytes, budget: Budget, machines: list[Machine]) -> Contents:
    size = len(data)
    packed = compression(data[:8])
    if packed and not (packed == "zlib" and data[1:2] not in (b"\x01", b"\x5e", b"\x9c", b"\xda")):
        inner = inflate(data, packed)
        return _read_pickles(path, size, inner, packed, budget, machines)
    start = data[:64].lstrip()
    if data.startswith(b"CBM1"):
        return Contents(path, size, "catboost-cbm", root=catboost.from_cbm(data))
    if data.startswith((b"tree\n", b"tree\r\n")):
        return Contents(path, size, "lightgbm-text", root=lightgbm.from_text(data.decode("utf-8", "replace").replace("\r\n", "\n")))
    if data[:1] == b"{" and data[1:2] in (b"L", b"i", b"U", b"I", b"l", b"$", b"#"):
        return Contents(path, size, "xgboost-ubj", root=xgboost.from_ubj(data, budget))
    if start[:1] in (b"{", b"["):
        return _read_json(path, data)
    if data[0] == 0x08 or path.suffix == ".onnx":
        return Contents(path, size, "onnx", root=onnx.from_protobuf(data, budget))
    return _read_pickles(path, size, data, None, budget, machines)


class _Json(msgspec.Struct):
    """The keys by which models in JSON are told apart."""

    learner: msgspec.Raw = msgspec.Raw(b"")
    features_info: msgspec.Raw = msgspec.Raw(b"")
    model_info: msgspec.Raw = msgspec.Raw(b"")


def _read_json(path: Path, data: bytes) -> Contents:
    try:
        probe = msgspec.json.decode(data, type=_Json) if data.lstrip()[:1] == b"{" else _Json()
    except msgspec.DecodeError as error:
        raise Malformed(f"is cut short or damaged: its JSON does not parse ({error})") from None
    if bytes(probe.learner):
        return Contents(path, len(data), "xgboost-json", root=xgboost.from_json(data))
    if bytes(probe.features_info) and bytes(probe.model_info):
        return Contents(path, len(data), "catboost-json", root=catboost.from_json(data))
    value = msgspec.json.decode(data)
    if value and (isinstance(value, dict) or (isinstance(value, list) and all(isinstance(record, dict) for record in value))):
        return Contents(path, len(data), "json", root=value)
    raise Malformed("is JSON, and no model that is known: XGBoost's has 'learner', CatBoost's 'features_info'; a table has records")


def _read_pickles(path: Path, size: int, data: bytes, packed: str | None, budget: Budget, machines: list[Machine]) -> Contents:
    machine = Machine(data, budget)
    machines.append(machine)
    if not data:
        raise Malformed("unpacks to nothing")
    try:
        root = machine.load()
    except (Malformed, ValueError, TypeError, OverflowError):
        if packed is None and data[0] != 0x80:
            _blame_text(data)
            if not machine.imports:
                raise Malformed("is of no known kind") from None
        raise
    kind = "joblib" if packed or machine.wrapped else "pickle"
    for index, part in enumerate(_further(machine)):
        if index == 2 and type(root) is int and root == TORCH_MAGIC:
            kind, root = "torch-legacy", part
    return _pickled(path, size, kind, root, machine, packed)


def _further(machine: Machine) -> Iterator[Any]:
    """The pickles that stand behind the first one, as far as there are any: what they import counts, too."""
    for _ in range(_STREAMS):
        if machine.position >= len(machine.data):
            return
        try:
            yield machine.load(machine.position)
        except (Malformed, ValueError, TypeError, OverflowError):
            return


def _pickled(path: Path, size: int, kind: str, root: Any, machine: Machine, packed: str | None = None) -> Contents:
    if machine.data:
        _take_apart(root, machine.budget)
    protocol = machine.protocol if machine.data else None
    return Contents(path, size, kind, packed, protocol, tuple(sorted(machine.imports)), tuple(sorted(machine.calls)), root)


def _take_apart(root: Any, budget: Budget) -> None:
    """Put a description in the place of every model that stands in an object's state as the text or bytes of another format."""
    for instance in instances(root):
        if isinstance(instance.state, dict):
            waiting = [instance.state]
            for _ in range(1000):
                if not waiting:
                    break
                state = waiting.pop()
                for name, value in state.items():
                    if isinstance(value, (bytes, bytearray, str)) and len(value) > 32:
                        state[name] = _described(value, budget)
                    elif type(value) is dict and value is not state:
                        waiting.append(value)


def _described(raw: bytes | bytearray | str, budget: Budget) -> Any:
    try:
        if isinstance(raw, str):
            return {"format": "lightgbm-text", "raw": raw, "root": lightgbm.from_text(raw)} if raw.startswith("tree\n") else raw
        head = bytes(raw[:12])
        if head.startswith(b"CBM1"):
            return {"format": "catboost-cbm", "raw": raw, "root": catboost.from_cbm(bytes(raw))}
        if head.startswith(b"{L\0"):
            return {"format": "xgboost-ubj", "raw": raw, "root": xgboost.from_ubj(bytes(raw), budget)}
        if head.startswith((b'{"Config":', b'{"Model":')):
            return {"format": "xgboost-json", "raw": raw, "root": xgboost.from_pickled_json(bytes(raw))}
        if head.startswith(b'{"') and b'"learner"' in raw[:100_000]:
            return {"format": "xgboost-json", "raw": raw, "root": xgboost.from_json(bytes(raw))}
    except _DAMAGES:
        return raw
    return raw


def _blame_text(data: bytes) -> None:
    """Malformed, saying what it is, when a file that should hold a model holds text."""
    try:
        text = data[:4096].decode("utf-8", "strict" if len(data) <= 4096 else "ignore")
    except UnicodeDecodeError:
        return
    if any(character < " " and character not in "\t\r\n\f" for character in text):
        return
    if text.startswith("version https://git-lfs"):
        raise Malformed("is a pointer of Git LFS, not the model: fetch it with `git lfs pull`")
    if text.lstrip()[:15].lower().startswith(("<!doctype", "<html", "<?xml")):
        raise Malformed("is a web page, not a model: the download went to a page about it")
    first = (text.strip().splitlines() or [""])[0]
    raise Malformed(f"is text, not a model: it begins with {first[:60]!r}")
