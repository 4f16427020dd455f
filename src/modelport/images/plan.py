"""What an image holds and how it starts: the one description of it, whether Modelport builds it or a Dockerfile does.

/opt/modelport/lib      the dependencies, and Modelport: on PYTHONPATH
/opt/modelport/bin      the command `modelport`
/opt/modelport/store    a store with the one bundle, so that it is served as what it is: iris:3
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from modelport import __version__, store
from modelport.bundle import ONNX, Bundle
from modelport.errors import BundleError

ROOT = "/opt/modelport"
LIB = f"{ROOT}/lib"
STORE = f"{ROOT}/store"
COMMAND = f"{ROOT}/bin/modelport"
PORT = 8080
"""Where neither PORT nor AIP_HTTP_PORT says another."""
USER = "65532:65532"
"""Nobody in particular: the files may be read by anybody, and none is written."""
STOP_SIGNAL = "SIGTERM"
PYTHONS = ("3.11", "3.12", "3.13")
"""Those that Modelport runs on."""
RUNTIME = ("click", "httptools", "msgspec", "numpy", "prometheus-client", "python-multipart", "starlette", "uvicorn", "uvloop")
"""What serving itself needs, out of Modelport's own dependencies."""
LEFT_OUT = ("coloredlogs", "flatbuffers", "humanfriendly", "mpmath", "packaging", "protobuf", "sympy")
"""What onnxruntime asks for and needs only to make or change graphs."""
PRUNED = (
    "msgspec/*.pyi",
    "numpy/**/*.a", "numpy/**/*.pxd", "numpy/**/*.pyi", "numpy/**/include", "numpy/**/tests", "numpy/distutils", "numpy/f2py",
    "onnxruntime/backend", "onnxruntime/capi/libonnxruntime.so.*", "onnxruntime/datasets", "onnxruntime/quantization",
    "onnxruntime/tools", "onnxruntime/transformers",
    "pandas/tests", "scipy/**/tests", "sklearn/**/tests", "uvloop/**/*.pxd", "uvloop/**/*.pyx",
    ".lock", "bin", "*.dist-info/direct_url.json", "*.dist-info/INSTALLER", "*.dist-info/RECORD", "*.dist-info/REQUESTED",
    "*.dist-info/sboms", "*.dist-info/uv_cache.json",
)  # fmt: skip
"""What is taken out of LIB once the dependencies are installed there, as patterns of `pathlib.Path.glob`.

onnxruntime's extension module holds all of libonnxruntime: the library beside it is for programs in C.
"""
_SHIPPING = ("demo", "targets", "client_source.py", "testing.py")
"""Of Modelport what only who makes images needs."""
_HEALTHY = (
    "import http.client as h,os,sys;"
    "c=h.HTTPConnection('127.0.0.1',int(os.environ.get('AIP_HTTP_PORT') or os.environ['PORT']),timeout=4);"
    "c.request('GET','/readyz');"
    "sys.exit(c.getresponse().status!=200)"
)
HEALTH_INTERVAL_S, HEALTH_TIMEOUT_S, HEALTH_START_S = 10, 5, 60
_LARGEST_LABEL = 64 * 1024
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*")


@dataclass(frozen=True)
class Plan:
    """An image of a bundle, before it is made."""

    bundle: Bundle
    version: int
    """The bundle's in its store; 1 where it comes from none."""
    requirements: tuple[str, ...]
    """What is installed, beside what that requires: "numpy==2.4.6"."""
    left_out: tuple[str, ...]
    """Distributions that are not installed although something says that it requires them."""

    @property
    def ref(self) -> str:
        return f"{self.bundle.name}:{self.version}"

    @property
    def base(self) -> str:
        """The image that it builds on where no other is asked for: the Python that packed the model, on Debian, with little else."""
        return f"python:{self.bundle.python}-slim"

    @property
    def pythons(self) -> tuple[str, ...]:
        """The Pythons that serve it, best first: ONNX is the same for all, what a pickle or its code holds may not be."""
        return (self.bundle.python, *(one for one in PYTHONS if one != self.bundle.python and self.is_onnx))

    @property
    def is_onnx(self) -> bool:
        """Whether it answers from ONNX alone."""
        return serves_onnx(self.bundle)


def plan(bundle: Bundle, version: int = 1) -> Plan:
    """What the image of a bundle holds."""
    onnx = serves_onnx(bundle)
    pinned = _pins(bundle)
    wanted: dict[str, str | None] = {}
    if onnx:
        wanted |= {"onnxruntime": pinned.get("onnxruntime"), "numpy": pinned.get("numpy")}
    else:
        wanted |= _for_processors(pinned)
    if any(field.kind == "image" for field in bundle.signature.inputs):
        wanted.setdefault("pillow", pinned.get("pillow"))
    for name in RUNTIME:
        wanted.setdefault(name, None)
    lines = sorted(_pinned(name, number or _installed(name)) for name, number in wanted.items())
    return Plan(bundle, version, tuple(lines), LEFT_OUT if onnx else ())


def serves_onnx(bundle: Bundle) -> bool:
    """Whether ONNX answers for the bundle, so that the library that trained it is not needed."""
    return bundle.card.framework == "onnx" or ONNX in bundle.files


def environment(ref: str) -> dict[str, str]:
    """The variables of an image that serves `ref`; `ROOT`/bin comes before the base's PATH, too."""
    return {
        "HOME": "/tmp",  # noqa: S108 a user without a name has no other
        "MODELPORT_HOST": "0.0.0.0",  # noqa: S104 who runs the container says which of its ports can be reached
        "MODELPORT_PUBLIC": "1",
        "MODELPORT_REF": ref,
        "MODELPORT_STORE": STORE,
        "PORT": str(PORT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": LIB,
        "PYTHONUNBUFFERED": "1",
    }


ENTRYPOINT = (COMMAND,)
ARGUMENTS = ("serve",)
"""What Amazon SageMaker says too: the model is named by MODELPORT_REF."""


def health(python: str) -> tuple[str, ...]:
    """The command that ends with 0 when the service is ready; `python` is the interpreter in the image."""
    return (python, "-I", "-c", _HEALTHY)


def script(python: str) -> bytes:
    """The file at COMMAND."""
    return f"#!{python}\nfrom modelport.cli.main import main\n\nmain()\n".encode()


def labels(plan: Plan) -> dict[str, str]:
    """What the image says of itself: bundle, signature, lineage. A signature too large for a label is left out."""
    bundle, card = plan.bundle, plan.bundle.card
    said = {
        "modelport.bundle.digest": bundle.digest,
        "modelport.bundle.ref": plan.ref,
        "modelport.engine": "onnx" if plan.is_onnx else "native",
        "modelport.lineage": _json(bundle.lineage),
        "modelport.model": _json({"class": card.cls, "framework": card.framework, "library": card.library, "version": card.version}),
        "modelport.signature": _json(bundle.signature.to_dict()),
        "modelport.version": __version__,
        "org.opencontainers.image.description": bundle.subtitle or bundle.description,
        "org.opencontainers.image.revision": str(bundle.lineage.get("git", {}).get("commit", "")),
        "org.opencontainers.image.title": bundle.title or bundle.name,
        "org.opencontainers.image.version": str(plan.version),
        **{f"modelport.label.{key}": value for key, value in bundle.labels.items()},
    }
    if len(said["modelport.signature"]) > _LARGEST_LABEL:
        del said["modelport.signature"]
    return {name: text for name, text in sorted(said.items()) if text}


def modelport_files() -> dict[str, Path | bytes]:
    """Modelport itself as far as serving needs it, by the place below LIB."""
    root = Path(str(files("modelport")))
    found: dict[str, Path | bytes] = {}
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        if path.is_file() and place.parts[0] not in _SHIPPING and "__pycache__" not in place.parts and not path.name.startswith("."):
            found[f"modelport/{place.as_posix()}"] = path
    about = f"Metadata-Version: 2.1\nName: modelport\nVersion: {__version__}\n"
    return {**found, f"modelport-{__version__}.dist-info/METADATA": about.encode()}


def model_files(plan: Plan) -> dict[str, Path | bytes]:
    """The bundle in its store, by the place below STORE."""
    return store.laid_out(plan.bundle, plan.version)


def _pins(bundle: Bundle) -> dict[str, str]:
    """The version of each distribution that the bundle needs. BundleError for a line that would be an option or a URL to an installer."""
    pins = bundle.pins()
    wrong = next((f"{name}=={number}" if number else name for name, number in pins if not _PIN.fullmatch(f"{name}=={number}")), None)
    if wrong is not None:
        hint = "A line is a name and a version, as numpy==2.4.6: pack the model again."
        raise BundleError(f"{bundle.folder / 'requirements.txt'} has {wrong[:100]!r}, which is no exact pin", hint=hint)
    return {name.lower(): number for name, number in pins}


def _for_processors(pinned: Mapping[str, str]) -> dict[str, str | None]:
    """The pins without what only graphics cards use: gigabytes."""
    kept = {name: number for name, number in pinned.items() if not name.startswith("nvidia-") and name != "triton"}
    if "xgboost" in kept and _number(kept["xgboost"]) >= (2, 1, 1):
        kept["xgboost-cpu"] = kept.pop("xgboost")
    return dict(kept)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _pinned(name: str, number: str | None) -> str:
    return f"{name}=={number}" if number else name


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
