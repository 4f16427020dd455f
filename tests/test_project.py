"""modelport.toml states once what would otherwise be flags; a wrong key or value is named before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelport import project
from modelport.errors import SignatureError, UsageError
from modelport.signature import Field

WHOLE = """
name = "shipping"
model = "models/model.pkl"
sample = "sample.csv"
target = "paid"
output = ["shipping_estimated_price"]
code = ["my_code.py"]
data = ["train.csv"]
title = "Shipping price"

[metric]
rmse = 4.1

[label]
team = "pricing"

[[inputs]]
name = "price (€)"
kind = "number"
minimum = 0
"""


def read(tmp_path: Path, text: str) -> project.Project:
    (tmp_path / project.FILE).write_text(text, encoding="utf-8")
    return project.read(tmp_path / project.FILE)


def test_a_whole_project_is_read_and_its_paths_are_from_its_folder(tmp_path: Path) -> None:
    made = read(tmp_path, WHOLE)
    assert made.model == tmp_path / "models" / "model.pkl"
    schema = made.options["schema"]
    assert schema.inputs == (Field("price (€)", "number", minimum=0),)
    assert {key: value for key, value in made.options.items() if key != "schema"} == {
        "name": "shipping",
        "sample": tmp_path / "sample.csv",
        "target": "paid",
        "output": ["shipping_estimated_price"],
        "code": [tmp_path / "my_code.py"],
        "data": [tmp_path / "train.csv"],
        "title": "Shipping price",
        "metric": {"rmse": 4.1},
        "label": {"team": "pricing"},
    }


def test_a_folder_without_the_file_is_no_project_and_an_empty_file_is_one(tmp_path: Path) -> None:
    assert project.find(tmp_path) is None
    assert read(tmp_path, "\ufeff# with a byte order mark\n").options == {}
    assert project.find(tmp_path) == project.Project(tmp_path, None, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "does not read as TOML: "),
        ('modle = "a.pkl"', "has no 'modle'; did you mean \"model\"?"),
        ("name = 7", "name is 7"),
        ('output = "price"', "output is 'price'"),
        ("code = [1]", "code is [1]"),
        ('metric = "rmse=4.1"', "metric is 'rmse=4.1'"),
        ('[metric]\nrmse = "low"', "metric is {'rmse': 'low'}"),
        ("[metric]\nok = true", "metric is {'ok': True}"),
        ("[metric]\nrmse = nan", "metric is {'rmse': nan}"),
        ("[metric]\nrmse = 1" + "0" * 400, "metric is {'rmse': 10000000"),
        ("[label]\nteam = 7", "label is {'team': 7}"),
        ('schema = "s.json"\n[[inputs]]\nname = "a"\nkind = "number"', "has both 'schema' and 'inputs'"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_file(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(str(tmp_path / "modelport.toml"))
    assert words in caught.value.message


def test_a_field_stated_wrongly_is_named_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(SignatureError) as caught:
        read(tmp_path, '[[inputs]]\nname = "a"\nkind = "number"\nminimun = 1')
    assert caught.value.message == f"{tmp_path / 'modelport.toml'}: field 'a' has no 'minimun'; did you mean \"minimum\"?"


def test_how_a_model_is_trained_is_a_command_and_its_files_are_from_the_project(tmp_path: Path) -> None:
    made = read(tmp_path, '[train]\ncommand = "python -m \'my training\' --fast"\nmetrics = "out/m.json"\nrequirements = "r.txt"')
    assert made.train == project.Train(("python", "-m", "my training", "--fast"), tmp_path / "out" / "m.json", tmp_path / "r.txt")
    assert read(tmp_path, '[train]\ncommand = ["make", "model"]').train == project.Train(("make", "model"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train = 7", "train is 7"),
        ("[train]", "[train] command is None"),
        ('[train]\ncommand = ""', "[train] command is ''"),
        ("[train]\ncommand = []", "[train] command is []"),
        ("[train]\ncommand = [1]", "[train] command is [1]"),
        ('[train]\ncommand = "python \'train.py"', "No closing quotation"),
        ('[train]\ncommand = "make"\nmetric = "m.json"', "[train] has no 'metric'; did you mean \"metrics\"?"),
        ('[train]\ncommand = "make"\nmetrics = 7', "[train] metrics is 7"),
        ('[train]\ncommand = "make"\nrequirements = ["a"]', "[train] requirements is ['a']"),
    ],
)
def test_a_wrong_word_about_training_is_named_with_the_file(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(str(tmp_path / "modelport.toml"))
    assert words in caught.value.message


def test_a_description_is_text_or_the_markdown_file_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "about.md").write_text("\ufeff# Iris\n\nThree *kinds*.\n", encoding="utf-8")
    assert project.description("Three kinds of it.") == "Three kinds of it."
    assert project.description("See about.md\nand more.md") == "See about.md\nand more.md"
    assert project.description(read(tmp_path, 'description = "about.md"').options["description"]) == "# Iris\n\nThree *kinds*."
    assert read(tmp_path, 'description = "Three kinds."').options == {"description": "Three kinds."}


def test_a_description_that_does_not_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        project.description(tmp_path / "nosuch.md")
    assert "nosuch.md does not read" in caught.value.message
    (tmp_path / "long.md").write_text("a" * 100_001)
    with pytest.raises(UsageError) as caught:
        project.description(str(tmp_path / "long.md"))
    assert "has 100,001 characters; at most 100,000 are taken" in caught.value.message
