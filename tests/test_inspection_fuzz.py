"""Whatever bytes a file has, reading it gives its contents or one clear error, and runs nothing of it."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from pickletools import opcodes
from typing import Any

import joblib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
import payloads
from modelport import inspection
from modelport.errors import ModelFileError
from modelport.inspection.bounds import Budget, Malformed
from modelport.inspection.pickles import Machine

SEEDS = ("random_forest", "pipeline", "xgboost_classifier", "lightgbm_classifier", "catboost_native", "onnx_svc", "xgboost_booster")
ALL = settings(max_examples=300, deadline=None)
CODES = [opcode.code.encode("latin-1") for opcode in opcodes]
ARGUMENTS = [b"os\nsystem\n", b"\x02os\x06system", b"1\n", b"\x04true", b"\x00", b"\x01\x00\x00\x00", b"numpy\ndtype\n"]
EVIL = [
    b"cos\nsystem\n(X\x04\x00\x00\x00truetR0",
    b"\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R",
    b"(ios\nsystem\n",
    b"cos\nsystem\n0",
    b"\x80\x02",
    b"\x95\x10\x00\x00\x00\x00\x00\x00\x00",
]


class File(bytes):
    """Shown in hexadecimal: that takes half as much as escapes do."""

    def __repr__(self) -> str:
        return f"bytes.fromhex('{self.hex()}')"


@cache
def seeds() -> tuple[bytes, ...]:
    """Real files of every format."""
    with tempfile.TemporaryDirectory() as folder:
        real = [models.write(name, Path(folder)).read_bytes() for name in SEEDS]
    real += [(models.OLD / file).read_bytes() for file in models.OLD_FILES]
    real = [data for data in real if len(data) < 14_000]
    return (*real, payloads.joblibbed(), payloads.joblibbed(compress=3), payloads.torch_zip(), payloads.zf())


@pytest.fixture(autouse=True, scope="module")
def _trained() -> None:
    """Training draws random numbers, which it may not do while an example is drawn."""
    seeds()
    pickles()


@st.composite
def mutated(draw: st.DrawFn, sources: Any = seeds) -> bytes:
    """A real file with a few of its bytes changed, removed, repeated or put in."""
    real = sources()
    data = bytearray(real[draw(st.integers(0, len(real) - 1))])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.integers(0, 4)):
            case 0:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del data[at : at + draw(st.integers(1, 8))]
            case 2:
                data[at:at] = data[at : at + draw(st.integers(1, 60))]
            case 3:
                data[at:at] = draw(st.sampled_from(EVIL))
            case _:
                del data[at:]
    return File(data)


def programs() -> st.SearchStrategy[bytes]:
    """Opcodes in any order, with arguments that some of them take."""
    part = st.one_of(st.sampled_from(CODES), st.sampled_from(ARGUMENTS), st.binary(max_size=4))
    return st.lists(part, max_size=60).map(lambda parts: b"".join(parts) + b".")


@ALL
@given(data=st.one_of(st.binary(min_size=1, max_size=300), programs(), mutated()))
def test_any_bytes_give_contents_or_one_clear_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = payloads.write(data or b"\0", Path(folder))
        try:
            contents = inspection.read(path)
        except ModelFileError as error:
            said = error.message
        else:
            inspection.refused(contents, inspection.card(contents))
            return
    assert "\n" not in said
    assert len(said) < 500 + len(str(path))


class Stub:
    """Takes every call, state and item that a pickle has for it."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Stub:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Stub:
        return Stub()

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass


class Recorder(pickle._Unpickler):  # type: ignore[misc,name-defined] # the machine that joblib's is made of
    """The real machine, with stubs for what it finds."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.found: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:
            from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.found.add(f"{module}.{name}")
        return {"builtins.object": object, "copyreg._reconstructor": lambda cls, base, state: cls()}.get(f"{module}.{name}", Stub)


@cache
def pickles() -> tuple[bytes, ...]:
    model = models.MODELS["pipeline"]().model
    return tuple(pickle.dumps(model, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1))


@ALL
@given(data=st.one_of(mutated(pickles), programs()))
def test_the_real_machine_finds_no_name_that_this_one_has_not_seen(data: bytes) -> None:
    machine = Machine(data, Budget())
    try:
        machine.load()
    except (Malformed, ValueError, TypeError, OverflowError, AttributeError):
        return
    real = Recorder(data)
    with suppress(Exception):  # it may fail where a stub is not what it needs; what it found until then counts
        real.load()
    assert real.found <= machine.imports | {"builtins.getattr"}


WATCHED = """
import sys
from pathlib import Path
from modelport import inspection, plugins
from modelport.inspection import files, archives, child

for name in plugins.framework_names():
    plugins.framework(name).imports()
import lz4.frame  # and the codecs: Python loads them when they are first asked for
import encodings.cp437, encodings.latin_1, encodings.raw_unicode_escape, encodings.ascii
paths = [Path(path) for path in sys.argv[1:]]
for warm in paths[:1]:
    inspection.card(inspection.read(warm))
seen = []
allowed = set(sys.argv[1:])

def watch(event, args):
    quiet = ("object.", "sys._getframe", "os.stat", "os.lstat", "gc.", "marshal", "code.", "builtins.id", "cpython", "array.", "time.sleep")
    if event == "open" and str(args[0]) in allowed and args[1] == "r":
        return
    if not event.startswith(quiet):
        seen.append((event, str(args)[:200]))

sys.addaudithook(watch)
for path in paths:
    try:
        contents = inspection.read(path)
        inspection.refused(contents, inspection.card(contents))
    except Exception as error:
        assert type(error).__name__ == "ModelFileError", error
print(seen)
"""


def test_reading_imports_runs_and_opens_nothing_but_the_file(tmp_path: Path) -> None:
    made = {**payloads.PAYLOADS, **payloads.BROKEN}
    paths = [models.write("pipeline", tmp_path)]
    paths += [payloads.write(make(), tmp_path, f"{index}.pkl") for index, (make, _) in enumerate(made.values())]
    done = subprocess.run([sys.executable, "-c", WATCHED, *map(str, paths)], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_payloads_do_run_when_they_are_loaded(tmp_path: Path) -> None:
    """So that what the test above proves is worth something."""
    path = payloads.write(payloads.joblibbed(), tmp_path)
    assert joblib.load(path)["model"] == 0
