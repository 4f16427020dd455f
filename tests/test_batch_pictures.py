"""Labels for folders of pictures, and for files that name them."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import bundles
from modelport.batch import Options, predict
from modelport.bundle import Bundle
from modelport.cli.main import modelport
from modelport.engines import Engine
from modelport.errors import InvalidInput, UsageError
from modelport.signature import Columns, Signature
from pictures_world import COLOURS, network, plain
from test_serving_pictures import ALONE, BESIDE, by_colour, with_factor


class Colours:
    """A framework whose model tells the colour of a picture."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def predict(self, model: Any, columns: Columns, signature: Signature) -> Columns:
        self.rows.append(len(columns["photo"]))
        return by_colour(columns) if signature is ALONE else with_factor(columns)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, colour in enumerate(COLOURS * 12):
        (folder / f"{number:02}-{colour}.png").write_bytes(plain(colour))
    (folder / "more" / "blue.JPG").write_bytes(plain("blue", kind="JPEG"))
    (folder / "notes.txt").write_text("none of these")
    return folder


def run(
    tmp_path: Path, *data: str, signature: Signature = ALONE, output: str = "out.csv", **options: Any
) -> tuple[list[dict[str, str]], Colours]:
    """What comes out as rows of text, and what was asked."""
    folder = tmp_path / f"bundle-{len(list(tmp_path.iterdir()))}"
    bundle: Bundle = bundles.write(folder, signature=signature)
    model = Colours()
    target = tmp_path / output
    predict(bundle, data, str(target), Options(**options), engine=Engine(model, None, signature, signature))
    with target.open(newline="") as file:
        return list(csv.DictReader(file)), model


def test_a_folder_of_pictures_gets_a_row_for_each(tmp_path: Path, photos: Path) -> None:
    rows, model = run(tmp_path, str(photos))
    assert len(rows) == 37
    assert list(rows[0]) == ["photo", "prediction", "probabilities.red", "probabilities.green", "probabilities.blue"]
    assert rows[0]["photo"] == "00-red.png"
    assert rows[-1]["photo"] == "more/blue.JPG"
    assert all(row["prediction"] in row["photo"].lower() for row in rows)
    assert model.rows == [32, 5]


def test_a_picture_and_globs_of_pictures_are_taken_too(tmp_path: Path, photos: Path) -> None:
    assert [row["prediction"] for row in run(tmp_path, str(photos / "01-green.png"))[0]] == ["green"]
    assert [row["photo"] for row in run(tmp_path, str(photos / "*-red.png"))[0]] == [f"{number:02}-red.png" for number in range(0, 36, 3)]


def test_cells_are_paths_from_the_file_s_folder_or_base64(tmp_path: Path, photos: Path) -> None:
    inside = base64.b64encode(plain("green")).decode()
    (photos / "rows.csv").write_text(f"id,photo,factor,note\n1,more/blue.JPG,2,x\n2,{photos}/00-red.png,0.5,\n3,{inside},1,y\n")
    rows, _ = run(tmp_path, str(photos / "rows.csv"), signature=BESIDE, only_predictions=True)
    assert [float(row["redness"]) for row in rows] == [0.0, 127.5, 0.0]
    lines = [{"photo": "00-red.png", "factor": 1}, {"photo": f"data:image/png;base64,{inside}", "factor": 1}]
    (photos / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows, _ = run(tmp_path, str(photos / "rows.jsonl"), signature=BESIDE, output_form="csv", only_predictions=True)
    assert [float(row["redness"]) for row in rows] == [255.0, 0.0]


@pytest.mark.parametrize("form", ["binary", "struct", "string"])
def test_parquet_holds_pictures_as_bytes_or_paths(tmp_path: Path, photos: Path, form: str) -> None:
    data = {
        "binary": [plain("red"), plain("blue")],
        "struct": [{"bytes": plain("red"), "path": None}, {"bytes": None, "path": "02-blue.png"}],
        "string": ["00-red.png", "02-blue.png"],
    }[form]
    pq.write_table(pa.table({"photo": data}), photos / "rows.parquet")
    rows, _ = run(tmp_path, str(photos / "rows.parquet"), only_predictions=True)
    assert [row["prediction"] for row in rows] == ["red", "blue"]
    pq.write_table(pa.table({"photo": [1, 2]}), photos / "rows.parquet")
    with pytest.raises(UsageError, match="the column 'photo' is of type int64: expected a JPEG, PNG or WEBP picture"):
        run(tmp_path, str(photos / "rows.parquet"))


def test_a_bad_picture_stops_the_run_or_is_kept_apart(tmp_path: Path, photos: Path) -> None:
    (photos / "05-blue.png").write_bytes(plain("blue")[:50])
    (photos / "07-green.png").write_bytes(b"%!PS")
    with pytest.raises(InvalidInput) as caught:
        run(tmp_path, str(photos))
    assert caught.value.message == f"{photos}/05-blue.png, 'photo': is cut short: the file ends before the picture does"
    rejects = tmp_path / "rejects.csv"
    rows, _ = run(tmp_path, str(photos), rejects=rejects)
    assert len(rows) == 35
    with rejects.open(newline="") as file:
        kept = [(row["row"], row["field"], row["reason"], row["value"]) for row in csv.DictReader(file)]
    assert kept == [
        ("6", "photo", "is cut short: the file ends before the picture does", "05-blue.png"),
        ("8", "photo", "is PostScript, and no JPEG, PNG or WEBP picture", "07-green.png"),
    ]
    (photos / "rows.csv").write_text("photo\nnone.png\n\nhello\n")
    with pytest.raises(InvalidInput, match=r"row 1 .*cannot be read: No such file"):
        run(tmp_path, str(photos / "rows.csv"))


def test_folders_without_pictures_and_models_without_are_refused(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty holds no pictures"):
        run(tmp_path, str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="is a folder"):
        run(tmp_path, str(photos), signature=bundles.IRIS)
    with pytest.raises(UsageError, match="has no column 'factor'"):
        run(tmp_path, str(photos), signature=BESIDE)


def test_the_verb_labels_a_folder(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELPORT_CACHE", str(tmp_path / "cache"))
    Path("colours.onnx").write_bytes(network())
    Path("labels.txt").write_text("\n".join(COLOURS))
    words = ["predict", "colours.onnx", "photos/", "--image", "8", "--labels", "labels.txt", "-o", "answers/"]
    Path("answers").mkdir()
    done = CliRunner().invoke(modelport, words)
    assert done.exit_code == 0, done.output
    with Path("answers/photos.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 37
    assert all(row["prediction"] in row["image"].lower() for row in rows)
