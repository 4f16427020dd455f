"""A signature is put together: what is stated before a sample, a sample before the model; what nobody knows is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelport import samples
from modelport.errors import SignatureError
from modelport.frameworks import Card
from modelport.inference import infer, with_computable_range
from modelport.signature import MAX_NUMBER, Columns, Field, Signature

NAMED = Card("sklearn", "sklearn.svm._classes.SVC", "scikit-learn", features=("age", "city"))
NUMBERED = Card("sklearn", "sklearn.svm._classes.SVC", "scikit-learn")
PREDICTION = (Field("prediction", "number"),)


def model(*inputs: Field, outputs: tuple[Field, ...] = PREDICTION) -> Signature:
    return Signature(inputs, outputs)


def numbered(count: int) -> Signature:
    return model(*(Field(f"x{index}", "number") for index in range(count)))


AGE_CITY = model(Field("age", "number"), Field("city", "unknown"))


def made(described: Signature, card: Card = NAMED, sample: Any = None, stated: Any = None, outputs: tuple[str, ...] = ()) -> Signature:
    read = None if sample is None else samples.from_object(sample)
    return infer(described, card, read, None if stated is None else Signature.from_dict(stated), outputs)


def refusal(*args: Any, **options: Any) -> SignatureError:
    with pytest.raises(SignatureError) as caught:
        made(*args, **options)
    return caught.value


def test_what_cannot_be_inferred_is_asked_for_in_one_message_that_names_the_flags() -> None:
    error = refusal(AGE_CITY)
    assert error.message == "this SVC does not say what 'city' holds"
    assert error.hint == "Give --sample FILE with a few real input rows, or state the fields with --schema FILE."
    assert refusal(model(Field("a", "unknown"), Field("b", "unknown"))).message == "this SVC does not say what 'a', 'b' hold"
    assert refusal(Signature((), PREDICTION)).message == "this SVC does not say what goes in"
    assert refusal(AGE_CITY, sample={"age": [1], "city": [None]}).message == "this SVC does not say what 'city' holds"


def test_a_sample_says_what_the_model_does_not_know() -> None:
    signature = made(AGE_CITY, sample={"extra": [1], "city": ["Oslo", None][:1], "age": [31]})
    assert [(field.name, field.kind, field.example) for field in signature.inputs] == [("age", "integer", 31), ("city", "string", "Oslo")]
    assert signature.example() == {"age": 31, "city": "Oslo"}


def test_what_is_stated_comes_before_the_sample_and_the_sample_before_the_model() -> None:
    described = model(Field("age", "number", example=0.5), Field("city", "string", choices=("Rome",)))
    sample = {"age": [31], "city": ["Oslo"]}
    stated = {"inputs": [{"name": "city", "kind": "category", "choices": ["Bergen", "Oslo"]}]}
    signature = made(described, sample=sample, stated=stated)
    assert signature.inputs == (Field("age", "integer", example=31), Field("city", "category", choices=("Bergen", "Oslo"), example="Oslo"))
    assert made(described).inputs[0].example == 0.5


def test_a_partial_schema_states_some_fields_and_the_others_stay() -> None:
    stated = {"inputs": [{"name": "age", "kind": "number", "minimum": 18, "description": "in years"}]}
    signature = made(model(Field("age", "number", dtype="float32", example=3.0), Field("city", "string", nullable=True)), stated=stated)
    assert signature.inputs[0] == Field("age", "number", dtype="float32", minimum=18, example=18.0, description="in years")
    assert signature.inputs[1] == Field("city", "string", nullable=True, example="text")


def test_a_schema_that_names_no_input_of_the_model_is_refused() -> None:
    error = refusal(AGE_CITY, stated={"inputs": [{"name": "ciyt", "kind": "string"}]})
    assert error.message == "the schema states 'ciyt', which is no input of the model; did you mean \"city\"?"
    assert error.hint == "Its inputs: age, city."


def test_a_model_trained_on_a_matrix_takes_its_names_from_the_sample_or_the_schema() -> None:
    frame = pd.DataFrame({"length (cm)": [1.5], "class": [2]})
    assert [field.name for field in made(numbered(2), NUMBERED, frame).inputs] == ["length (cm)", "class"]
    assert [field.name for field in made(numbered(2), NUMBERED, np.ones((2, 2))).inputs] == ["x0", "x1"]
    stated = {"inputs": [{"name": "length", "kind": "number"}, {"name": "width", "kind": "number"}]}
    assert [field.name for field in made(numbered(2), NUMBERED, stated=stated).inputs] == ["length", "width"]
    assert [field.name for field in made(numbered(2), NUMBERED, stated={"inputs": [{"name": "x1", "kind": "integer"}]}).inputs] == [
        "x0",
        "x1",
    ]


def test_a_sample_with_another_number_of_columns_is_refused_and_the_target_thought_of() -> None:
    error = refusal(numbered(2), NUMBERED, pd.DataFrame({"a": [1], "b": [2], "species": ["setosa"]}))
    assert error.message == "the sample has 3 columns, the model takes 2"
    assert "--target" in error.hint


def test_a_sample_that_lacks_a_column_is_refused_with_the_nearest_one() -> None:
    error = refusal(AGE_CITY, sample={"Age": [1], "city": ["Oslo"]})
    assert error.message == "the sample has no column 'age', which the model wants; did you mean \"Age\"?"


def test_a_name_in_which_lightgbm_put_underscores_for_spaces_is_the_samples_own_again() -> None:
    signature = made(
        model(Field("living_area_(m²)", "number"), Field("rooms", "integer")), sample={"rooms": [2], "living area (m²)": [50.5]}
    )
    assert [field.name for field in signature.inputs] == ["living area (m²)", "rooms"]


def test_strings_where_the_model_wants_numbers_are_refused() -> None:
    error = refusal(model(Field("age", "number")), sample={"age": ["old"]})
    assert error.message == "column 'age' of the sample holds 'old', and the model wants numbers there"


def test_a_text_model_takes_the_name_of_its_column_from_the_sample() -> None:
    described = model(Field("text", "text"))
    assert made(described, NUMBERED, ["good"]).inputs == (Field("text", "text", example="good"),)
    assert made(described, NUMBERED, {"review": ["bad"]}).inputs == (Field("review", "text", example="bad"),)
    assert made(described, NUMBERED).inputs == (Field("text", "text", example="some text"),)


def test_integers_of_the_model_stay_integers_when_the_sample_has_fractions() -> None:
    described = model(Field("count", "integer", dtype="int64"), Field("flag", "boolean", dtype="bool"))
    signature = made(described, Card("onnx", "ONNX", "onnx", features=("count", "flag")), {"count": [1.5], "flag": [1]})
    assert [field.kind for field in signature.inputs] == ["integer", "boolean"]
    assert signature.example() == {"count": 0, "flag": False}


def test_a_number_whose_dtype_would_cut_off_fractions_is_refused() -> None:
    stated = {"inputs": [{"name": "age", "kind": "number", "dtype": "int32"}]}
    assert "would cut off fractions" in refusal(model(Field("age", "number")), stated=stated).message


def test_the_example_always_fits_its_field() -> None:
    cases = [
        {"kind": "number", "minimum": 5},
        {"kind": "number", "maximum": -2.5},
        {"kind": "number", "maximum": 0},
        {"kind": "integer", "minimum": 0.5},
        {"kind": "integer", "minimum": -3, "maximum": -1},
        {"kind": "boolean"},
        {"kind": "category", "choices": ["a", "b"]},
        {"kind": "string", "choices": ["a", "b"]},
        {"kind": "datetime"},
        {"kind": "text"},
        {"kind": "json"},
        {"kind": "tensor", "shape": [-1, 2], "dtype": "int8"},
    ]
    for case in cases:
        signature = made(model(Field("f", "unknown", example="of another kind")), NAMED, stated={"inputs": [{"name": "f", **case}]})
        assert signature.columns([signature.example()]), case


def test_an_example_stated_wrongly_is_refused() -> None:
    stated = {"inputs": [{"name": "age", "kind": "number", "example": "old"}, {"name": "city", "kind": "string"}]}
    assert refusal(AGE_CITY, stated=stated).message == "the example of field 'age': expected a number, got the string \"old\""


# Outputs

CLASSES = ("no", "yes")
CLASSIFIER = (Field("prediction", "category", choices=CLASSES), Field("probabilities", "number", shape=(2,), choices=CLASSES))
VECTOR = (Field("prediction", "number", shape=(2,)),)


def outputs(fields: tuple[Field, ...], *names: str, stated: Any = None) -> tuple[Field, ...]:
    return made(model(Field("a", "number"), outputs=fields), NAMED, None, stated, names).outputs


def test_output_names_one_output_several_or_the_elements_of_a_vector() -> None:
    assert [field.name for field in outputs(PREDICTION, "price")] == ["price"]
    assert [field.name for field in outputs(CLASSIFIER, "answer")] == ["answer", "probabilities"]
    assert [field.name for field in outputs(CLASSIFIER, "answer", "chances")] == ["answer", "chances"]
    assert outputs(VECTOR, "length", "width") == (Field("prediction", "number", shape=(2,), choices=("length", "width")),)
    assert outputs(VECTOR, "size")[0].name == "size"


def test_more_names_than_outputs_or_one_name_for_two_are_refused() -> None:
    for fields, names, words in (
        (PREDICTION, ("a", "b"), "2 outputs are named, the model has 1"),
        (VECTOR, ("a", "b", "c"), "3 outputs are named, the model has 1"),
        (VECTOR, ("a", "a"), "2 outputs are named, the model has 1"),
        (CLASSIFIER, ("probabilities",), "two outputs are called 'probabilities'"),
        ((), ("a",), "1 outputs are named, the model has 0"),
    ):
        with pytest.raises(SignatureError) as caught:
            outputs(fields, *names)
        assert caught.value.message == words


def test_stated_outputs_name_and_describe_and_must_not_contradict_the_model() -> None:
    stated = {"outputs": [{"name": "price", "kind": "number", "description": "in euros"}]}
    assert outputs(PREDICTION, stated=stated) == (Field("price", "number", description="in euros"),)
    assert outputs(CLASSIFIER, stated={"outputs": [{"name": "answer", "kind": "string"}]})[0].kind == "category"
    with pytest.raises(SignatureError, match="the schema states a string as output 'price', the model gives a number"):
        outputs(PREDICTION, stated={"outputs": [{"name": "price", "kind": "string"}]})


# The range in which a model computes


def bounds(described: Signature, predict: Any) -> list[tuple[float | None, float | None]]:
    signature = with_computable_range(made(described), predict)
    return [(field.minimum, field.maximum) for field in signature.inputs]


def test_a_model_that_computes_everywhere_gets_no_bounds() -> None:
    assert bounds(model(Field("a", "number")), lambda columns: {"prediction": np.tanh(columns["a"])}) == [(None, None)]


def test_the_largest_magnitude_that_can_be_computed_is_measured() -> None:
    def single(columns: Columns) -> Columns:
        return {"prediction": columns["a"].astype(np.float32)}

    def squared(columns: Columns) -> Columns:
        return {"prediction": columns["a"] ** 2}

    def raising(columns: Columns) -> Columns:
        if np.abs(columns["a"]).max() > 1e12:
            raise ValueError("too large")
        return {"prediction": columns["a"]}

    largest = 3.4028234663852886e38
    assert bounds(model(Field("a", "number")), single) == [(-largest, largest)]
    assert bounds(model(Field("a", "number")), squared) == [(-1e150, 1e150)]
    assert bounds(model(Field("a", "number")), raising) == [(-1e12, 1e12)]


def test_stated_bounds_and_other_kinds_stay_and_integers_keep_to_their_own_range() -> None:
    def product(columns: Columns) -> Columns:
        return {"prediction": columns["a"] * columns["b"] * columns["n"]}

    fields = (Field("a", "number", minimum=0), Field("b", "number", minimum=0, maximum=1), Field("n", "integer"), Field("s", "string"))
    assert bounds(model(*fields), product) == [(0, 1e150), (0, 1), (None, None), (None, None)]


def test_a_model_that_computes_nowhere_is_left_as_it_is() -> None:
    assert bounds(model(Field("a", "number")), lambda columns: {"prediction": columns["a"] * np.nan}) == [(None, None)]


@pytest.mark.parametrize("kind", ["forest", "xgboost", "polynomial"])
def test_real_models_answer_with_numbers_at_the_bounds_they_are_given(kind: str) -> None:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures
    from xgboost import XGBRegressor

    models: dict[str, Any] = {
        "forest": RandomForestRegressor(3, random_state=0),
        "xgboost": XGBRegressor(n_estimators=3, max_depth=2, n_jobs=1),
        "polynomial": make_pipeline(PolynomialFeatures(3), LinearRegression()),
    }
    matrix = np.random.default_rng(0).normal(size=(50, 2))
    fitted = models[kind].fit(matrix, matrix.sum(axis=1))

    def predict(columns: Columns) -> Columns:
        return {"prediction": fitted.predict(np.column_stack([columns["x0"], columns["x1"]]))}

    signature = with_computable_range(made(numbered(2), NUMBERED), predict)
    low, high = signature.inputs[0]._lowest(), signature.inputs[0]._highest()
    assert kind == "xgboost" or high < MAX_NUMBER
    rows = [{"x0": x, "x1": y} for x in (low, 0, high) for y in (low, 0, high)]
    assert len(signature.records(predict(signature.columns(rows)))) == 9


def test_five_thousand_columns_are_probed() -> None:
    signature = with_computable_range(made(numbered(5000), NUMBERED), lambda columns: {"prediction": columns["x4999"].astype(np.float32)})
    assert signature.inputs[0].maximum == 3.4028234663852886e38
