"""The exported Dockerfile says what the plan of the image says; what it copies is there, and the same each time."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from dataclasses import replace
from email.parser import HeaderParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import converted
from modelport import project
from modelport.errors import UsageError
from modelport.images import dockerfile
from modelport.images.plan import Plan, plan


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan(converted.iris(tmp_path_factory.mktemp("iris") / "bundle"), 3)


def text_of(content: Path | bytes) -> str:
    return content.decode() if isinstance(content, bytes) else content.read_text()


def test_whatever_the_dockerfile_copies_is_there(iris: Plan) -> None:
    files = dockerfile.files(iris, ("numpy==2.0.0",))
    text = text_of(files["Dockerfile"])
    copied = {name for line in re.findall(r"^COPY \[(.*)\]$", text, re.MULTILINE) for name in re.findall(r'"([^"]+)"', line)[:-1]}
    assert copied == {"requirements.txt", dockerfile.WHEEL, "prepare.py", "store"}
    assert text_of(files[".dockerignore"]).splitlines() == [
        "*",
        *(f"!{name}" for name in ("requirements.txt", dockerfile.WHEEL, "prepare.py", "store")),
    ]
    assert text_of(files["requirements.txt"]) == "numpy==2.0.0\n"
    assert "store/iris/versions/3.json" in files
    compile(text_of(files["prepare.py"]), "prepare.py", "exec")
    assert " AS train" not in text
    assert 'MODELPORT_REF="iris:3"' in text


def test_what_wheels_want_of_the_base_is_installed_there(iris: Plan) -> None:
    assert "apt-get install --yes --no-install-recommends libgomp1 " in text_of(dockerfile.files(iris, ("lightgbm==4.6.0",))["Dockerfile"])
    assert "apt-get" not in text_of(dockerfile.files(iris, ("xgboost-cpu==3.2.0",))["Dockerfile"])


def test_a_projects_dockerfile_trains_first_and_copies_the_image_from_there(tmp_path: Path) -> None:
    (tmp_path / "needs.txt").write_text("# to train\nlightgbm>=4\n")
    (tmp_path / project.FILE).write_text('model = "m.txt"\n[train]\ncommand = "python train.py"\nrequirements = "needs.txt"\n')
    found = project.find(tmp_path)
    assert found is not None
    files = dockerfile.training_files(found, "houses", "deploy", "3.12")
    text = files["Dockerfile"].decode()
    assert text.startswith("# houses:1: docker build --tag houses:1 --file deploy/Dockerfile .\n")
    assert "ARG PYTHON=python:3.12-slim\n" in text
    stages = re.findall(r"^FROM .*$", text, re.MULTILINE)
    assert stages == ["FROM ${PYTHON} AS train", "FROM ${PYTHON} AS dependencies", "FROM ${PYTHON}"]
    steps = [line for line in text.splitlines() if line.startswith(("COPY", "RUN"))]
    assert steps == [
        f'COPY ["deploy/{dockerfile.WHEEL}", "./"]',
        f"RUN python -m pip install ./{dockerfile.WHEEL}",
        'COPY ["needs.txt", "./requirements-of-training.txt"]',
        "RUN python -m pip install --requirement requirements-of-training.txt",
        "COPY . .",
        "RUN modelport train",
        "RUN modelport export dockerfile houses /image",
        f'COPY --from=train ["/image/requirements.txt", "/image/{dockerfile.WHEEL}", "/image/prepare.py", "./"]',
        f"RUN python -m pip install --no-compile --no-deps --target /opt/modelport/lib --requirement requirements.txt ./{dockerfile.WHEEL}",
        "RUN python prepare.py",
        "RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*",
        "COPY --from=dependencies /opt/modelport /opt/modelport",
        'COPY --from=train ["/image/store", "/opt/modelport/store"]',
    ]


def test_the_wheel_is_whole_and_the_same_each_time(iris: Plan) -> None:
    wheel = dockerfile.files(iris, ())[dockerfile.WHEEL]
    assert wheel == dockerfile.files(iris, ())[dockerfile.WHEEL]
    assert isinstance(wheel, bytes)
    with zipfile.ZipFile(io.BytesIO(wheel)) as packed:
        about = next(name.partition("/")[0] for name in packed.namelist() if name.endswith("/RECORD"))
        recorded = {row[0] for row in csv.reader(packed.read(f"{about}/RECORD").decode().splitlines())}
        assert recorded == set(packed.namelist())
        assert HeaderParser().parsestr(packed.read(f"{about}/METADATA").decode())["Name"] == "modelport"
        assert "modelport/cli/main.py" in recorded


def test_a_python_that_is_none_writes_no_instruction(iris: Plan) -> None:
    hostile = replace(iris, bundle=replace(iris.bundle, python="3.11-slim\nRUN id\n#"))
    with pytest.raises(UsageError, match="is no tag"):
        dockerfile.files(hostile, ())


@given(st.text())
def test_a_quoted_value_is_one_word_of_one_line_without_variables(text: str) -> None:
    made = dockerfile.quoted(text)
    assert re.fullmatch(r'"(?:[^"\\$\x00-\x1f]|\\["\\$])*"', made)
    plain = re.sub(r"[\x00-\x1f]", " ", text)
    assert re.sub(r"\\(.)", r"\1", made[1:-1], flags=re.DOTALL) == plain
