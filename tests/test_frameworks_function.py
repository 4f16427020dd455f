"""A .py file with functions is a model: annotations and docstrings are its signature, and its errors are told to whom they concern."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import msgspec
import numpy as np
import pytest

from modelport import engines, inspection
from modelport.batch import predict as predict_files
from modelport.bundle import Bundle
from modelport.engines import Engine
from modelport.errors import InvalidInput, ModelContract, ModelFailed, ModelFileError, ModelportError, SignatureError, Untrusted, UsageError
from modelport.frameworks import function
from modelport.frameworks.annotations import value_of
from modelport.frameworks.docstrings import described
from modelport.gates import check_bundle
from modelport.packing import Options, pack_file
from modelport.signature import Field, WrongValue, check
from modelport.testing import check_framework


def write(folder: Path, source: str, name: str = "service.py") -> Path:
    path = folder / name
    path.write_text(dedent(source), encoding="utf-8")
    return path


def load(folder: Path, source: str) -> Engine:
    path = write(folder, source)
    card = inspection.inspect(path).card
    assert card is not None
    return engines.load_model(path, card)


def pack(folder: Path, source: str, **options: Any) -> Bundle:
    return pack_file(write(folder, source), Path(tempfile.mkdtemp(dir=folder)), Options(**options))


def refused(folder: Path, source: str, **options: Any) -> ModelportError:
    with pytest.raises(ModelportError) as raised:
        pack(folder, source, **options)
    return raised.value


PRICE = '''
    from typing import Annotated, Literal
    from msgspec import Meta

    def predict(
        weight: Annotated[float, Meta(gt=0, le=30)],
        country: Literal["DE", "AT", "CH"] = "DE",
        pieces: Annotated[int, Meta(ge=1, description="how many")] = 1,
        note: str | None = None,
        express: bool = False,
    ) -> float:
        """What it costs to send a parcel.

        Longer words about it.

        Args:
            weight (float): kilograms,
                with the box
            country: where it goes
        """
        return weight * pieces * {"DE": 1.0, "AT": 2.0, "CH": 3.0}[country] + express
'''


# What the annotations say


def test_annotations_defaults_limits_and_docstrings_become_the_signature(tmp_path: Path) -> None:
    signature = load(tmp_path, PRICE).described
    assert signature.inputs == (
        Field("weight", "number", minimum=5e-324, maximum=30, description="kilograms, with the box"),
        Field("country", "category", choices=("DE", "AT", "CH"), default="DE", example="DE", description="where it goes"),
        Field("pieces", "integer", minimum=1, default=1, example=1, description="how many"),
        Field("note", "string", nullable=True),
        Field("express", "boolean", default=False, example=False),
    )
    assert signature.outputs == (Field("prediction", "number"),)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Pair(NamedTuple):
    x: int
    y: int = 2


class Options_(TypedDict, total=False):
    colour: Colour


class Box(msgspec.Struct):
    width: Annotated[float, msgspec.Meta(ge=0)]
    tags: list[str] = []


class Limit:
    """As annotated_types has them."""

    def __init__(self, **limits: float) -> None:
        vars(self).update(limits)

    def __repr__(self) -> str:
        return f"Limit({vars(self)})"


Kilograms = NewType("Kilograms", float)

ANNOTATIONS: list[tuple[Any, Field, Any, Any, Any]] = [
    (bool, Field("", "boolean"), True, True, True),
    (int, Field("", "integer"), 3, 3, np.int64(3)),
    (float, Field("", "number"), 3, 3.0, np.float32(3)),
    (int | float, Field("", "number"), 3, 3.0, 3),
    (Kilograms, Field("", "number"), 1.5, 1.5, 1.5),
    (str, Field("", "string"), "a", "a", "a"),
    (float | None, Field("", "number", nullable=True), None, None, float("nan")),
    (Literal["a", 1, None], Field("", "category", choices=("a", 1), nullable=True), "a", "a", "a"),
    (Literal["a"] | Literal["b"], Field("", "category", choices=("a", "b")), "b", "b", "b"),
    (Colour, Field("", "category", choices=("red", "blue")), "red", Colour.RED, Colour.RED),
    (datetime, Field("", "datetime"), "2024-01-31T12:00:00Z", datetime(2024, 1, 31, 12, tzinfo=UTC), datetime(2024, 1, 31, 12, tzinfo=UTC)),
    (date, Field("", "datetime", schema={"type": "string", "format": "date"}), "2024-01-31", date(2024, 1, 31), date(2024, 1, 31)),
    (list[float], Field("", "tensor", dtype="float64", shape=(-1,)), [1, 2.5], [1.0, 2.5], np.array([1, 2.5])),
    (tuple[int, int], Field("", "tensor", dtype="int64", shape=(2,)), [1, 2], (1, 2), (1, 2)),
    (list[list[float]], Field("", "tensor", dtype="float64", shape=(-1, -1)), [[1, 2]], [[1.0, 2.0]], [[1, 2]]),
    (Annotated[float, Limit(ge=0, lt=1)], Field("", "number", minimum=0, maximum=np.nextafter(1.0, 0.0)), 0.5, 0.5, 0.5),
    (Annotated[int, Limit(gt=0), "how many"], Field("", "integer", minimum=1, description="how many"), 1, 1, 1),
    (Annotated[int, msgspec.Meta(examples=[7])], Field("", "integer", example=7), 7, 7, 7),
]


@pytest.mark.parametrize(("annotation", "field", "given", "made", "returned"), ANNOTATIONS, ids=[str(row[0]) for row in ANNOTATIONS])
def test_an_annotation_is_a_field_and_the_way_from_json_and_back(
    annotation: Any, field: Field, given: Any, made: Any, returned: Any
) -> None:
    value = value_of(annotation, "here")
    assert value.field == field
    errors: list[Any] = []
    got = value.make(check(value.field, given), (), errors)
    assert (got, type(got), errors) == (made, type(made), [])
    assert value.plain(returned) == given
    assert type(value.plain(returned)) is type(given) or isinstance(given, int | float)


RECORDS: list[tuple[Any, Any, Any]] = [
    (Pair, {"x": 1}, Pair(1, 2)),
    (Box, {"width": 2, "tags": ["a"]}, Box(2.0, ["a"])),
    (list[Box], [{"width": 1}], [Box(1.0, [])]),
    (dict[str, Box], {"a": {"width": 1}}, {"a": Box(1.0, [])}),
    (Options_, {}, {}),
    (Options_, {"colour": "red"}, {"colour": Colour.RED}),
    (tuple[str, ...], ["a", "b"], ("a", "b")),
    (dict, {"any": [1, None]}, {"any": [1, None]}),
    (Any, [1, {"a": None}], [1, {"a": None}]),
    (Box | None, None, None),
]


@pytest.mark.parametrize(("annotation", "given", "made"), RECORDS, ids=[f"{row[0]} {row[1]}" for row in RECORDS])
def test_records_and_lists_are_made_of_json_of_any_depth(annotation: Any, given: Any, made: Any) -> None:
    value = value_of(annotation, "here")
    errors: list[Any] = []
    assert value.make(check(value.field, given), (), errors) == made
    assert errors == []


def test_a_made_example_of_a_day_is_one_inside_a_record_too() -> None:
    @dataclass
    class Stay:
        arrival: date
        booked: datetime
        days: list[date]

    assert value_of(Stay, "here").field.example == {
        "arrival": "2024-01-01",
        "booked": "2024-01-01T00:00:00Z",
        "days": ["2024-01-01"],
    }


def test_every_wrong_value_inside_a_record_is_named_by_its_place() -> None:
    errors: list[Any] = []
    value_of(list[Box], "here").make([{"width": -1, "tags": ["a", 2]}, {"widht": 1}, 3], ("boxes",), errors)
    assert [(error.pointer, error.detail) for error in errors] == [
        ("/boxes/0/width", "expected a number of at least 0, got -1"),
        ("/boxes/1/widht", 'there is no field "widht"; did you mean "width"?'),
        ("/boxes/1/width", "is missing: expected a number"),
        ("/boxes/2", "expected an object with the fields width, tags, got the number 3"),
    ]
    errors.clear()
    value_of(Box, "here").make({"width": 1, "tags": ["a", 2]}, (), errors)
    assert [(error.pointer, error.detail) for error in errors] == [("/tags/1", "expected a string, got the number 2")]


def test_the_schema_of_a_record_is_that_of_json_schema() -> None:
    assert value_of(list[Box], "here").field.schema == {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "width": {"type": "number", "minimum": 0, "maximum": 1.7976931348623157e308},
                "tags": {"type": "array", "items": {"type": "string"}, "examples": [[]], "default": []},
            },
            "required": ["width"],
            "additionalProperties": False,
            "examples": [{"width": 0.0, "tags": []}],
        },
    }


class Loop(TypedDict):
    inner: Loop


UNKNOWN = {
    "a union": (int | str, "int | str"),
    "bytes": (bytes, "bytes"),
    "a function": (type(lambda: 0), "function"),
    "keys that are no strings": (dict[int, str], "dict[int, str]"),
    "a mixed tuple": (tuple[int, str], "parts differ"),
    "a record in itself": (Loop, "refers to itself"),
    "a limit of texts": (Annotated[str, msgspec.Meta(min_length=2)], "min_length"),
    "limits of what is no number": (Annotated[str, Limit(ge=1)], "is a string"),
    "a limit that is none": (Annotated[int, Limit(ge="1")], "ge='1'"),
    "None": (None, "None"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_annotation_that_no_field_can_hold_is_refused_by_name(name: str) -> None:
    annotation, words = UNKNOWN[name]
    with pytest.raises(SignatureError) as raised:
        value_of(annotation, "predict(): x")
    assert words in raised.value.message
    assert raised.value.message.startswith("predict(): x")


WRONG_ANSWERS: list[tuple[Any, Any, str]] = [
    (float, "a", 'expected a number, got the string "a"'),
    (float, float("nan"), "expected a finite number, got nan"),
    (int, 1.5, "expected an integer, got the number 1.5"),
    (str, None, "is null: expected a string"),
    (list[float], 3, "expected a list, got a number"),
    (list[Pair], [Pair(1, 2), Pair(1, "b")], '1: y: expected an integer, got the string "b"'),  # type: ignore[arg-type]
    (Pair, {"x": 1, "z": 2}, "there is no field 'z'"),
    (Box, {"tags": []}, "'width' is missing"),
    (Box, Pair(1, 2), "expected Box, got"),
    (Any, object(), "expected what JSON can hold"),
]


@pytest.mark.parametrize(("annotation", "answer", "words"), WRONG_ANSWERS)
def test_an_answer_that_is_not_what_was_annotated_says_where(annotation: Any, answer: Any, words: str) -> None:
    with pytest.raises(WrongValue) as raised:
        value_of(annotation, "here").plain(answer)
    assert words in str(raised.value)


DOCSTRINGS = {
    "Google": """Says what it does.

        More of it.

        Args:
            days (int): how many days,
                at least one
            *rest: and more

        Returns:
            days: not this
        """,
    "numpy": """Says what it does.

        More of it.

        Parameters
        ----------
        days : int
            how many days,
            at least one
        rest
            and more

        Returns
        -------
        float
        """,
    "Sphinx": """Says what it does.

        More of it.

        :param int days: how many days,
            at least one
        :param rest: and more
        :returns: a number
        """,
}


@pytest.mark.parametrize("form", DOCSTRINGS)
def test_docstrings_of_three_forms_describe_parameters(form: str) -> None:
    said, about = described(DOCSTRINGS[form])
    assert said == "Says what it does.\n\nMore of it."
    assert about == {"days": "how many days, at least one", "rest": "and more"}


def test_a_docstring_without_sections_is_all_text() -> None:
    assert described("Note: this is prose.\nParameters are below.") == ("Note: this is prose.\nParameters are below.", {})
    assert described(None) == ("", {})


# Calls


def test_a_function_answers_rows_with_its_defaults(tmp_path: Path) -> None:
    engine = load(tmp_path, PRICE)
    assert engine.answer([{"weight": 2}, {"weight": 1.5, "country": "CH", "pieces": 2, "express": True}]) == [
        {"prediction": 2.0},
        {"prediction": 10.0},
    ]


def test_a_record_in_and_a_record_out_are_inputs_and_outputs_by_name(tmp_path: Path) -> None:
    source = """
        from dataclasses import dataclass
        from typing import TypedDict

        @dataclass
        class Flower:
            '''A flower.

            Attributes:
                petal: its length, cm
            '''
            petal: float
            sepal: float = 1.0

        class Answer(TypedDict):
            species: str
            share: float | None

        def predict(flower: Flower) -> Answer:
            return {"species": type(flower).__name__, "share": flower.petal / flower.sepal if flower.sepal else None}
        """
    engine = load(tmp_path, source)
    assert engine.described.inputs == (
        Field("petal", "number", description="its length, cm"),
        Field("sepal", "number", default=1.0, example=1.0),
    )
    assert engine.described.outputs == (Field("species", "string"), Field("share", "number", nullable=True))
    assert engine.answer([{"petal": 3}, {"petal": 3, "sepal": 0}]) == [
        {"species": "Flower", "share": 3.0},
        {"species": "Flower", "share": None},
    ]


def test_lists_of_records_and_of_numbers_are_tables_and_series(tmp_path: Path) -> None:
    source = """
        from dataclasses import dataclass
        from datetime import date, timedelta

        @dataclass
        class Point:
            day: date
            count: float

        def predict(start: date, days: int) -> list[Point]:
            return [Point(start + timedelta(day), day) for day in range(days)]

        def doubled(days: int) -> list[float]:
            return [2.0 * day for day in range(days)]
        """
    bundle = pack(tmp_path, source)
    engine, doubled = engines.load(bundle), engines.load_functions(bundle)["doubled"]
    assert engine.answer([{"start": "2024-02-28", "days": 2}, {"start": "2024-01-01", "days": 0}]) == [
        {"prediction": [{"day": "2024-02-28", "count": 0.0}, {"day": "2024-02-29", "count": 1.0}]},
        {"prediction": []},
    ]
    assert doubled.answer([{"days": 3}, {"days": 1}]) == [{"doubled": [0.0, 2.0, 4.0]}, {"doubled": [0.0]}]
    assert bundle.functions["doubled"].signature.outputs == (Field("doubled", "tensor", dtype="float64", shape=(-1,)),)


def test_what_may_be_missing_inside_a_table_is_null(tmp_path: Path) -> None:
    source = """
        from dataclasses import dataclass

        @dataclass
        class Row:
            name: str
            count: float | None

        def predict(n: int = 2) -> list[Row]:
            return [Row(str(at), None if at else 1.0) for at in range(n)]
        """
    rows = [{"name": "0", "count": 1.0}, {"name": "1", "count": None}]
    assert engines.load(pack(tmp_path, source)).answer([{}]) == [{"prediction": rows}]


def test_async_functions_are_awaited_together(tmp_path: Path) -> None:
    source = """
        import asyncio

        waiting = []

        async def load():
            await asyncio.sleep(0)
            return 10

        async def predict(base, x: int) -> int:
            waiting.append(x)
            while len(waiting) < 3:
                await asyncio.sleep(0)
            return base + x
        """
    assert load(tmp_path, source).answer([{"x": 1}, {"x": 2}, {"x": 3}]) == [{"prediction": 11}, {"prediction": 12}, {"prediction": 13}]


def test_predict_batch_answers_for_predict(tmp_path: Path) -> None:
    source = """
        from typing import NamedTuple

        class Sums(NamedTuple):
            total: float
            label: str

        def predict(a: float, b: float = 1.0) -> Sums:
            raise AssertionError("not called")

        def predict_batch(columns):
            assert type(columns["a"]).__name__ == "ndarray"
            return {"total": columns["a"] + columns["b"], "label": ["x"] * len(columns["a"])}
        """
    assert load(tmp_path, source).answer([{"a": 1}, {"a": 2, "b": 3}]) == [
        {"total": 2.0, "label": "x"},
        {"total": 5.0, "label": "x"},
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [("[1.0]", "1 values for output 'prediction' of 2 rows"), ("['a', 'b']", "not annotated to"), ("{'other': [1]}", "no values for")],
)
def test_what_predict_batch_gives_is_checked(answer: str, words: str, tmp_path: Path) -> None:
    engine = load(tmp_path, f"def predict(a: float) -> float: ...\ndef predict_batch(columns): return {answer}\n")
    with pytest.raises(ModelContract, match=words):
        engine.answer([{"a": 1}, {"a": 2}])


def test_positional_and_keyword_only_parameters_are_passed_as_such(tmp_path: Path) -> None:
    engine = load(tmp_path, "def predict(a: int, /, b: int, *, c: int = 3) -> list[int]:\n    return [a, b, c]\n")
    assert engine.answer([{"a": 1, "b": 2}]) == [{"prediction": [1, 2, 3]}]


def test_what_a_function_raises_is_the_callers_or_the_models(tmp_path: Path) -> None:
    source = """
        from modelport import InvalidInput

        def predict(country: str) -> float:
            if country == "Atlantis":
                raise InvalidInput("country", "no figures for 'Atlantis'")
            return {"Norway": 1.0}[country]
        """
    engine = load(tmp_path, source)
    with pytest.raises(InvalidInput) as raised:
        engine.answer([{"country": "Atlantis"}])
    assert [(error.pointer, error.detail) for error in raised.value.errors] == [("/country", "no figures for 'Atlantis'")]
    with pytest.raises(ModelFailed, match="KeyError: 'Utopia'"):
        engine.answer([{"country": "Utopia"}])


def test_an_answer_that_is_not_as_annotated_breaks_the_contract(tmp_path: Path) -> None:
    with pytest.raises(ModelContract, match=r"predict\(\) returned what it is not annotated to: expected a number"):
        load(tmp_path, "def predict(a: int) -> float:\n    return 'dear'\n").answer([{"a": 1}])


# The file


def test_load_runs_once_for_all_functions_in_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_text('{"DE": 2.0}')
    (tmp_path / "beside.py").write_text("import json\n\ndef read(name):\n    with open(name) as file:\n        return json.load(file)\n")
    source = """
        from pathlib import Path
        import beside

        runs = []

        def load():
            runs.append(1)
            assert (Path(__file__).parent / "rates.json").read_text() == Path("rates.json").read_text()
            return beside.read("rates.json")

        def predict(rates, country: str = "DE") -> float:
            return rates[country]

        def times(rates, country: str = "DE") -> int:
            return len(runs)
        """
    here = Path.cwd()
    bundle = pack(tmp_path, source, include=[tmp_path / "rates.json"])
    assert sorted(bundle.files) == [
        "code/beside.py",
        "code/rates.json",
        "code/service.py",
        "example.json",
        "golden.json",
        "requirements.txt",
    ]
    assert bundle.model == "code/service.py"
    assert engines.load(bundle).answer([{}]) == [{"prediction": 2.0}]
    assert engines.load_functions(bundle)["times"].answer([{}]) == [{"times": 1}]
    assert Path.cwd() == here


def test_load_may_set_globals_instead(tmp_path: Path) -> None:
    source = """
        rate = 0.0

        def load() -> None:
            global rate
            rate = 4.0

        def predict(x: float) -> float:
            return rate * x
        """
    assert load(tmp_path, source).answer([{"x": 2}]) == [{"prediction": 8.0}]


def test_two_files_of_one_name_are_two_models(tmp_path: Path) -> None:
    made = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        made.append(load(folder, f"def predict(x: int) -> int:\n    return x + {number}\n"))
    assert [engine.answer([{"x": 1}]) for engine in made] == [[{"prediction": 2}], [{"prediction": 3}]]
    assert "service" not in sys.modules


PUBLIC = """
    __all__ = ["growth", "peak"]

    def growth(x: float) -> float:
        '''How much it grows.'''
        return x

    def peak(x: float) -> float:
        '''When.'''
        return -x

    def typed_helper(x: float) -> float:
        return x
"""


def test_all_says_what_is_public_and_the_first_is_asked_where_there_is_no_predict(tmp_path: Path) -> None:
    bundle = pack(tmp_path, PUBLIC)
    assert (bundle.function, list(bundle.functions)) == ("growth", ["peak"])
    assert (bundle.description, bundle.functions["peak"].description) == ("How much it grows.", "When.")


def test_what_is_not_annotated_or_gives_nothing_is_no_function_for_callers(tmp_path: Path) -> None:
    source = "def helper(x): ...\ndef main() -> None: ...\ndef _own(x: int) -> int: ...\ndef predict(x: int) -> int:\n    return x\n"
    card = inspection.inspect(write(tmp_path, source)).card
    assert card is not None
    assert card.details["not_served"] == ["helper", "main"]
    assert "other_functions" not in card.details


def test_a_bundle_of_functions_from_elsewhere_needs_trust(tmp_path: Path) -> None:
    bundle = pack(tmp_path, PRICE)
    with pytest.raises(Untrusted, match="brings Python code along"):
        check_bundle(bundle)
    check_bundle(bundle, trust=True)


def test_requirements_are_what_the_file_and_the_modules_beside_it_import(tmp_path: Path) -> None:
    (tmp_path / "alongside.py").write_text("import msgspec\n")
    source = "import alongside, json\nimport numpy as np\nfrom modelport import InvalidInput\ndef predict(x: int) -> int:\n    return x\n"
    bundle = pack(tmp_path, source)
    assert (bundle.folder / "requirements.txt").read_text().splitlines() == [f"msgspec=={msgspec.__version__}", f"numpy=={np.__version__}"]


def test_golden_rows_come_from_the_sample_and_kinds_from_the_annotations(tmp_path: Path) -> None:
    sample = {"weight": [1, 2, 3], "country": ["DE", "AT", "DE"]}
    bundle = pack(tmp_path, PRICE, sample=sample)
    golden = bundle.golden()
    assert golden is not None
    assert golden["rows"][1] == {"input": {"weight": 2, "country": "AT"}, "output": {"prediction": 4.0}}
    assert not golden["synthesised"]
    assert [field.kind for field in bundle.signature.inputs] == ["number", "category", "integer", "string", "boolean"]


def test_a_parameter_without_annotation_is_what_the_sample_holds(tmp_path: Path) -> None:
    source = "def predict(days) -> float:\n    return days / 2\n"
    assert "does not say what 'days' holds" in refused(tmp_path, source).message
    bundle = pack(tmp_path, source, sample={"days": [1, 2]})
    assert bundle.signature.inputs[0].kind == "integer"


def test_answers_that_change_are_asked_and_not_compared(tmp_path: Path) -> None:
    source = "import itertools\ncount = itertools.count()\ndef predict(x: int) -> int:\n    return next(count)\n"
    bundle = pack(tmp_path, source)
    golden = bundle.golden()
    assert golden is not None
    assert golden["tolerance"] is None
    assert engines.verify_golden(engines.load(bundle), bundle) == 1


def test_no_larger_numbers_are_tried_than_those_of_the_rows(tmp_path: Path) -> None:
    source = "seen = []\ndef predict(days: int = 3) -> list[int]:\n    seen.append(days)\n    return seen\n"
    assert engines.load(pack(tmp_path, source)).answer([{"days": 4}])[0]["prediction"] == [3, 3, 3, 4]


# Mistakes


MISTAKES: dict[str, tuple[str, type[ModelportError], str]] = {
    "syntax": ("def predict(x: int) -> int\n    return x\n", ModelFileError, "line 1"),
    "an error in the file": ("\nrate = 1 / 0\ndef predict(x: int) -> int: ...\n", ModelFileError, "service.py, line 2: ZeroDivisionError"),
    "an error in load": ("def load():\n    return {}['a']\ndef predict(d, x: int) -> int: ...\n", ModelFileError, "line 2: KeyError: 'a'"),
    "an exit in the file": (
        "import sys\nsys.exit(2)\ndef predict(x: int) -> int: ...\n", ModelFileError, "service.py, line 2: SystemExit: 2",
    ),
    "no parameter for what load returns": (
        "def load():\n    return {}\ndef predict() -> int: ...\n", SignatureError, "predict() has no parameter for what load() returns",
    ),
    "an input where what load returns is passed": (
        "def load():\n    return {}\ndef predict(x: int, y: int) -> int: ...\n",
        SignatureError,
        "predict() gets what load() returns, a dict, as its first argument, and 'x' is annotated int",
    ),
    "a module that is not here": ("import nosuch\ndef predict(x: int) -> int: ...\n", ModelFileError, "line 1: ModuleNotFoundError"),
    "a file that is not here": ("open('a.json')\ndef predict(x: int) -> int: ...\n", ModelFileError, "FileNotFoundError"),
    "no functions": ("X = 1\n", ModelFileError, "holds no model"),
    "no return annotation": ("def predict(x: int): ...\n", SignatureError, "predict() does not say what it returns"),
    "nothing in": ("def predict() -> int:\n    return 1\n", SignatureError, "what goes in"),
    "any number of arguments": ("def predict(*x: int) -> int: ...\n", SignatureError, "takes any number of arguments, in '*x: int'"),
    "a default of another kind": ("def predict(x: int = 'a') -> int: ...\n", SignatureError, "the default 'a' is not what is annotated"),
    "a name that is not there": ("def predict(x: 'Nosuch') -> int: ...\n", SignatureError, "name 'Nosuch' is not defined"),
    "a path that is taken": ("def predict(x: int) -> int: ...\ndef metrics(x: int) -> int: ...\n", SignatureError, "at /metrics itself"),
    "an example that ends the program": (
        "import sys\ndef predict(x: str) -> int:\n    sys.exit(0)\n", ModelFailed, "the model raised SystemExit: 0",
    ),
    "an example that fails": (
        "def predict(x: str) -> int:\n    return {'a': 1}[x]\n", ModelFailed, "predict() does not answer the example",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_file_is_told_when_it_is_packed(name: str, tmp_path: Path) -> None:
    source, kind, words = MISTAKES[name]
    error = refused(tmp_path, source)
    assert type(error) is kind
    assert words in error.message


def test_what_is_included_lies_below_the_file_and_is_there(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "outside.json").write_text("{}")
    assert "does not lie below" in refused(inner, PRICE, include=[tmp_path / "outside.json"]).message
    error = refused(inner, PRICE, include=[inner / "nosuch.json"])
    assert isinstance(error, UsageError)
    assert "there is no file" in error.message


def test_folders_are_included_with_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "data" / ".hidden").mkdir(parents=True)
    (tmp_path / "data" / ".hidden" / "no.txt").write_text("")
    (tmp_path / "data" / "deep").mkdir()
    (tmp_path / "data" / "deep" / "a.txt").write_text("")
    bundle = pack(tmp_path, PRICE, include=[tmp_path / "data"])
    assert [name for name in bundle.files if name.startswith("code/")] == ["code/data/deep/a.txt", "code/service.py"]


def test_packages_beside_the_file_come_along(tmp_path: Path) -> None:
    package = tmp_path / "rates_of_play"
    package.mkdir()
    (package / "__init__.py").write_text("from rates_of_play.inner import RATE\n")
    (package / "inner.py").write_text("RATE = 3\n")
    bundle = pack(tmp_path, "from rates_of_play import RATE\ndef predict(x: int) -> int:\n    return x * RATE\n")
    assert [name for name in bundle.files if name.startswith("code/")] == [
        "code/rates_of_play/__init__.py", "code/rates_of_play/inner.py", "code/service.py",
    ]  # fmt: skip
    assert engines.load(bundle).answer([{"x": 2}]) == [{"prediction": 6}]


def test_files_are_answered_with_defaults_for_the_columns_they_lack(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("weight\n2\n3.5\n")
    summary = predict_files(pack(tmp_path, PRICE), [str(tmp_path / "rows.csv")], str(tmp_path / "out.csv"))
    assert summary.absent == ("country", "pieces", "note", "express")
    assert (tmp_path / "out.csv").read_text().splitlines() == ["weight,prediction", "2,2", "3.5,3.5"]


def test_the_framework_keeps_the_contract(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    check_framework("function", write(tmp_path, PRICE), scratch, [{"weight": 1}, {"weight": 2.5, "country": "AT"}])


def test_imports_names_nothing() -> None:
    assert function.imports() == frozenset()
