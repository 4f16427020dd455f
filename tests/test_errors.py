"""The tree of errors: each says how the command line ends and what HTTP answers, and the page that describes them is the truth."""

from __future__ import annotations

import pickle
import re

import pytest

from modelport import errors
from modelport.errors import FieldError, InvalidInput, ModelportError, Refused, RequestError, UsageError, pointer


def tree(cls: type[ModelportError]) -> list[type[ModelportError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in tree(child))]


ALL = [cls for cls in tree(ModelportError) if cls.__module__ == errors.__name__]


def test_the_tree_drawn_in_the_module_is_the_tree_of_classes() -> None:
    drawn = {}
    ancestors: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        row = re.fullmatch(r"    ([│├└─ ]*)(\w+) +(\d) +(\d{3})   \S.*", line)
        if row:
            branch, name, exit_code, status = row.groups()
            ancestors = [*ancestors[: len(branch) // 4], name]
            drawn[name] = (ancestors[-2] if len(ancestors) > 1 else "Exception", int(exit_code), int(status))
    assert drawn == {cls.__name__: (cls.__bases__[0].__name__, cls.exit_code, cls.status) for cls in ALL}


def test_every_class_says_when_it_is_raised_and_has_a_code_and_a_title_of_its_own() -> None:
    for cls in ALL:
        assert re.match(r"(Raised when|Raised for|The root)", cls.__doc__ or ""), cls
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", cls.code)
    assert len({cls.code for cls in ALL}) == len(ALL)
    assert len({cls.title for cls in ALL}) == len(ALL)


def test_exit_codes_tell_wrong_use_from_a_gate_that_said_no() -> None:
    for cls in ALL:
        assert cls.exit_code == (2 if issubclass(cls, UsageError) else 3 if issubclass(cls, Refused) else 1)
    assert all(400 <= cls.status < 500 or cls.status in (503, 504) for cls in tree(RequestError))


def test_an_error_carries_its_message_and_what_to_do_next_and_survives_another_process() -> None:
    error = UsageError("--metric 'x' is no pair", hint="--metric rmse=4.1")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.message, again.hint) == (str(error), error.message, "--metric rmse=4.1")
    wrong = pickle.loads(pickle.dumps(InvalidInput([FieldError("/0/a", "is missing"), FieldError("/1/a", "is missing")], hint="Send it.")))
    assert (wrong.message, wrong.hint, len(wrong.errors)) == ("/0/a: is missing (and 1 more)", "Send it.", 2)


def test_a_models_own_code_names_the_field_that_is_wrong() -> None:
    error = InvalidInput("country/code", "no figures for 'Atlantis'")
    assert [one.to_dict() for one in error.errors] == [
        {"pointer": "/country~1code", "detail": "no figures for 'Atlantis'", "expected": "", "got": None}
    ]
    assert error.message == "/country~1code: no figures for 'Atlantis'"


@pytest.mark.parametrize(
    ("parts", "text"),
    [((), ""), ((3, "a"), "/3/a"), (("",), "/"), (("a/b", "m~n"), "/a~1b/m~0n"), (("~1",), "/~01"), (("ñ ",), "/ñ "), (("\ud800",), "/?")],
    ids=str,
)
def test_a_pointer_is_escaped_as_rfc_6901_says_and_is_always_utf_8(parts: tuple[str | int, ...], text: str) -> None:
    assert pointer(*parts) == text
    assert pointer(*parts).encode() == text.encode()
