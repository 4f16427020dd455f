"""The tools that are compared: what each is made of, how it is started as its own documentation says, and the form it wants rows in.

The service files are in the folders beside this page, as the tools' guides write them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.environments import LIBRARIES, ROOT, WORK
from bench.servers import free_port
from bench.works import WIRES, Wire, Work

PREPARE_S = 180


@dataclass(frozen=True)
class Place:
    """Where a tool serves a work: its environment, a folder of its own with the model's files and its service file, and a port."""

    env: Path
    folder: Path
    port: int
    work: Work

    def bin(self, name: str) -> Path:
        return self.env / "bin" / name


@dataclass(frozen=True)
class Tool:
    """One row of the tables."""

    name: str
    title: str
    requirements: tuple[str, ...]
    wire: Wire
    command: Callable[[Place], list[str | Path]]
    """The words that start it."""
    prepare: Callable[[Place, Mapping[str, str]], None] = lambda place, variables: None
    """Runs once before the first start of a work, with the variables of the environment."""
    variables: Callable[[Place], dict[str, str]] = lambda place: {}
    works: tuple[str, ...] = ("W1", "W2", "W3", "W4", "rows")
    several_cores: bool = False
    """It cannot be held to one core as a whole: its row says so."""
    answers: bool = True
    """Its answers are a model's, and are checked."""
    shown: tuple[str, ...] = ()
    """The distributions whose versions the results name."""


def place(tool: Tool, work: Work, env: Path) -> Place:
    """A fresh folder with the files of the work's model and of the tool's service."""
    folder = WORK / "run" / f"{tool.name}-{work.name}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(WORK / "models" / work.model, folder)
    services = Path(__file__).parent / tool.name.replace("-", "_")
    if services.is_dir():
        shutil.copytree(services, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(__file__).parent.parent / "slow.py", folder)
    return Place(env, folder, free_port(), work)


def variables(tool: Tool, where: Place) -> dict[str, str]:
    """The environment a tool runs in: a home of its own, one thread for the numeric libraries (one core is what there is), no telemetry."""
    kept = {name: value for name, value in os.environ.items() if name in ("LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE")}
    return {
        **kept,
        "PATH": f"{where.env / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "HOME": str(where.folder),
        "PYTHONPATH": str(where.folder),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "DO_NOT_TRACK": "1",
        **tool.variables(where),
    }


def _at(where: Place, host: str, port: str) -> tuple[str, ...]:
    return (host, "127.0.0.1", port, str(where.port))


def _uvicorn(where: Place, *options: str) -> list[str | Path]:
    return [where.bin("uvicorn"), f"{where.work.service}:app", *_at(where, "--host", "--port"), *options]


def _mlserver(where: Place, variables: Mapping[str, str]) -> None:
    del variables
    runtime, uri = {
        "iris": ("mlserver_sklearn.SKLearnModel", "./iris.joblib"),
        "shipping": ("mlserver_xgboost.XGBoostModel", "./shipping.ubj"),
    }[where.work.service]
    model = {"name": "model", "implementation": runtime, "parameters": {"uri": uri}}
    if not where.work.many and where.work.model != "iris":
        # On W2 batching halves its cost at 32 connections and raises it at one; W4 is what it is for; W1 it does not help.
        model |= {"max_batch_size": 64, "max_batch_time": 0.002}
    (where.folder / "model-settings.json").write_text(json.dumps(model))
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False}
    (where.folder / "settings.json").write_text(json.dumps(settings))


def _mlserver_ports(where: Place) -> dict[str, str]:
    ports = {"HTTP": where.port, "GRPC": free_port(), "METRICS": free_port()}
    return {f"MLSERVER_{name}_PORT": str(port) for name, port in ports.items()}


def _mlflow(where: Place, variables: Mapping[str, str]) -> None:
    model = {"iris": "iris.joblib", "shipping": "shipping.pkl"}[where.work.service]
    columns = json.loads((where.folder / "rows.json").read_text())["columns"]
    _prepare([where.bin("python"), "save.py", model, "sample.csv", *columns], where.folder, variables)


def _ray(where: Place) -> list[str | Path]:
    config = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": where.port},
        "applications": [{"name": "app", "route_prefix": "/", "import_path": f"{where.work.service}:app"}],
    }
    (where.folder / "serve.yaml").write_text(json.dumps(config))  # JSON is YAML
    return [where.bin("serve"), "run", "serve.yaml"]


def _modelport(kind: str) -> Callable[[Place, Mapping[str, str]], None]:
    def prepare(where: Place, variables: Mapping[str, str]) -> None:
        file = f"{where.work.service}.onnx" if kind == "onnx" else {"iris": "iris.joblib", "shipping": "shipping.pkl"}[where.work.service]
        words: list[str | Path] = [where.bin("modelport"), "pack", file, "--name", "model", "--sample", "sample.csv", "--onnx", "off"]
        if where.work.service == "shipping":
            words += ["--target", "shipping_price", "--output", "shipping_estimated_price"]
        if where.work.model.startswith("slow"):
            words += ["--code", "slow.py", "--trust"]
        _prepare(words, where.folder, variables)

    return prepare


def _prepare(words: list[str | Path], folder: Path, variables: Mapping[str, str]) -> None:
    done = subprocess.run(list(map(str, words)), cwd=folder, env=variables, capture_output=True, text=True, timeout=PREPARE_S, check=False)
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise RuntimeError(f"{Path(words[0]).name} {words[1]} ended with {done.returncode}: {' / '.join(said[-3:])[-400:]}")


def _serve(where: Place) -> list[str | Path]:
    return [where.bin("modelport"), "serve", "model", "--port", str(where.port)]


def _store(where: Place) -> dict[str, str]:
    return {"MODELPORT_STORE": str(where.folder / "store"), "MODELPORT_CACHE": str(where.folder / "cache")}


def _litserve(where: Place) -> list[str | Path]:
    return [where.bin("python"), f"{where.work.service}.py", str(where.port), *(["many"] if where.work.many else [])]


LIMITS = (*LIBRARIES, "uvloop", "httptools", "msgspec", "onnxruntime")
MLSERVER = ("mlserver", "mlserver-sklearn", "mlserver-xgboost", "uvloop==0.21.0")
FASTAPI = (*LIBRARIES, "fastapi", "uvicorn[standard]")
TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "modelport-onnx",
            "Modelport, ONNX file",
            (str(ROOT),),
            WIRES["records"],
            _serve,
            _modelport("onnx"),
            _store,
            works=("W1", "W2", "W3"),
            shown=("modelport", "onnxruntime", "uvicorn"),
        ),
        Tool(
            "modelport-native",
            "Modelport, the model as it came",
            (f"{ROOT}[sklearn,xgboost]", *LIBRARIES),
            WIRES["records"],
            _serve,
            _modelport("native"),
            _store,
            shown=("modelport", "uvicorn"),
        ),
        Tool(
            "fastapi-numpy",
            "FastAPI, well written (numpy, no access log)",
            FASTAPI,
            WIRES["records, a path for many"],
            lambda where: _uvicorn(where, "--no-access-log", "--loop", "uvloop", "--http", "httptools"),
            shown=("fastapi", "uvicorn", "pydantic"),
        ),
        Tool(
            "fastapi-tutorial",
            "FastAPI, as tutorials write it (pandas)",
            FASTAPI,
            WIRES["records, a path for many"],
            _uvicorn,
            shown=("fastapi", "uvicorn", "pandas"),
        ),
        Tool(
            "flask-gunicorn",
            "Flask, gunicorn with one worker",
            (*LIBRARIES, "flask", "gunicorn"),
            WIRES["records, a path for many"],
            lambda where: [where.bin("gunicorn"), "--workers", "1", "--bind", f"127.0.0.1:{where.port}", f"{where.work.service}:app"],
            shown=("flask", "gunicorn"),
        ),
        Tool(
            "bentoml",
            "BentoML, batching on",
            (*LIBRARIES, "bentoml"),
            WIRES["bentoml"],
            lambda where: [
                where.bin("bentoml"),
                "serve",
                f"{where.work.service}:{where.work.service.title()}",
                *_at(where, "--host", "--port"),
            ],
            variables=lambda where: {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(where.folder / "bentoml")},
            shown=("bentoml",),
        ),
        Tool(
            "litserve",
            "LitServe, batching on (W3: off)",
            (*LIBRARIES, "litserve"),
            WIRES["litserve"],
            _litserve,
            shown=("litserve",),
        ),
        Tool(
            "mlserver",
            "MLServer, in-process (batching: W2, W4)",
            # 1.7.1 crashes under uvloop 0.23. Its XGBoost runtime asks for the distribution that is called xgboost.
            (*(name.replace("xgboost-cpu", "xgboost") for name in LIBRARIES), *MLSERVER),
            WIRES["open inference"],
            lambda where: [where.bin("mlserver"), "start", where.folder],
            _mlserver,
            _mlserver_ports,
            shown=("mlserver", "uvloop"),
        ),
        Tool(
            "mlflow",
            "MLflow models serve",
            (*LIBRARIES, "mlflow"),
            WIRES["mlflow"],
            lambda where: [where.bin("mlflow"), "models", "serve", "-m", "model", "--env-manager", "local", *_at(where, "-h", "-p")],
            _mlflow,
            lambda where: {"MLFLOW_DISABLE_TELEMETRY": "true"},
            shown=("mlflow",),
        ),
        Tool(
            "ray-serve",
            "Ray Serve, batching on, two cores",
            (*LIBRARIES, "ray[serve]"),
            WIRES["records at /"],
            _ray,
            variables=lambda where: {"RAY_USAGE_STATS_ENABLED": "0"},
            several_cores=True,
            shown=("ray",),
        ),
        Tool(
            "limit-http",
            "limit: bare HTTP answer, no model",
            LIMITS,
            WIRES["records"],
            lambda where: [where.bin("python"), Path(__file__).parent.parent / "limits.py", "serve", str(where.port)],
            works=("W1",),
            answers=False,
            shown=("uvloop", "httptools", "msgspec"),
        ),
    )
}
