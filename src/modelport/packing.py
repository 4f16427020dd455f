"""A model file and an example become a bundle.

This room is called packing because a module called pack would hide the public function `modelport.pack`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import platform
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from modelport import bundle as bundles
from modelport import code_files, engines, gates, inference, inspection, pins, plugins, preprocessing, project, samples, tables
from modelport.bundle import ONNX, PARITY, Bundle
from modelport.conversion import converting, old
from modelport.conversion.converting import Converted, Converter, Here
from modelport.errors import (
    InvalidInput,
    ModelContract,
    ModelFailed,
    ModelFileError,
    NoEnvironment,
    SignatureError,
    UsageError,
    VersionMismatch,
)
from modelport.frameworks import STATED_IMAGE, STATED_LABELS, Card, lookup, torch_files
from modelport.samples import Sample
from modelport.signature import Columns, Signature, did_you_mean, moment_text, to_array
from modelport.store import Entry, Store

TOLERANCE = 1e-5
"""How far a golden answer may move: relative above 1, absolute below. A float32 model on another processor stays within it."""
_GOLDEN_ROWS = 20
_GOLDEN_PICTURES = 5
_GOLDEN_VALUES = 20_000
_BASELINE_VALUES = 2_000_000


Told: TypeAlias = Callable[[str], None]
"""Hears a line of progress."""


@dataclass(frozen=True)
class Options:
    """What is said about a model when it is packed, beside the model itself. Each is a flag of `pack` and `serve` of the same name."""

    name: str | None = None
    sample: Any = None
    """A path, or a live table (see `modelport.samples.from_object`)."""
    schema: Any = None
    """A path to JSON or TOML, a mapping, or a Signature; it may state some of the fields only."""
    target: str | None = None
    """The column of the sample that the model predicts, to be left out."""
    output: Sequence[str] = ()
    """Names for the model's outputs, in order."""
    code: Sequence[str | Path] = ()
    """Python files that define what the pickle needs; "model.py:make_model" names what makes the network of PyTorch weights. Modules beside
    a .py file that it imports come along by themselves."""
    key: Sequence[str] = ()
    """The columns by which a table is asked; or the key under which a PyTorch checkpoint has its weights."""
    include: Sequence[str | Path] = ()
    """Files and folders below the model's own that its code reads: there at the same place in the bundle."""
    metric: Mapping[str, float] = field(default_factory=dict)
    data: Sequence[str | Path] = ()
    """Training data, of which the sha256 is kept."""
    label: Mapping[str, str] = field(default_factory=dict)
    image: Any = None
    """What the model takes of a picture: a size, or a table as `modelport.preprocessing.stated` takes it. The flags are --image, --resize,
    --crop, --mean, --std and --preprocess."""
    labels: Any = None
    """The names of a classifier's answers, in their order: a list, or the path of a text file with one a line."""
    title: str = ""
    subtitle: str = ""
    description: str | Path = ""
    """What the model does, in Markdown; or the path of a file, which ends in .md."""
    onnx: str = "auto"
    """"auto": serve it from ONNX where that is proven to answer as the model does; "off": do not try."""
    trust: bool = False
    trust_version: bool = False
    python_env: str = "auto"
    """Where a model is loaded that another version of its library wrote: "auto", an environment made for it; "none"; or a Python's path."""

    def __post_init__(self) -> None:
        if self.onnx not in ("auto", "off"):
            raise UsageError(f"onnx is {self.onnx!r}", hint='It is "auto" or "off".')
        for key in ("output", "key", "code", "include", "data"):
            value = getattr(self, key)
            object.__setattr__(self, key, (value,) if isinstance(value, str | os.PathLike) else tuple(value))
        object.__setattr__(self, "metric", {name: _metric(name, value) for name, value in self.metric.items()})
        if isinstance(self.description, str | Path):
            object.__setattr__(self, "description", project.description(self.description))
        for key in ("title", "subtitle", "description"):
            if not isinstance(getattr(self, key), str):
                raise UsageError(f"{key} is {getattr(self, key)!r}", hint="It is a string.")
        for name, value in self.label.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise UsageError(f"label {name!r} is {value!r}", hint="Labels are strings: team=pricing.")


def pack(model: Any, *, store: Store | str | None = None, told: Told = lambda line: None, **options: Any) -> Entry:
    """Pack a model into the store and say which version it became.

    `model` is the path of a model file, or a live object of a library that Modelport knows. `told` hears what takes longer, a line each:
    `print` will do. `options` are the fields of `Options`:

        modelport.pack(classifier, name="iris", sample=X_train)

    Raises ModelFileError, Untrusted, VersionMismatch, SignatureError, ModelFailed and UsageError, each saying what to do.
    """
    known = [one.name for one in fields(Options)]
    for key in options:
        if key not in known:
            raise UsageError(f"pack() has no option {key!r}{did_you_mean(key, known)}", hint=f"Options: {', '.join(known)}.")
    where = store if isinstance(store, Store) else Store(store)
    said = Options(**options)
    live = not isinstance(model, str | os.PathLike)
    with tempfile.TemporaryDirectory(prefix="modelport-pack-") as folder, _as_file(model) as path:
        return where.add(pack_file(path, Path(folder), said, checkout=Path() if live else None, told=told))


def pack_file(path: Path, folder: Path, options: Options, *, checkout: Path | None = None, told: Told = lambda line: None) -> Bundle:
    """Make a bundle of the model file `path` in the empty `folder`. Raises as `pack`.

    The lineage is that of the git checkout in which the file lies, or of that at `checkout`. `told` hears what takes longer, a line each.
    """
    name = bundles.check_name(options.name or bundles.slug(path.stem) or "model")
    if tables.is_table(path, options.key):
        return _pack_table(path, None, folder, replace(options, name=name), checkout or path.parent)
    seen = inspection.inspect(path)
    card = seen.card
    parts = code_files.collect(path, options.code, options.include)
    gates.check_python(path, seen.python)
    trusted = gates.check_trust(path, card, seen.refused, trust=options.trust, code=code_files.modules(parts))
    if card is None:
        raise ModelFileError(f"{path} holds no model that is known here", hint=f"`modelport inspect {path}` says what it holds.")
    if card.framework == "lookup" and card.cls != lookup.TABLE:
        return _pack_table(path, card, folder, replace(options, name=name), checkout or path.parent)
    if options.key and card.framework != "torch":
        raise UsageError(f"{path} is no table, and a key is named", hint="--key is for dicts, DataFrames, files of rows and checkpoints.")
    code_folder = code_files.copy(parts, folder)

    at = folder / "code" / path.name if path in parts.values() else path
    card = _labelled(_stated_of(card, options), options.labels)
    with _loaded(at, seen, card, options, code_folder, told) as (engine, python, converter):
        described = inference.pictured(engine.described, options.image)
        sample = _sample(options, pictures=any(one.kind == "image" for one in described.inputs))
        if card.framework == "lookup" and sample is None:
            sample = samples.from_object(
                {one.name: list(key) for one, key in zip(described.inputs, zip(*engine.model.rows, strict=True), strict=True)}
            )
        signature = inference.infer(described, card, sample, _stated(options.schema), options.output)
        _check_labels(signature, card)
        unbounded = signature
        engine = replace(engine, signature=signature)
        if card.framework not in inference.EXACT:
            signature = inference.with_computable_range(signature, engine.predict)
            engine = replace(engine, signature=signature)
        others = _functions(at, card, code_folder)

        model = f"code/{path.name}" if at != path else _write_model(engine, path, card, folder)
        golden = _write_rows(engine, card, sample, folder, others)
        needed = engine.framework.requirements(engine.model, card)
        converted = _converted(engine, card, converter, sample, golden, path, seen, options, told)
        _check_served(path, card, options, converted)
        if converted is not None:
            _write_onnx(converted, folder)
        if converted is not None and converted.graph is not None:
            needed = ("numpy", "onnxruntime")
            told_apart = converting.told_apart(unbounded, converted.evidence["precision"])
            signature = _computable_by_both(engine, engines.load_onnx(folder / ONNX, told_apart))
        required = pins.closure((*needed, "pillow") if any(one.kind == "image" for one in signature.inputs) else needed)
    (folder / "requirements.txt").write_text("".join(f"{pin}\n" for pin in required))
    lineage = _lineage((checkout or path.parent).resolve(), options)
    written = bundles.write(
        folder,
        name=name,
        card=card,
        signature=signature,
        model=model,
        python=python,
        created=_created(lineage),
        title=options.title,
        subtitle=options.subtitle,
        description=str(options.description or card.details.get("doc", "")),
        labels=dict(options.label),
        lineage=lineage,
        trusted=trusted,
        functions={name: bundles.Function(one.signature, getattr(one.model, "doc", "")) for name, one in others.items()},
    )
    engines.verify_golden(engines.load(written), written)
    if ONNX in written.files and (options.trust_version or not gates.other_version(card)):
        engines.verify_golden(engines.load(written, "native"), written)
    return written


def _pack_table(path: Path, card: Card | None, folder: Path, options: Options, checkout: Path) -> Bundle:
    """A bundle of the table in `path`, which has passed the gates; as the file in which tables are kept."""
    with tempfile.TemporaryDirectory(prefix="modelport-table-") as scratch:
        kept = Path(scratch) / lookup.FILE
        tables.convert(path, card, options.key, kept)
        return pack_file(kept, folder, replace(options, key=()), checkout=checkout)


@contextmanager
def _loaded(
    path: Path, seen: inspection.Inspection, card: Card, options: Options, code: Path | None, told: Told
) -> Iterator[tuple[engines.Engine, str, Converter | None]]:
    """The model, loaded here where the library may, else in a process of the version that wrote it; the Python; what can convert it."""
    story = _elsewhere(card, options)
    if not story:
        engine = load(path, card, code)
        here = Here(card.framework, engine.model, card.library) if card.framework in converting.CONVERTED else None
        yield engine, ".".join(platform.python_version_tuple()[:2]), here
        return
    gates.check_version(path, card, trust_version=options.python_env != "none")
    told(f"{story}.")
    try:
        with old.opened(path, card, seen.imports, python=options.python_env, code=code, told=told) as (remote, child):
            yield engines.engine_of(remote, child, card), remote.python, remote
    except NoEnvironment as error:
        ways = "--python-env PYTHON names one that has it; --trust-version loads it here."
        hint = f"{error.hint.rstrip('.')}. Or {ways}" if error.hint else ways
        raise VersionMismatch(f"{path}: {story}; and no environment could be made: {error.message}", hint=hint) from error


def _elsewhere(card: Card, options: Options) -> str:
    """Why a model is loaded in a process of another Python: the version that wrote it is not the one here, or there is none; else ""."""
    if options.trust_version:
        return ""
    return gates.other_version(card) or (gates.not_installed(card) if options.python_env != "none" else "")


def load(path: Path, card: Card, code: Path | None = None) -> engines.Engine:
    """The model in a file that has passed the gates, with the modules in the folder `code` at hand.

    Where the file is a pickle that carries the model as bytes of its library's own format, it is rebuilt of these and never unpickled.
    """
    framework = plugins.framework(card.framework)
    if hasattr(framework, "rebuild"):
        contents = inspection.read(path)
        if contents.format in inspection.PICKLES:
            return engines.engine_of(framework, framework.rebuild(contents, card), card)
    return engines.load_model(path, card, code=code)


def _functions(at: Path, card: Card, code: Path | None) -> dict[str, engines.Engine]:
    """The other functions of a file of functions."""
    module = card.cls.rpartition(".")[0]
    others = {}
    for name in card.details.get("other_functions", ()):
        own = replace(card, cls=f"{module}.{name}", features=())
        other = engines.load_model(at, own, code=code)
        others[name] = replace(other, signature=inference.infer(other.described, own, None, None))
    return others


def read_schema(path: Path) -> Signature:
    """A signature out of a JSON or TOML file: {"inputs": [{"name", "kind", ...}], "outputs": [...]}. SignatureError names what is wrong."""
    import tomllib

    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise SignatureError(f"the schema {path} does not read: {error}", hint="--schema takes a .json or .toml file.") from error
    if not isinstance(raw, dict):
        raise SignatureError(f"the schema {path} is no table", hint='{"inputs": [{"name": "age", "kind": "integer"}, ...]}')
    return Signature.from_dict(raw, str(path))


@contextmanager
def _as_file(model: Any) -> Iterator[Path]:
    """The model as a file: itself when it is a path, else the live object written the way its library would."""
    if isinstance(model, str | os.PathLike):
        yield Path(model)
        return
    with tempfile.TemporaryDirectory(prefix="modelport-live-") as folder:
        if hasattr(model, "SerializeToString") and hasattr(model, "graph"):
            path = Path(folder) / "model.onnx"
            path.write_bytes(model.SerializeToString(deterministic=True))
        elif hasattr(model, "get_config") and hasattr(model, "stop_training"):
            path = Path(folder) / "model.keras"
            model.save(path)
        elif hasattr(model, "state_dict") and hasattr(model, "named_modules"):
            path = Path(folder) / "model.pt"
            _write_network(model, path)
        else:
            path = Path(folder) / "model.pkl"
            try:
                path.write_bytes(pickle.dumps(model, protocol=5))
            except Exception as error:
                raise ModelFileError(
                    f"this {type(model).__qualname__} cannot be pickled: {error}",
                    hint="A lambda or a function inside a function has no name to find it by: define it at the top of a module.",
                ) from error
        yield path


def _write_network(network: Any, path: Path) -> None:
    """A PyTorch module as a file."""
    import torch

    if isinstance(network, torch.jit.ScriptModule):
        network.save(str(path))
    else:
        torch.save(network, path)


def _sample(options: Options, *, pictures: bool) -> Sample | None:
    """The sample; with the pictures that its cells name where the model takes `pictures`."""
    if options.sample is None:
        return None
    given = options.sample
    is_path = isinstance(given, str | os.PathLike)
    sample = samples.read(Path(given)) if is_path else samples.from_object(given)
    if pictures:
        sample = samples.with_pictures(sample, Path(given).parent if is_path else Path())
    return sample.without(options.target) if options.target else sample


def _stated_of(card: Card, options: Options) -> Card:
    """The card with what is stated of the pictures that the model takes, and of how a network is made of its weights."""
    said: dict[str, Any] = {} if options.image is None else {STATED_IMAGE: preprocessing.stated(options.image)}
    factories = [(file, function) for file, function in map(code_files.split, options.code) if function]
    if len(factories) > 1 or (factories and card.framework != "torch"):
        what = "several functions are named with --code" if len(factories) > 1 else f"--code names {factories[0][1]}()"
        raise UsageError(what, hint="--code model.py:make_model names the one that makes the network of PyTorch weights.")
    if len(options.key) > 1:
        raise UsageError("several keys are named", hint="--key names the one under which a checkpoint has its weights.")
    if factories:
        said[torch_files.FACTORY] = f"{factories[0][0].stem}:{factories[0][1]}"
    if options.key:
        said[torch_files.KEY] = options.key[0]
    return replace(card, details={**card.details, **said}) if said else card


def _labelled(card: Card, labels: Any) -> Card:
    """The card of a model whose answers are called `labels`, as whoever packs it says."""
    if labels is None:
        return card
    names = read_labels(Path(labels)) if isinstance(labels, str | os.PathLike) else tuple(labels)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UsageError(f"labels are {str(list(names))[:60]}", hint="They are the names of the model's answers, one for each.")
    for name, times in Counter(names).items():
        if times > 1:
            raise UsageError(f"the label {name!r} stands twice", hint="Each answer has a name of its own.")
    return replace(card, classes=names, details={**card.details, STATED_LABELS: True})


def _check_labels(signature: Signature, card: Card) -> None:
    """SignatureError when labels are stated and the model has no use for them."""
    if card.details.get(STATED_LABELS) and not any(one.choices == card.classes for one in signature.outputs):
        given = ", ".join(one.name for one in signature.outputs)
        raise SignatureError(f"labels are stated, and the model names its answers itself: it gives {given}", hint="Leave out --labels.")


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels in a text file, one a line; empty lines at its end do not count. UsageError when it does not read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the labels {path} do not read: {error}", hint="--labels takes a text file with one label a line.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise UsageError(f"line {number} of the labels {path} is empty", hint="One label a line, in the order of the model's answers.")
    return tuple(line.strip() for line in lines)


def _stated(schema: Any) -> Signature | None:
    if schema is None or isinstance(schema, Signature):
        return schema
    return Signature.from_dict(schema) if isinstance(schema, Mapping) else read_schema(Path(schema))


def _write_model(engine: engines.Engine, path: Path, card: Card, folder: Path) -> str:
    """The model into folder/model: in its library's format that runs no code where there is one, else the file as it came."""
    target = folder / "model"
    target.mkdir()
    saved = engine.framework.save(engine.model, card, target)
    if saved is None:
        saved = "model" + "".join(path.suffixes[-1:])
        shutil.copyfile(path, target / saved)
    return f"model/{saved}"


def _converted(
    engine: engines.Engine,
    card: Card,
    converter: Converter | None,
    sample: Sample | None,
    golden: Mapping[str, Any],
    path: Path,
    seen: inspection.Inspection,
    options: Options,
    told: Told,
) -> Converted | None:
    """The model as ONNX with the evidence; None where there is nothing to convert, or it is not wanted.

    Where a converter is needed that is not installed, an environment that has it converts the model; where none can be made, that is the
    reason why there is no ONNX.
    """
    if options.onnx == "off":
        return None
    if hasattr(engine.framework, "graph"):
        return converting.export(engine, card, sample, golden["rows"])
    if converter is None:
        return None
    converted = converting.convert(engine, sample, golden["rows"], converter)
    assert seen.card is not None
    if not converted.lacks_converter or options.python_env != "auto":
        return converted
    try:
        with old.opened(path, seen.card, seen.imports, tools=converting.CONVERTERS, told=told) as (remote, _):
            return converting.convert(engine, sample, golden["rows"], remote)
    except (NoEnvironment, ModelFileError):
        return converted


def _check_served(path: Path, card: Card, options: Options, converted: Converted | None) -> None:
    """VersionMismatch when only another version of its library may load the model, and there is no ONNX to serve in its place."""
    story = _elsewhere(card, options)
    if story and (converted is None or converted.graph is None):
        why = "--onnx off was said" if converted is None else converted.evidence["reason"]
        raise VersionMismatch(f"{path}: {story}. It cannot be served from ONNX either: {why}", hint="--trust-version loads it here.")


def _write_onnx(converted: Converted, folder: Path) -> None:
    """parity.json; and model.onnx where it passed the gate."""
    _write_json(folder / PARITY, converted.evidence)
    if converted.graph is not None:
        (folder / ONNX).write_bytes(converted.graph)


def _computable_by_both(native: engines.Engine, graph: engines.Engine) -> Signature:
    """The graph's signature with bounds within which both engines compute: a graph in single precision overflows before the model does."""

    def predict(columns: Columns) -> Columns:
        native.signature.records(native.predict(columns))  # raises for an answer that is no number
        return graph.predict(columns)

    return inference.with_computable_range(graph.signature, predict)


def _write_rows(
    engine: engines.Engine, card: Card, sample: Sample | None, folder: Path, others: Mapping[str, engines.Engine]
) -> dict[str, Any]:
    """example.json, golden.json (which is given back) and, when there is a sample, baseline.json."""
    names = [one.name for one in engine.signature.inputs if sample is None or one.name in sample.columns]
    function = card.cls.rpartition(".")[2] if card.framework == "function" else ""
    golden = _golden(engine, sample, names, function)
    if others:
        golden["functions"] = {name: _golden(other, None, (), name) for name, other in others.items()}
    shown = 1 if any(one.kind == "image" for one in engine.signature.inputs) else 5
    _write_json(folder / "example.json", [row["input"] for row in golden["rows"][:shown]])
    _write_json(folder / "golden.json", golden)
    if sample is not None:
        limit = max(1, _BASELINE_VALUES // max(1, len(names)))
        nullable = [replace(one, nullable=True) for one in engine.signature.inputs if one.name in sample.columns]
        seen = [one for one in nullable if one.kind != "image"]
        columns = {one.name: to_array(one, sample.columns[one.name][:limit]) for one in seen}
        _write_json(folder / "baseline.json", samples.baseline(seen, columns))
    return golden


def _golden(engine: engines.Engine, sample: Sample | None, names: Sequence[str], function: str) -> dict[str, Any]:
    """Rows with the answers that they get from the model, or from the `function` of that name. ModelFailed when they get none."""
    inputs = [engine.signature.example()] if sample is None else _golden_inputs(engine, sample, names)
    try:
        outputs = engine.answer(inputs)
        again = engine.answer(inputs) if function else outputs
    except (ModelFailed, ModelContract, InvalidInput) as error:
        made = "the example made from its signature" if sample is None else "rows of the sample"
        hint = inference.ASK if sample is None else "Does the model want something else than the sample's columns, or a step before it?"
        if function and sample is None:
            hint = f"Give its parameters defaults that it answers, or Annotated[..., msgspec.Meta(examples=[...])]. {inference.ASK}"
        raise ModelFailed(f"{f'{function}()' if function else 'the model'} does not answer {made}: {error.message}", hint=hint) from error
    rows = [{"input": given, "output": answer} for given, answer in zip(inputs, outputs, strict=True)]
    steady = not engines.difference(outputs, again, TOLERANCE)
    return {"tolerance": TOLERANCE if steady else None, "synthesised": sample is None, "rows": rows}


def _golden_inputs(engine: engines.Engine, sample: Sample, names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows spread over the sample that the signature takes. SignatureError when it takes none of them."""
    most = _GOLDEN_PICTURES if any(one.kind == "image" for one in engine.signature.inputs) else _GOLDEN_ROWS
    wanted = max(2, min(most, _GOLDEN_VALUES // max(1, len(names))))
    step = max(1, sample.rows // (wanted * 5))
    taken: list[dict[str, Any]] = []
    problem = ""
    for record in sample.records(range(0, sample.rows, step), names):
        plain = {key: moment_text(value) if isinstance(value, datetime) else value for key, value in record.items()}
        try:
            engine.signature.columns([plain], single=True)
        except InvalidInput as error:
            problem = error.message
            continue
        taken.append(plain)
    if not taken:
        hint = "Correct the sample, or state the field with --schema."
        raise SignatureError(f"no row of the sample fits the signature: {problem}", hint=hint)
    spread = max(1, len(taken) // wanted)
    return taken[::spread][:wanted]


def _lineage(folder: Path, options: Options) -> dict[str, Any]:
    """Where the model came from: commit and dirtiness of the git checkout it lies in, the training data's sha256, metrics."""
    lineage: dict[str, Any] = {}
    commit = _git(folder, "rev-parse", "HEAD")
    if commit:
        lineage["git"] = {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
        lineage["git"]["time"] = int(_git(folder, "show", "--no-patch", "--format=%ct", "HEAD"))
    data = {}
    for path in map(Path, options.data):
        if not path.is_file():
            raise UsageError(f"--data {path} is no file", hint="It names the training data, of which the sha256 is kept.")
        with path.open("rb") as file:
            name = path.name if path.name not in data else path.as_posix()
            data[name] = {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": path.stat().st_size}
    if data:
        lineage["data"] = data
    if options.metric:
        lineage["metrics"] = dict(options.metric)
    return lineage


def _git(folder: Path, *words: str) -> str:
    """What git says, or '' where there is no git or no checkout."""
    git = shutil.which("git")
    if git is None:
        return ""
    done = subprocess.run([git, "-C", str(folder), "--no-optional-locks", *words], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 fixed words
    return done.stdout.strip() if done.returncode == 0 else ""


def _created(lineage: Mapping[str, Any]) -> str | None:
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or lineage.get("git", {}).get("time")
    return datetime.fromtimestamp(int(epoch), UTC).isoformat() if epoch else None


def _metric(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise UsageError(f"metric {name!r} is {value!r}", hint="A metric is a finite number: rmse=4.1.")
    return number


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n", encoding="utf-8")
