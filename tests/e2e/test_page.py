"""A real browser on the real server: people fill the form, read the answer, are told what is wrong, and copy code that runs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

import models
from bundles import write as write_bundle
from modelport import engines
from modelport.bundle import Bundle
from modelport.engines import Engine
from modelport.packing import Options, pack_file
from modelport.serving.app import create_app
from modelport.serving.service import Service
from modelport.serving.settings import Settings, hash_key
from modelport.signature import Field, Signature

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}
IMAGES = Path(os.environ["MODELPORT_SHOTS"]) if "MODELPORT_SHOTS" in os.environ else None
"""Where pictures of the pages are put, when somebody wants to look at them."""

HOSTILE = ("<img src=x onerror=hacked=1>", 'it\'s "$HOME" `id` \\ 100%', "__proto__", "a/b~c", "</script><script>hacked=1</script>")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    missing = [path for path in (str(CHROMIUM), "curl") if shutil.which(path) is None]
    if missing:
        assert os.environ.get("CI") != "true", f"missing: {missing}; .ci/run installs them"
        pytest.skip(f"not installed: {', '.join(missing)}")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """Pack a model of models.py, once each."""
    packed: dict[str, Bundle] = {}

    def bundle(model: str, **options: Any) -> Bundle:
        if model not in packed:
            trained = models.MODELS[model]()
            path = models.write(model, tmp_path_factory.mktemp("models"))
            options = {"name": model.replace("_", "-"), "sample": trained.frame, "onnx": "off", **options}
            packed[model] = pack_file(path, tmp_path_factory.mktemp("bundles"), Options(**options))
        return packed[model]

    return bundle


@pytest.fixture(scope="module")
def iris(bundles: Callable[..., Bundle]) -> Bundle:
    measures = {f"{part}_{side}": f"{side.capitalize()} of a {part}, cm" for part in ("sepal", "petal") for side in ("length", "width")}
    return bundles(
        "grid_search",
        name="iris",
        title="Iris species",
        subtitle="Which iris is it? Four measures of a flower, in centimetres.",
        output=("species", "probabilities"),
        schema={"inputs": [{"name": name, "kind": "number", "description": words} for name, words in measures.items()]},
    )


@contextmanager
def served(*bundles: Bundle, **settings: Any) -> Iterator[str]:
    """The address of a server of `bundles`; closed at the end."""
    with listening(*(Service(bundle.name, "1", bundle, engines.load(bundle)) for bundle in bundles), **settings) as url:
        yield url


@contextmanager
def listening(*services: Service, **settings: Any) -> Iterator[str]:
    for service in services:
        service.warm_up()
    sockets = [socket.create_server(("127.0.0.1", 0))]
    server = uvicorn.Server(uvicorn.Config(create_app(services, Settings(**settings)), lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    thread.start()
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        sockets[0].close()


class Visit:
    """One tab on one address, which notes what a good page never does."""

    def __init__(self, browser: Browser, url: str, path: str = "/", **options: Any) -> None:
        context = {"viewport": DESK, "reduced_motion": "reduce", "permissions": ["clipboard-read", "clipboard-write"], **options}
        self.context = browser.new_context(**context)
        self.url = url
        self.page = self.context.new_page()
        self.noted: list[str] = []
        self.page.on("console", lambda message: self.noted.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.noted.append(str(error)))
        self.page.on(
            "request", lambda request: None if request.url.startswith((url, "data:", f"blob:{url}")) else self.noted.append(request.url)
        )
        self.page.add_init_script("addEventListener('securitypolicyviolation', (event) => console.error('CSP', event.violatedDirective))")
        self.page.goto(url + path)
        self.page.wait_for_selector("h1")

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, *error: object) -> None:
        self.context.close()
        if not any(error):
            refusals = "Failed to load resource: the server responded with a status of 4"
            assert [note for note in self.noted if not note.startswith((refusals, refusals.replace("of 4", "of 5")))] == []


@pytest.fixture(scope="module")
def iris_url(iris: Bundle) -> Iterator[str]:
    with served(iris) as url:
        yield url


@pytest.fixture(scope="module")
def houses_url(bundles: Callable[..., Bundle]) -> Iterator[str]:
    with served(bundles("pipeline", name="houses")) as url:
        yield url


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model whose columns, classes and titles are what attackers and unlucky people choose."""
    import joblib
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    frame = pd.DataFrame(np.random.default_rng(5).normal(size=(40, len(HOSTILE))).round(2), columns=list(HOSTILE))
    labels = np.where(frame[HOSTILE[0]] > 0, HOSTILE[0], "'\"&")
    path = tmp_path_factory.mktemp("models") / "hostile.joblib"
    joblib.dump(LogisticRegression().fit(frame, labels), path)
    about = {"title": HOSTILE[0], "subtitle": HOSTILE[4], "description": HOSTILE[0]}
    return pack_file(path, tmp_path_factory.mktemp("bundles"), Options(name="hostile", sample=frame, onnx="off", **about))


def predict(page: Page) -> None:
    page.get_by_role("button", name="Predict").click()


def answered(page: Page) -> None:
    """Wait until the answer stands there."""
    expect(page.get_by_text("Answered in")).to_be_visible()


def shot(page: Page, name: str) -> None:
    if IMAGES:
        page.evaluate("document.activeElement.blur()")
        page.mouse.move(0, 0)
        page.screenshot(path=IMAGES / f"{name}.png", full_page=True)


def code(page: Page, tab: str) -> str:
    """What the copy button puts on the clipboard for a language."""
    page.get_by_role("tab", name=tab, exact=True).click()
    page.get_by_role("button", name="Copy the code").click()
    expect(page.get_by_role("button", name="Copy the code")).to_have_text("Copied")
    text = page.evaluate("navigator.clipboard.readText()")
    assert text == page.get_by_role("tabpanel").inner_text()
    return text


def run(program: str, text: str, **environment: str) -> str:
    """What `program` prints when it is given `text` to run."""
    done = subprocess.run([program], input=text, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def curl(text: str, shell: str = "bash", **environment: str) -> Any:
    """The answer that a copied curl command gets."""
    assert text.startswith("curl ")
    return json.loads(run(shell, text.replace("curl ", "curl -sS ", 1), **environment))


# The form and the answer


def test_someone_fills_the_form_and_reads_the_answer(browser: Browser, iris_url: str) -> None:
    with Visit(browser, iris_url) as page:
        assert page.title() == "Iris species"
        expect(page.get_by_role("heading", name="Iris species")).to_be_visible()
        for name, value in {"sepal_length": "6.7", "sepal_width": "3.0", "petal_length": "5.2", "petal_width": "2.3"}.items():
            page.get_by_label(name).fill(value)
        predict(page)
        answered(page)
        expect(page.locator(".value")).to_have_text("virginica")
        bars = page.locator(".bars li")
        assert bars.count() == 3
        assert bars.first.inner_text().split() == ["virginica", page.locator(".chosen .bar-value").inner_text()]
        shares = [float(each.inner_text().strip("<> %")) for each in page.locator(".bar-value").all()]
        assert shares == sorted(shares, reverse=True)
        assert page.locator(".bar").first.evaluate("bar => bar.getBoundingClientRect().width") > 50
        expect(page.get_by_role("status").filter(has_text="species: virginica")).to_have_count(1)
        page.get_by_text("Exact answer").click()
        exact = json.loads(page.locator(".raw pre").inner_text())
        assert exact["species"] == "virginica"
        assert sum(exact["probabilities"].values()) == pytest.approx(1)


def test_the_form_begins_with_the_example_and_returns_to_it(browser: Browser, iris_url: str) -> None:
    with Visit(browser, iris_url) as page:
        example = page.get_by_label("sepal_length").input_value()
        assert float(example) > 0
        page.get_by_label("sepal_length").fill("1")
        page.get_by_role("button", name="Fill example").click()
        expect(page.get_by_label("sepal_length")).to_have_value(example)


def test_an_answer_says_when_the_values_have_changed_since(browser: Browser, iris_url: str) -> None:
    with Visit(browser, iris_url) as page:
        predict(page)
        answered(page)
        page.get_by_label("sepal_length").fill("7")
        expect(page.get_by_text("This is for the earlier values.")).to_be_visible()


def test_each_kind_of_field_has_its_widget_and_what_is_optional_may_be_left_out(browser: Browser, houses_url: str) -> None:
    with Visit(browser, houses_url) as page:
        assert page.get_by_label("Größe (m²)").get_attribute("inputmode") == "decimal"
        assert page.get_by_label("rooms").get_attribute("inputmode") == "numeric"
        city = page.get_by_label("city optional")
        assert city.evaluate("field => field.tagName + (field.list ? field.list.options.length : '')") in ("SELECT", "INPUT4")
        page.get_by_label("year.built optional").fill("")
        if city.evaluate("field => field.tagName") == "INPUT":
            city.fill("")
        else:
            city.select_option(label="not given")
        sent = page.expect_request("**/predict")
        with sent as request:
            predict(page)
        record = request.value.post_data_json
        assert record["year.built"] is None
        assert record["city"] is None
        assert record["has garden"] in (True, False)
        answered(page)
        assert page.locator(".value").inner_text() in ("cheap", "dear")


class Fixed:
    """A framework whose model gives the same answer to everything."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def predict(self, model: Any, columns: Any, signature: Signature) -> dict[str, Any]:
        rows = len(next(iter(columns.values())))
        return {name: np.array([answer] * rows) for name, answer in self.answers.items()}


def test_every_widget_sends_what_it_shows(browser: Browser, tmp_path: Path) -> None:
    cities = tuple(f"city {index}" for index in range(30))
    inputs = (
        Field("share", "number", minimum=0.0, maximum=1000.0, example=0.5, description="Of the whole"),
        Field("count", "integer", example=2**53 + 1),
        Field("paid", "boolean", example=True),
        Field("member", "boolean", nullable=True),
        Field("size", "category", choices=("S", "M", "L"), example="M"),
        Field("grade", "category", choices=(1, 2.5, True), example=2.5),
        Field("city", "category", nullable=True, choices=cities, example=cities[7]),
        Field("when", "datetime", nullable=True, example="2024-05-01T12:30:00+02:00"),
        Field("remark", "text", example="two\nlines"),
        Field("matrix", "tensor", dtype="float64", shape=(2, 2), example=[[1, 2], [3, 4]]),
        Field("more", "json", example={"a": [1, None]}),
    )
    classes = tuple(f"class {index}" for index in range(100))
    outputs = (
        Field("prediction", "category", choices=classes),
        Field("probabilities", "number", shape=(100,), choices=classes),
        Field("id", "integer"),
    )
    signature = Signature(inputs, outputs)
    shares = np.arange(100) / np.arange(100).sum()
    engine = Engine(Fixed(prediction="class 99", probabilities=shares, id=2**53 + 1), None, signature, signature)
    with listening(Service("widgets", "", write_bundle(tmp_path, "widgets", signature), engine)) as url, Visit(browser, url) as page:
        with page.expect_request("**/predict") as request:
            predict(page)
        example = {**signature.example(), "when": "2024-05-01T10:30:00"}
        assert json.loads(request.value.post_data) == example
        answered(page)
        assert page.locator(".value").all_inner_texts() == ["class 99", "9,007,199,254,740,993"]
        assert page.locator(".bar-name").all_inner_texts()[:6] == [f"class {index}" for index in range(99, 93, -1)]
        page.get_by_text("94 more").click()
        expect(page.get_by_text("class 0", exact=True)).to_be_visible()
        expect(page.get_by_text("Of the whole. 0 to 1,000")).to_be_visible()

        page.get_by_label("share").fill(".25")
        page.get_by_role("switch", name="paid").press("Space")
        page.get_by_role("radiogroup", name="member").get_by_label("no", exact=True).check()
        page.get_by_role("radiogroup", name="size").get_by_label("M").press("ArrowRight")
        page.get_by_role("radiogroup", name="grade").get_by_label("true").check()
        page.get_by_label("city").select_option(label="not given")
        page.get_by_label("when").fill("")
        page.get_by_label("remark").fill('"quoted"')
        page.get_by_label("matrix").fill("[[0, 0], [0, 1e-3]]")
        page.get_by_label("more").fill("{")
        predict(page)
        expect(page.get_by_label("more")).to_be_focused()
        expect(page.locator(".answer")).to_contain_text("is not JSON")
        page.get_by_label("more").fill(" 9007199254740993 ")
        with page.expect_request("**/predict") as request:
            predict(page)
        sent = {"share": 0.25, "count": 2**53 + 1, "paid": False, "member": False, "size": "L", "grade": True, "city": None, "when": None}
        assert json.loads(request.value.post_data) == {**sent, "remark": '"quoted"', "matrix": [[0, 0], [0, 1e-3]], "more": 2**53 + 1}
        answered(page)
        shot(page, "widgets")


def test_a_number_is_rounded_for_reading_and_its_exact_value_stands_beside_it(browser: Browser, bundles: Callable[..., Bundle]) -> None:
    with served(bundles("xgboost_regressor", name="shipping", output=("shipping_estimated_price",))) as url, Visit(browser, url) as page:
        predict(page)
        answered(page)
        exact = json.loads(page.locator(".raw pre").text_content())["shipping_estimated_price"]
        shown = page.locator(".value").inner_text()
        assert float(shown.replace(",", "")) == pytest.approx(exact, rel=1e-5)
        assert len(shown) <= 8
        expect(page.locator(".exact")).to_have_text(f"exactly {exact}")


def test_several_outputs_stand_below_each_other(browser: Browser, bundles: Callable[..., Bundle]) -> None:
    bundle = bundles("multi_output")
    with served(bundle) as url, Visit(browser, url) as page:
        predict(page)
        answered(page)
        record = json.loads(page.locator(".raw pre").text_content())
        assert list(record) == [field.name for field in bundle.signature.outputs]
        assert page.locator(".output-name").all_inner_texts() == list(record)


def test_prose_goes_into_a_box_of_several_lines(browser: Browser, bundles: Callable[..., Bundle]) -> None:
    with served(bundles("text")) as url, Visit(browser, url) as page:
        box = page.get_by_role("textbox", name="text")
        assert box.evaluate("box => box.tagName") == "TEXTAREA"
        box.fill("a dull, endless film\nI left")
        box.press("Control+Enter")
        answered(page)
        expect(page.locator(".value")).to_have_text("bad")


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_nothing_moves_when_the_answer_comes(browser: Browser, iris_url: str, viewport: dict[str, int]) -> None:
    places = """() => [...document.querySelectorAll('form *, .answer .card-head, .answer .output-name, .code, footer')].map((each) => {
        const { x, y, width, height } = each.getBoundingClientRect();
        return [each.tagName, x, y + scrollY, width, height];
    })"""
    with Visit(browser, iris_url, viewport=viewport) as page:
        before = page.evaluate(places)
        predict(page)
        answered(page)
        assert page.evaluate(places) == before
        page.get_by_label("sepal_length").fill("five")
        predict(page)
        expect(page.locator(".trouble")).to_have_text("One value does not fit.")
        inputs = "() => [...document.querySelectorAll('form input, form button')].map((each) => each.getBoundingClientRect().y + scrollY)"
        wrong = page.evaluate(inputs)
        page.get_by_role("button", name="Fill example").click()
        predict(page)
        answered(page)
        assert page.evaluate(inputs) == wrong


def test_the_answer_is_beside_the_form_on_a_desk_and_below_the_button_on_a_phone(browser: Browser, iris_url: str) -> None:
    with Visit(browser, iris_url) as page:
        form, answer = page.locator("form").bounding_box(), page.locator(".answer").bounding_box()
        assert answer["x"] > form["x"] + form["width"]
        assert answer["y"] == form["y"]
    with Visit(browser, iris_url, viewport=PHONE) as page:
        predict(page)
        answered(page)
        button, answer = page.get_by_role("button", name="Predict").bounding_box(), page.locator(".answer").bounding_box()
        assert 0 < answer["y"] - button["y"] - button["height"] < 60
        expect(page.locator(".bars li").last).to_be_in_viewport()


# What is wrong


def test_errors_stand_beside_their_fields_and_the_first_has_the_keyboard(browser: Browser, bundles: Callable[..., Bundle]) -> None:
    with served(bundles("multi_output")) as url, Visit(browser, url) as page:
        length, width = page.get_by_label("sepal_length"), page.get_by_label("sepal_width")
        length.fill("5,1")
        width.fill("")
        predict(page)
        expect(page.locator(".trouble")).to_have_text("2 values do not fit.")
        for field, words in ((length, "Write 5.1, with a point."), (width, "Is missing: expected a number")):
            expect(field).to_have_attribute("aria-invalid", "true")
            note = page.locator(f"#{field.get_attribute('aria-describedby')}")
            expect(note).to_contain_text(words)
            below = note.bounding_box()["y"] - field.bounding_box()["y"] - field.bounding_box()["height"]
            assert 0 <= below < 12
        expect(length).to_be_focused()
        page.locator(".answer").get_by_role("button", name="sepal_width").click()
        expect(width).to_be_focused()
        width.fill("3")
        assert width.get_attribute("aria-invalid") is None
        length.fill("5.1")
        predict(page)
        answered(page)


def test_a_key_is_asked_for_once_and_kept_for_the_tab(browser: Browser, iris: Bundle) -> None:
    with served(iris, keys=frozenset({hash_key("correct horse")})) as url:
        visit = browser.new_context(viewport=DESK)
        page = visit.new_page()
        page.goto(url)
        dialog = page.get_by_role("dialog", name="API key")
        dialog.get_by_label("Key").fill("wrong")
        dialog.get_by_label("Key").press("Enter")
        expect(page.get_by_role("alert")).to_have_text("The service did not accept that key.")
        page.get_by_role("dialog").get_by_label("Key").fill("correct horse")
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("heading", name="Iris species")).to_be_visible()
        predict(page)
        answered(page)
        page.reload()
        expect(page.get_by_role("heading", name="Iris species")).to_be_visible()
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        command = page.get_by_role("tabpanel").inner_text()
        assert "correct horse" not in command
        assert curl(command, MODELPORT_API_KEY="correct horse")["species"]
        visit.close()


def test_other_refusals_are_told_in_words(browser: Browser, iris: Bundle) -> None:
    with served(iris, max_body_bytes=20) as url, Visit(browser, url) as page:
        predict(page)
        expect(page.locator(".trouble")).to_have_text("That is more than the service takes in one request.")
        expect(page.locator(".answer")).to_contain_text("20 bytes")
        shot(page, "refused")


def test_a_lost_connection_is_told_in_words_and_the_values_stay(browser: Browser, iris: Bundle) -> None:
    context = browser.new_context(viewport=DESK)
    page = context.new_page()
    with served(iris) as url:
        page.goto(url)
        page.get_by_label("petal_width").fill("1.25")
    predict(page)
    expect(page.locator(".trouble")).to_have_text("The service cannot be reached.")
    expect(page.get_by_label("petal_width")).to_have_value("1.25")
    context.close()


# Code


def test_the_copied_code_gives_the_answer_of_the_page(browser: Browser, houses_url: str) -> None:
    with Visit(browser, houses_url) as page:
        page.get_by_label("Größe (m²)").fill("120.25")
        page.get_by_label("year.built optional").fill("")
        predict(page)
        answered(page)
        expected = json.loads(page.locator(".raw pre").text_content())
        command, requests, javascript = code(page, "curl"), code(page, "requests"), code(page, "JavaScript")
        assert "120.25" in command
        assert curl(command) == curl(command, "sh") == expected
        assert run(sys.executable, requests).strip() == str(expected)
        assert run(sys.executable, code(page, "Python")).strip() == str(expected)
        assert page.evaluate(f"async () => {{ {javascript.replace('console.log', 'return ')} }}") == expected


def test_names_and_values_that_would_break_out_of_quotes_do_not(browser: Browser, hostile: Bundle) -> None:
    with served(hostile) as url, Visit(browser, url) as page:
        for index, name in enumerate(HOSTILE):
            page.get_by_label(name, exact=True).fill(str(index + 0.5))
        predict(page)
        answered(page)
        expected = json.loads(page.locator(".raw pre").text_content())
        assert expected["prediction"] == HOSTILE[0]
        expect(page.locator(".value")).to_have_text(HOSTILE[0])
        assert curl(code(page, "curl")) == expected
        assert run(sys.executable, code(page, "requests")).strip() == str(expected)
        assert page.evaluate(f"async () => {{ {code(page, 'JavaScript').replace('console.log', 'return ')} }}") == expected
        page.get_by_label(HOSTILE[3], exact=True).fill("no number")
        predict(page)
        expect(page.get_by_label(HOSTILE[3], exact=True)).to_have_attribute("aria-invalid", "true")
        assert page.evaluate("[typeof hacked, document.images.length, document.scripts.length, ({}).polluted]") == ["undefined", 0, 1, None]
        page.goto(f"{url}/docs")
        page.wait_for_selector("h1")
        page.get_by_text(f"{len(HOSTILE)} fields").first.wait_for()
        assert page.evaluate("[typeof hacked, document.images.length, document.scripts.length]") == ["undefined", 0, 1]


def test_the_code_keeps_in_step_with_the_form(browser: Browser, iris_url: str) -> None:
    with Visit(browser, iris_url) as page:
        page.get_by_label("petal_width").fill("0.123456789012345678")
        expect(page.get_by_role("tabpanel")).to_contain_text('"petal_width": 0.123456789012345678\n')
        page.get_by_role("tab", name="curl").focus()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name="Python", exact=True)).to_be_focused()
        expect(page.get_by_role("tabpanel")).to_contain_text("from modelport import Client")


# Many fields


def test_thousands_of_fields_stay_usable(browser: Browser, bundles: Callable[..., Bundle]) -> None:
    with served(bundles("wide_5000")) as url, Visit(browser, url) as page:
        assert page.locator("form input").count() < 100
        expect(page.get_by_role("button", name="Predict")).to_be_in_viewport()
        page.get_by_role("searchbox", name="Find a field").fill("c4321")
        page.keyboard.press("Enter")
        field = page.get_by_label("c4321", exact=True)
        expect(field).to_be_focused()
        field.fill("much")
        page.get_by_role("searchbox").fill("c1")
        predict(page)
        expect(field).to_be_focused()
        expect(field).to_have_attribute("aria-invalid", "true")
        field.fill("1.5")
        page.keyboard.press("Enter")
        answered(page)
        expected = json.loads(page.locator(".raw pre").text_content())
        assert curl(code(page, "curl")) == expected
        shot(page, "wide")


def test_a_record_can_be_pasted(browser: Browser, bundles: Callable[..., Bundle]) -> None:
    with served(bundles("wide_200")) as url, Visit(browser, url) as page:
        page.get_by_role("button", name="Paste JSON").click()
        box = page.get_by_role("dialog").get_by_label("A record")
        for text, words in (("{", "not JSON"), ("[1]", "object"), ('{"c0": 1, "c999": 2}', 'There is no field "c999".')):
            box.fill(text)
            page.get_by_role("button", name="Fill the form").click()
            expect(page.get_by_role("dialog").get_by_role("status")).to_contain_text(words)
        record = {f"c{index}": index / 4 for index in range(200)}
        box.fill(json.dumps([record, record]))
        page.get_by_role("button", name="Fill the form").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        with page.expect_request("**/predict") as request:
            predict(page)
        assert request.value.post_data_json == record
        answered(page)


# For everyone


def test_the_keyboard_alone_is_enough(browser: Browser, houses_url: str) -> None:
    with Visit(browser, houses_url) as page:
        reached = []
        for _ in range(40):
            page.keyboard.press("Tab")
            tag, label, ring = page.evaluate("""() => {
                const at = document.activeElement;
                const shown = at.type === 'radio' ? at.nextElementSibling : at;
                return [at.tagName, at.labels?.[0]?.textContent ?? at.textContent, getComputedStyle(shown).outlineStyle];
            }""")
            if tag == "BODY":
                break
            assert ring != "none", f"nobody sees that {tag} {label} has the keyboard"
            label = label.removesuffix(" optional")
            reached.append(label)
            if label == "rooms":
                page.keyboard.press("Control+a")
                page.keyboard.type("5")
            if label == "Predict":
                break
        order = [label for label in reached if label in ("API docs", "Größe (m²)", "rooms", "Predict")]
        assert order == ["API docs", "Größe (m²)", "rooms", "Predict"]
        with page.expect_request("**/predict") as request:
            page.keyboard.press("Enter")
        assert request.value.post_data_json["rooms"] == 5
        answered(page)
        page.get_by_label("rooms").focus()
        with page.expect_request("**/predict"):
            page.keyboard.press("Enter")


def test_everything_that_takes_input_has_a_name(browser: Browser, houses_url: str) -> None:
    nameless = """() => [...document.querySelectorAll('input, select, textarea, button, a, [role=radiogroup], [tabindex]')]
        .filter((each) => !(each.labels?.length || each.ariaLabel || each.getAttribute('aria-labelledby') || each.textContent.trim()))
        .map((each) => each.outerHTML)"""
    for path in ("/", "/docs"):
        with Visit(browser, houses_url, path) as page:
            assert page.evaluate(nameless) == []
            assert page.evaluate("document.documentElement.lang") == "en"
            assert page.evaluate("document.querySelectorAll('h1, main').length") == 2
            ids = page.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
            assert len(ids) == len(set(ids))


CONTRAST = """() => {
    const channels = (color) => color.match(/[\\d.]+/g).map(Number);
    const over = ([r, g, b, a = 1], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
    const ground = (node) => node ? over(channels(getComputedStyle(node).backgroundColor), ground(node.parentElement)) : [255, 255, 255];
    const light = (color) => color.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, index) => sum + c * [0.2126, 0.7152, 0.0722][index], 0);
    const ratio = (one, other) => (Math.max(light(one), light(other)) + 0.05) / (Math.min(light(one), light(other)) + 0.05);
    const low = [];
    let seen = 0;
    for (const node of document.body.querySelectorAll('*')) {
        const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        const box = node.getBoundingClientRect();
        if (!(text || /INPUT|SELECT|TEXTAREA/.test(node.tagName)) || !box.width || getComputedStyle(node).visibility === 'hidden') continue;
        if (node.type === 'radio' || node.type === 'checkbox') continue;
        seen += 1;
        const back = ground(node);
        for (const part of node.placeholder ? [null, '::placeholder'] : [null]) {
            const value = ratio(over(channels(getComputedStyle(node, part).color), back), back);
            if (value < 4.5) low.push([node.tagName, node.className, part, node.textContent.slice(0, 40), value.toFixed(2)]);
        }
    }
    return [seen, low];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", ["desk", "phone"])
def test_all_text_stands_out_from_its_ground(browser: Browser, iris_url: str, houses_url: str, scheme: str, width: str) -> None:
    options = {"color_scheme": scheme, "viewport": DESK if width == "desk" else PHONE}

    def check(page: Page, name: str) -> None:
        seen, low = page.evaluate(CONTRAST)
        assert seen > 15
        assert low == []
        assert page.evaluate("document.documentElement.scrollWidth") <= options["viewport"]["width"], "the page is wider than the window"
        shot(page, f"{name}-{width}-{scheme}")

    with Visit(browser, iris_url, **options) as page:
        check(page, "page-before")
        predict(page)
        answered(page)
        check(page, "page")
    with Visit(browser, houses_url, **options) as page:
        page.get_by_label("rooms").fill("many")
        predict(page)
        expect(page.locator(".trouble")).to_be_visible()
        check(page, "page-errors")
        page.get_by_role("button", name="Paste JSON").click()
        check(page, "page-paste")
    with Visit(browser, iris_url, "/docs", **options) as page:
        page.get_by_role("button", name="Send").first.click()
        page.locator("dt", has_text="x-request-id").wait_for()
        check(page, "docs")


# Several models


def test_several_models_are_a_list_of_links(browser: Browser, iris: Bundle, bundles: Callable[..., Bundle]) -> None:
    with served(iris, bundles("pipeline", name="houses")) as url, Visit(browser, url) as page:
        page.get_by_role("link", name="houses").click()
        expect(page.get_by_label("rooms")).to_be_visible()
        predict(page)
        answered(page)
        expected = json.loads(page.locator(".raw pre").text_content() or "")
        assert f"{url}/models/houses/predict" in code(page, "curl")
        assert run(sys.executable, code(page, "Python")).strip() == str(expected)
        page.get_by_role("link", name="API docs").click()
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        assert page.url == f"{url}/models/houses/docs"
        page.go_back()
        page.go_back()
        shot(page, "models")
        page.get_by_role("link", name="Iris species").click()
        expect(page.get_by_label("petal_width")).to_be_visible()


# The reference


def test_the_reference_lists_every_path_and_links_to_it(browser: Browser, iris_url: str) -> None:
    with Visit(browser, iris_url, "/docs") as page:
        paths = page.evaluate("fetch('openapi.json').then((reply) => reply.json()).then((api) => Object.keys(api.paths))")
        assert page.locator(".operation > summary .path").all_inner_texts() == paths
        link = page.get_by_role("navigation", name="Operations").get_by_role("link", name="/readyz")
        link.click()
        ready = page.locator("#readyz")
        expect(ready).to_have_attribute("open", "")
        expect(ready).to_be_in_viewport()
        page.goto(f"{iris_url}/docs#livez")
        page.reload()
        expect(page.locator("#livez")).to_have_attribute("open", "")
        expect(page.locator("#readyz")).not_to_have_attribute("open", "")


def test_a_request_is_tried_from_the_reference(browser: Browser, iris_url: str) -> None:
    with Visit(browser, iris_url, "/docs") as page:
        form = page.get_by_role("form", name="Try it")
        result = form.locator(".result")
        form.get_by_role("button", name="Send").click()
        expect(result).to_contain_text("200")
        expect(result).to_contain_text("x-model")
        assert json.loads(result.locator("pre").inner_text())["species"]
        form.get_by_label("Body").fill('{"sepal_length": "long"}')
        form.get_by_text("More headers").click()
        form.get_by_label("Headers").fill("X-Request-Id: mine-17")
        form.get_by_role("button", name="Send").click()
        expect(result.locator("strong")).to_have_text("422")
        expect(result).to_contain_text("mine-17")
        assert json.loads(result.locator("pre").inner_text())["errors"]
        form.get_by_label("Example").select_option(label=form.get_by_label("Example").locator("option").last.inner_text())
        form.get_by_role("button", name="Send").click()
        expect(result).to_contain_text("text/csv")
        command = page.get_by_role("tabpanel").text_content()
        assert run("bash", command.replace("curl ", "curl -sS ", 1)).split() == result.locator("pre").text_content().split()


def test_the_reference_takes_a_key(browser: Browser, iris: Bundle) -> None:
    with served(iris, keys=frozenset({hash_key("correct horse")})) as url:
        context = browser.new_context(viewport=DESK)
        page = context.new_page()
        page.goto(f"{url}/docs")
        page.get_by_role("dialog").get_by_label("Key").fill("correct horse")
        page.get_by_role("dialog").get_by_label("Key").press("Enter")
        form = page.get_by_role("form", name="Try it")
        form.get_by_role("button", name="Send").click()
        expect(form.locator(".result strong")).to_have_text("200")
        page.get_by_label("API key").fill("")
        form.get_by_role("button", name="Send").click()
        expect(form.locator(".result strong")).to_have_text("401")
        context.close()
