"""A model file or a live model becomes a bundle that answers as the model did, the same bytes each time, with all it needs beside it."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from modelport import engines, inspection, pack
from modelport.bundle import Bundle, open_bundle
from modelport.errors import InvalidInput, ModelFailed, ModelFileError, SignatureError, Untrusted, UsageError, VersionMismatch
from modelport.packing import Options, pack_file, read_schema
from modelport.signature import Field, Signature
from modelport.store import Store


def packed(path: Path, folder: Path, *, onnx: str = "off", **options: Any) -> Bundle:
    folder.mkdir(parents=True)
    return pack_file(path, folder, Options(onnx=onnx, **options))


def written(model: Any, tmp_path: Path, name: str = "model.pkl") -> Path:
    (tmp_path / name).write_bytes(pickle.dumps(model))
    return tmp_path / name


@pytest.mark.parametrize("name", models.MODELS)
def test_every_kind_of_model_packs_reopens_and_answers_as_before(name: str, tmp_path: Path) -> None:
    trained = models.MODELS[name]()
    path = models.write(name, tmp_path)
    bundle = packed(path, tmp_path / "bundle", name="m", sample=trained.frame)
    golden = bundle.read_json("golden.json")
    assert not golden["synthesised"]
    engine = engines.load(open_bundle(tmp_path / "bundle"))
    assert engines.verify_golden(engine, bundle) == len(golden["rows"]) >= 2
    assert bundle.read_json("example.json")[0] == golden["rows"][0]["input"]
    assert set(bundle.read_json("baseline.json")) == {field.name for field in bundle.signature.inputs}
    if trained.framework == "sklearn":
        inputs = [{name: record[name] for name in bundle.signature.example()} for record in models.records(trained.frame.head(5))]
        answers = [next(iter(record.values())) for record in engine.answer(inputs)]
        frame = trained.frame.head(5)
        rows = frame["text"] if name == "text" else frame if hasattr(trained.model, "feature_names_in_") else frame.to_numpy()
        for answer, own in zip(answers, trained.model.predict(rows).tolist(), strict=True):
            first = own[0] if name == "multi_label" else own
            assert answer == (first if isinstance(first, str) else pytest.approx(first, rel=1e-4, abs=1e-4))


@pytest.mark.parametrize("name", ["iris_svc", "xgboost_booster", "lightgbm_regressor", "catboost_regressor", "onnx_svc", "text"])
def test_the_same_inputs_give_the_same_digest_in_another_process(name: str, tmp_path: Path) -> None:
    path = models.write(name, tmp_path)
    first = packed(path, tmp_path / "bundle", name="m", onnx="auto")
    script = """
        import sys
        from pathlib import Path
        from modelport.packing import Options, pack_file
        print(pack_file(Path(sys.argv[1]), Path(sys.argv[2]), Options(name="m")).digest)
    """
    (tmp_path / "elsewhere").mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": "123", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-c", textwrap.dedent(script), str(path), str(tmp_path / "elsewhere")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == first.digest


def test_a_model_without_a_sample_gets_an_example_that_is_marked_as_made(tmp_path: Path) -> None:
    bundle = packed(models.write("xgboost_regressor", tmp_path), tmp_path / "bundle", name="m")
    assert bundle.read_json("golden.json")["synthesised"]
    assert len(bundle.read_json("example.json")) == 1
    assert "baseline.json" not in bundle.files


def test_the_target_is_left_out_of_the_sample_and_the_output_is_named(tmp_path: Path) -> None:
    frame = models.shipping().assign(paid=1.5)
    frame.to_csv(tmp_path / "sample.csv", index=False)
    path = models.write("xgboost_regressor", tmp_path)
    bundle = packed(path, tmp_path / "bundle", sample=tmp_path / "sample.csv", target="paid", output="shipping_estimated_price")
    assert bundle.name == "shipping"
    assert "paid" not in bundle.read_json("example.json")[0]
    assert list(bundle.read_json("golden.json")["rows"][0]["output"]) == ["shipping_estimated_price"]


def test_a_live_model_is_packed_into_the_store_with_all_that_is_said_of_it(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a\n1\n")
    trained = models.iris_svc()
    entry = pack(
        trained.model,
        store=str(tmp_path / "store"),
        name="iris",
        sample=trained.frame,
        data=str(tmp_path / "train.csv"),
        metric={"f1": np.float32(0.5)},
        label={"team": "flowers"},
        title="Iris",
        schema={"inputs": [{"name": "petal_width", "kind": "number", "minimum": 0}]},
    )
    assert (entry.ref, entry.framework) == ("iris:1", "sklearn")
    bundle = Store(str(tmp_path / "store")).get("iris")[1]
    assert bundle.lineage["metrics"] == {"f1": 0.5}
    assert bundle.lineage["data"] == {"train.csv": {"sha256": hashlib.sha256(b"a\n1\n").hexdigest(), "size": 4}}
    assert (bundle.labels, bundle.title) == ({"team": "flowers"}, "Iris")
    assert bundle.signature.inputs[3].minimum == 0
    row = models.records(trained.frame.head(1))
    assert engines.load(bundle).answer(row) == [{"prediction": "setosa"}]


def test_a_live_booster_and_a_live_onnx_graph_are_packed_too(tmp_path: Path) -> None:
    import onnx

    graph = onnx.load_from_string(models.onnx_svc().model)
    for model, framework in ((models.xgboost_booster().model, "xgboost"), (models.lightgbm_booster().model, "lightgbm"), (graph, "onnx")):
        assert pack(model, store=str(tmp_path / "store"), name="m").framework == framework


def test_a_model_that_cannot_be_pickled_is_explained(tmp_path: Path) -> None:
    from sklearn.preprocessing import FunctionTransformer

    with pytest.raises(ModelFileError, match="this FunctionTransformer cannot be pickled"):
        pack(FunctionTransformer(lambda x: x), store=str(tmp_path))


def test_requirements_are_exact_pins_of_what_the_model_needs(tmp_path: Path) -> None:
    bundle = packed(models.write("iris_svc", tmp_path), tmp_path / "bundle")
    pins = dict(line.split("==") for line in (bundle.folder / "requirements.txt").read_text().splitlines())
    assert {name: pins[name] for name in ("scikit-learn", "numpy", "scipy")} == {
        name: version(name) for name in ("scikit-learn", "numpy", "scipy")
    }
    assert list(pins) == sorted(pins, key=str.lower)
    assert not {"xgboost", "pytest"} & set(pins)


# As ONNX


@pytest.mark.parametrize(("name", "precision"), [("iris_svc", "float32"), ("lightgbm_classifier", "float64"), ("pipeline", "float32")])
def test_what_is_proven_as_onnx_needs_onnxruntime_alone(name: str, precision: str, tmp_path: Path) -> None:
    trained = models.MODELS[name]()
    bundle = packed(models.write(name, tmp_path), tmp_path / "bundle", sample=trained.frame, onnx="auto")
    proof = bundle.read_json("parity.json")
    assert (proof["passed"], proof["precision"], proof["flips"]) == (True, precision, 0)
    assert proof["rows"] == proof["rows_of_sample"] + proof["rows_made"] > 2000
    pins = dict(line.split("==") for line in (bundle.folder / "requirements.txt").read_text().splitlines())
    assert {"onnxruntime", "numpy"} <= set(pins)
    assert not {"scikit-learn", "lightgbm", "pandas"} & set(pins)
    assert bundle.read_json("golden.json")["tolerance"] < proof["tolerance"]
    inspected = inspection.inspect(bundle.folder / "model.onnx")
    assert inspected.card is not None
    assert inspected.card.details["producer"] == "modelport"


def test_integers_that_single_precision_does_not_tell_apart_are_refused_or_computed_in_doubles(tmp_path: Path) -> None:
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    frame = pd.DataFrame({"count": np.arange(200), "share": np.linspace(0, 1, 200)})
    path = written(LinearRegression().fit(frame, frame["count"] * 3.0), tmp_path)
    single = engines.load(packed(path, tmp_path / "single", onnx="auto", sample=frame))
    with pytest.raises(InvalidInput, match="/count: expected an integer of at most 16777216, got 16777217"):
        single.answer([{"count": 2**24 + 1, "share": 0.5}])
    large = {"inputs": [{"name": "count", "kind": "integer", "maximum": 10**9}]}
    bundle = packed(path, tmp_path / "double", onnx="auto", sample=frame, schema=large)
    answers = [engines.load(bundle, wanted).answer([{"count": 2**24 + 1, "share": 0.5}])[0] for wanted in ("onnx", "native")]
    assert answers[0]["prediction"] == pytest.approx(answers[1]["prediction"], rel=1e-9)


def test_numbers_that_overflow_in_the_graph_are_out_of_bounds_though_the_model_computes_them(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    path = written(LogisticRegression(max_iter=1000).fit(models.iris(), models.iris_species()), tmp_path)
    bundle = packed(path, tmp_path / "bundle", onnx="auto", sample=models.iris())
    field, (example, *_) = bundle.signature.inputs[0], bundle.read_json("example.json")
    for wanted in ("onnx", "native"):
        engine = engines.load(bundle, wanted)
        assert engine.answer([{**example, field.name: field.maximum}])
        with pytest.raises(InvalidInput, match="at most"):
            engine.answer([{**example, field.name: 1e39}])


def test_what_has_no_onnx_form_keeps_its_library_and_says_why(tmp_path: Path) -> None:
    bundle = packed(models.write("catboost_classifier", tmp_path), tmp_path / "bundle", sample=models.catboost_houses(), onnx="auto")
    assert "model.onnx" not in bundle.files
    assert bundle.read_json("parity.json")["reason"] == "no ONNX form of CatBoost's features that are categories"
    assert "catboost==" in (bundle.folder / "requirements.txt").read_text()
    assert bundle.read_json("golden.json")["tolerance"] == 1e-5


def test_conversion_can_be_left_out(tmp_path: Path) -> None:
    bundle = packed(models.write("iris_svc", tmp_path), tmp_path / "bundle", onnx="off")
    assert not {"model.onnx", "parity.json"} & set(bundle.files)
    onnx = packed(models.write("onnx_svc", tmp_path), tmp_path / "graph", onnx="auto")
    assert not {"model.onnx", "parity.json"} & set(onnx.files)


# What is said wrongly


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampel": 1}, "pack() has no option 'sampel'; did you mean \"sample\"?"),
        ({"name": "Iris Model"}, "'Iris Model' is no name for a bundle"),
        ({"onnx": "on"}, "onnx is 'on'"),
        ({"metric": {"f1": "high"}}, "metric 'f1' is 'high'"),
        ({"metric": {"f1": float("nan")}}, "metric 'f1' is nan"),
        ({"metric": {"ok": True}}, "metric 'ok' is True"),
        ({"label": {"team": 7}}, "label 'team' is 7"),
        ({"title": 7}, "title is 7"),
        ({"data": "none.csv"}, "--data none.csv is no file"),
        ({"code": "none.py"}, "none.py is not a Python module"),
        ({"sample": "none.csv"}, "the sample none.csv is no file"),
        ({"sample": 7}, "the sample is a builtins.int"),
        ({"schema": "none.json"}, "the schema none.json does not read"),
        ({"schema": {"inputs": [{"name": "petal", "kind": "number"}]}}, "the schema states 'petal', which is no input of the model"),
        ({"output": ["a", "b"]}, "2 outputs are named, the model has 1"),
        ({"sample": {"a": [1]}}, "the sample has no column 'sepal_length', which the model wants"),
    ],
)
def test_what_is_said_wrongly_is_named_and_nothing_is_stored(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises((UsageError, ModelFileError)) as caught:
        pack(models.iris_svc().model, store=str(tmp_path / "store"), **options)
    assert words in caught.value.message
    assert caught.value.hint
    assert not (tmp_path / "store").exists() or Store(str(tmp_path / "store")).entries() == []


def test_a_file_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="holds no model that is known here"):
        packed(written([1, 2], tmp_path), tmp_path / "bundle")


def test_a_sample_of_which_no_row_fits_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = models.write("iris_svc", tmp_path)
    schema = {"inputs": [{"name": "petal_width", "kind": "number", "minimum": 100}]}
    with pytest.raises(SignatureError, match=r"no row of the sample fits the signature: /petal_width: expected a number of at least 100"):
        packed(path, tmp_path / "bundle", sample=models.iris(), schema=schema)


def test_a_model_that_does_not_answer_its_example_is_refused_with_what_to_give(tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    logarithm = make_pipeline(FunctionTransformer(np.log), LinearRegression()).fit([[1.0], [2.0]], [1.0, 2.0])
    path = written(logarithm, tmp_path)
    with pytest.raises(ModelFailed) as caught:
        packed(path, tmp_path / "bundle", schema={"inputs": [{"name": "x0", "kind": "number"}]})
    assert "the model does not answer the example made from its signature" in caught.value.message
    assert "--sample" in caught.value.hint
    assert packed(path, tmp_path / "again", sample=np.array([[1.0], [2.0]])).read_json("golden.json")["rows"][1]["output"][
        "prediction"
    ] == pytest.approx(2.0)


def test_a_schema_is_read_from_json_and_toml(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"inputs": [{"name": "a", "kind": "integer"}]}))
    (tmp_path / "s.toml").write_text('[[inputs]]\nname = "a"\nkind = "integer"\n')
    for name in ("s.json", "s.toml"):
        assert read_schema(tmp_path / name) == Signature((Field("a", "integer"),), ())
    for text, words in (("[1]", "is no table"), ("{", "does not read"), ("[" * 100_000, "does not read")):
        (tmp_path / "s.json").write_text(text)
        with pytest.raises(SignatureError, match=words):
            read_schema(tmp_path / "s.json")


# Lineage


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_and_whether_it_was_dirty_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    git(checkout, "init", "--quiet")
    path = models.write("iris_svc", checkout)
    (checkout / "train.py").write_text("x = 1\n")
    git(checkout, "add", "train.py")
    git(checkout, "commit", "--quiet", "-m", "first", "--date", "2024-01-31T12:00:00Z")
    clean = packed(path, tmp_path / "clean")
    assert clean.lineage["git"]["commit"] == git(checkout, "rev-parse", "HEAD")
    assert clean.lineage["git"]["dirty"] is False
    assert clean.created is not None
    assert packed(path, tmp_path / "again").digest == clean.digest
    (checkout / "train.py").write_text("x = 2\n")
    assert packed(path, tmp_path / "dirty").lineage["git"]["dirty"] is True
    monkeypatch.chdir(checkout)
    live = pack(models.iris_svc().model, store=str(tmp_path / "store"), name="live")
    assert Store(str(tmp_path / "store")).get(live.ref)[1].lineage["git"]["dirty"] is True


def test_without_a_checkout_there_is_no_clock_in_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models.write("iris_svc", tmp_path)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert packed(path, tmp_path / "a").created is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert packed(path, tmp_path / "b").created == "2023-11-14T22:13:20+00:00"


# Models that need code of their own

TRAIN = """
    import pickle, sys
    import numpy as np
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    def clean(x):
        return np.log1p(np.abs(x))

    if __name__ == "__main__":
        model = make_pipeline(FunctionTransformer(clean), LinearRegression()).fit([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0])
        pickle.dump(model, open(sys.argv[1], "wb"))
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """A pickle that a script has written of a pipeline with the script's own function in it; beside the script."""
    (tmp_path / "my_training.py").write_text(textwrap.dedent(TRAIN))
    subprocess.run([sys.executable, str(tmp_path / "my_training.py"), str(tmp_path / "model.pkl")], check=True, capture_output=True)
    (tmp_path / "rows.csv").write_text("x0\n2.0\n")
    return tmp_path / "model.pkl"


def modelport(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from modelport.cli.main import main; main()", *map(str, words)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_a_function_of_the_training_script_is_named_and_code_brings_it_along(notebook: Path, tmp_path: Path) -> None:
    store = {"MODELPORT_STORE": str(tmp_path / "store")}
    seen = modelport("inspect", notebook, **store)
    assert "__main__.clean" in seen.stdout
    refused = modelport("pack", notebook, "--name", "logs", **store)
    assert refused.returncode == 3
    assert "__main__.clean" in refused.stderr
    assert "--code" in refused.stderr
    done = modelport("pack", notebook, "--name", "logs", "--code", tmp_path / "my_training.py", "--sample", tmp_path / "rows.csv", **store)
    assert done.returncode == 0, done.stderr
    script = """
        import json
        from modelport import Store, engines
        engine = engines.load(Store().get("logs")[1])
        print(json.dumps(engine.answer([{"x0": 2.0}])))
        Store().get("logs")
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    served = subprocess.run(command, env={**os.environ, **store}, capture_output=True, text=True, check=True, cwd=tmp_path / "store")
    assert json.loads(served.stdout)[0]["prediction"] == pytest.approx(2.0, abs=0.2)


def test_trust_without_the_code_says_what_is_missing(notebook: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        packed(notebook, tmp_path / "bundle", trust=True)
    assert "needs 'clean', which was defined in the script or notebook" in caught.value.message
    assert "--code" in caught.value.hint


def test_code_that_lacks_the_name_is_refused(notebook: Path, tmp_path: Path) -> None:
    (tmp_path / "other_code.py").write_text("def wash(x):\n    return x\n")
    with pytest.raises(Untrusted, match=r"__main__\.clean"):
        packed(notebook, tmp_path / "bundle", code=[tmp_path / "other_code.py"])


def test_code_of_two_names_or_of_no_python_is_refused(notebook: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for folder in (tmp_path, tmp_path / "sub"):
        (folder / "my_code.py").write_text("def clean(x):\n    return x\n")
    with pytest.raises(UsageError, match=r"two files are to be code/my_code\.py in the bundle"):
        packed(notebook, tmp_path / "a", code=[tmp_path / "my_code.py", tmp_path / "sub" / "my_code.py"])
    (tmp_path / "my-code.py").write_text("def clean(x):\n    return x\n")
    with pytest.raises(UsageError, match="is no Python module"):
        packed(notebook, tmp_path / "b", code=tmp_path / "my-code.py")


def test_the_code_of_a_bundle_is_covered_by_its_digest_and_leaves_no_compiled_files(notebook: Path, tmp_path: Path) -> None:
    made = [packed(notebook, tmp_path / name, name="logs", code=tmp_path / "my_training.py", sample=[[2.0]]) for name in ("a", "b")]
    assert made[0].digest == made[1].digest
    assert made[0].trusted == ("__main__.clean",)
    engines.load(made[0])
    assert open_bundle(tmp_path / "a") == made[0]


# Size

FOREST = """
    import sys
    from pathlib import Path
    from modelport.packing import Options, pack_file
    path = Path(sys.argv[1])
    bundle = pack_file(path, Path(sys.argv[2]), Options(name="forest"))
    # Its own: ru_maxrss also counts the process that started this one.
    status = Path("/proc/self/status").read_text().split()
    print(bundle.size, int(status[status.index("VmHWM:") + 1]) * 1024)
"""


def test_an_estimator_of_ones_own_is_served_with_its_code(tmp_path: Path) -> None:
    script = tmp_path / "my_model.py"
    script.write_text(
        textwrap.dedent(
            """
            import pickle
            import sys

            import numpy as np


            class Weighted:
                def __init__(self, weight):
                    self.weight = weight

                def predict(self, X):
                    return np.asarray(X, float).sum(axis=1) * self.weight


            if __name__ == "__main__":
                with open(sys.argv[1], "wb") as file:
                    pickle.dump(Weighted(2.0), file)
            """
        )
    )
    path = tmp_path / "model.pkl"
    subprocess.run([sys.executable, script, path], check=True)
    with pytest.raises(Untrusted, match=r"__main__\.Weighted"):
        packed(path, tmp_path / "refused", sample=[{"a": 1.0, "b": 2.0}])
    bundle = packed(path, tmp_path / "bundle", code=script, sample=[{"a": 1.0, "b": 2.0}])
    assert engines.load(bundle).answer([{"a": 1.5, "b": 2}]) == [{"prediction": 7.0}]


def test_a_forest_of_300_megabytes_is_packed_in_bounded_memory(tmp_path: Path) -> None:
    path = models.large_forest(tmp_path / "forest.joblib")
    (tmp_path / "bundle").mkdir()
    command = [sys.executable, "-c", textwrap.dedent(FOREST), str(path), str(tmp_path / "bundle")]
    size, peak = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert size >= path.stat().st_size > 250e6
    assert peak < 5 * size


# Models that another version wrote

OLD = Path(__file__).parent / "data" / "old_models" / "scikit-learn-1.3.2" / "forest.joblib"


def test_a_model_of_another_version_is_refused_without_an_environment(tmp_path: Path) -> None:
    with pytest.raises(VersionMismatch, match=r"scikit-learn 1\.3\.2 wrote this RandomForestClassifier; you have") as caught:
        packed(OLD, tmp_path / "bundle", python_env="none")
    assert "--python-env auto" in caught.value.hint


def test_a_model_of_another_version_is_packed_as_onnx_and_what_happens_is_told_in_three_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: None
) -> None:
    monkeypatch.setenv("MODELPORT_CACHE", str(tmp_path / "cache"))
    told: list[str] = []
    (tmp_path / "bundle").mkdir()
    bundle = pack_file(OLD, tmp_path / "bundle", Options(), told=told.append)
    here, python = version("scikit-learn"), bundle.python
    assert told == [
        f"scikit-learn 1.3.2 wrote this RandomForestClassifier; you have {here}, which does not load it, or answers wrongly with it.",
        f"Making Python {python} with scikit-learn 1.3.2 ...",
        f"Loaded it with Python {python} and scikit-learn 1.3.2, in a process of its own.",
    ]
    assert bundle.card.version == "1.3.2"
    assert python in ("3.8", "3.9", "3.10", "3.11", "3.12")
    assert not {"scikit-learn", "scipy", "joblib"} & {name for name, _ in bundle.pins()}
    assert engines.load(bundle).name == "onnx"
    with pytest.raises(VersionMismatch, match=r"It cannot be served from ONNX either: --onnx off was said"):
        packed(OLD, tmp_path / "native", onnx="off")


def test_why_no_environment_could_be_made_is_told_with_the_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    told: list[str] = []
    (tmp_path / "bundle").mkdir()
    with pytest.raises(VersionMismatch) as caught:
        pack_file(OLD, tmp_path / "bundle", Options(), told=told.append)
    assert len(told) == 1
    assert caught.value.message.endswith("; and no environment could be made: the package registry cannot be reached")
    assert "--trust-version" in caught.value.hint
