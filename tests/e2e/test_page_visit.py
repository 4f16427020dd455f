"""A real browser: a file of rows comes back with its answers, earlier calls are looked at again, and the model is described in Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from test_page import CONTRAST, DESK, PHONE, Visit, answered, predict, served, shot
from test_page import browser as browser
from test_page import bundles as bundles
from test_page_pictures import choose, file, label, transfer

from modelport.bundle import Bundle
from modelport.serving.settings import hash_key
from pictures_world import plain
from serving_world import FLOWER, live, make_service
from test_serving_pictures import ALONE, by_colour

FLOWERS = "id,petal_length,sepal_length,sepal_width,petal_width,prediction\r\n" + "".join(
    f'{number},{1 + number / 3:g},5.1,3.5,0.2,"say ""what"""\r\n' for number in range(12)
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with live(make_service()) as running:
        yield running.url


def bring(page: Page, name: str, text: str | bytes) -> None:
    """Choose a file of rows."""
    data = text.encode() if isinstance(text, str) else text
    page.locator(".files input[type=file]").set_input_files([file(name, data, "text/csv")])


def downloaded(page: Page) -> tuple[str, str]:
    """The name of the file that is given back, and what it holds."""
    with page.expect_download() as download:
        page.get_by_role("link", name="Download with answers").click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes().decode()


# Files of rows


def test_a_csv_file_that_is_dropped_comes_back_with_the_answers_beside(browser: Browser, url: str) -> None:
    with Visit(browser, url) as page:
        page.dispatch_event("main", "dragover", {"dataTransfer": transfer(page, file("x", b"", "text/csv"))})
        expect(page.locator(".form")).to_have_class("card form over")
        page.dispatch_event("main", "drop", {"dataTransfer": transfer(page, file("my flowers.csv", FLOWERS.encode(), "text/csv"))})
        answered(page)
        expect(page.locator(".form")).to_have_class("card form")
        expect(page.locator(".answer .value")).to_have_text("12 rows")
        expect(page.get_by_text("Not asked about, as the model does not take it: id, prediction.")).to_be_visible()
        expect(page.get_by_role("status").filter(has_text="12 rows are answered. my flowers-answers.csv is ready")).to_have_count(1)
        preview = page.get_by_role("region", name="The first rows of my flowers-answers.csv")
        heads = preview.get_by_role("columnheader").all_inner_texts()
        assert heads[:2] == ["predicted_prediction", "probabilities.setosa"]
        assert heads[4:6] == ["id", "petal_length"]
        expect(preview.get_by_role("row")).to_have_count(9)
        name, text = downloaded(page)
    assert name == "my flowers-answers.csv"
    given = list(csv.DictReader(io.StringIO(FLOWERS, newline="")))
    back = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [{key: row[key] for key in given[0]} for row in back] == given
    assert [row["predicted_prediction"] for row in back] == ["setosa"] * 5 + ["versicolor"] * 7
    assert all(float(row["probabilities.setosa"]) == (0.9 if row["predicted_prediction"] == "setosa" else 0.05) for row in back)


def test_what_spreadsheets_make_of_csv_is_read_and_given_back_alike(browser: Browser, url: str) -> None:
    line = "petal_width;petal_length;sepal_width;sepal_length;Bemerkung\r\n0.2;1.4;3.5;5.1;größer; kleiner\r\n"
    with Visit(browser, url) as page:
        bring(page, "blumen.csv", "\ufeff" + line.replace("größer; kleiner", '"größer; kleiner"'))
        answered(page)
        _, text = downloaded(page)
        assert text.startswith("\ufeffpetal_width;petal_length;sepal_width;sepal_length;Bemerkung;prediction;probabilities.setosa")
        assert text.splitlines()[1].startswith('0.2;1.4;3.5;5.1;"größer; kleiner";setosa;0.9')


def test_a_long_file_is_asked_in_parts(browser: Browser, url: str) -> None:
    rows = "".join(f"5.1,3.5,{1 if number % 2 else 6},0.2\n" for number in range(12_000))
    with Visit(browser, url) as page:
        asked: list[int] = []
        page.on("request", lambda request: asked.append(request.post_data.count("\n")) if request.method == "POST" else None)
        bring(page, "many.csv", ",".join(FLOWER) + "\n" + rows)
        expect(page.locator(".answer .value")).to_have_text("12,000 rows")
        assert asked == [5001, 5001, 2001]
        _, text = downloaded(page)
        answers = [line.split(",")[4] for line in text.splitlines()[1:]]
        assert answers == ["virginica", "setosa"] * 6000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "The file is empty."),
        (",".join(FLOWER) + "\n", "The file has a header and no rows."),
        (",".join(FLOWER) + "\n1,2\n", "Line 2 has 2 cells, and the header has 4."),
        (",".join(FLOWER) + '\n1,2,3,"4\n', "Line 2: a quote does not end where its cell does."),
        ("größe\n1\n".encode("latin-1"), "The file is not text in UTF-8."),
        (b"PK\x03\x04" + bytes(30), "This is a workbook or an archive, and no CSV file."),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_words(browser: Browser, url: str, text: str | bytes, said: str) -> None:
    with Visit(browser, url) as page:
        bring(page, "flowers.csv", text)
        expect(page.locator(".trouble")).to_have_text(said)
        expect(page.get_by_role("link", name="Download with answers")).to_have_count(0)


def test_wrong_values_of_a_file_are_told_with_their_lines(browser: Browser, url: str) -> None:
    header = ",".join([*FLOWER, "note"])
    with Visit(browser, url) as page:
        bring(page, "flowers.csv", f'{header}\n1,2,3,4,"of two\nlines"\n\n1,2,many,4,\n1,,3,4,\n')
        expect(page.locator(".trouble")).to_have_text("2 values do not fit; nothing was answered.")
        told = page.locator(".troubles li")
        expect(told.nth(0)).to_contain_text("Line 5, petal_length: ")
        expect(told.nth(1)).to_contain_text("Line 6, sepal_width: ")
        bring(page, "flowers.csv", f"{header}\n1,2,3,4,\n".replace("petal_width", "petal_widht"))
        expect(page.locator(".answer")).to_contain_text("Column petal_width: the column is missing.")
        bring(page, "flowers.csv", f"{header}\n1,2,3,4,\n")
        answered(page)


def test_a_file_is_asked_with_the_key(browser: Browser) -> None:
    with live(make_service(), keys=frozenset({hash_key("correct horse")})) as running:
        context = browser.new_context(viewport=DESK)
        page = context.new_page()
        page.goto(running.url)
        page.get_by_role("dialog").get_by_label("Key").fill("correct horse")
        page.keyboard.press("Enter")
        bring(page, "flowers.csv", FLOWERS)
        answered(page)
        context.close()


def test_a_file_is_chosen_with_the_keyboard_and_pictures_have_their_own_place(browser: Browser, url: str) -> None:
    with Visit(browser, url) as page:
        expect(page.get_by_text("Choose a CSV file")).to_be_visible()
        page.get_by_role("button", name="Predict").focus()
        page.keyboard.press("Tab")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Space")
        chooser.value.set_files([file("flowers.csv", FLOWERS.encode(), "text/csv")])
        answered(page)
    with live(make_service(by_colour, ALONE)) as running, Visit(browser, running.url) as page:
        expect(page.get_by_text("Choose a CSV file")).to_have_count(0)


# Calls of this visit


def calls(page: Page) -> Any:
    return page.locator(".call")


def test_earlier_calls_are_looked_at_again(browser: Browser, url: str) -> None:
    with Visit(browser, url) as page:
        history = page.locator(".history")
        expect(history).to_have_text("Calls of this visit none yet")
        for length in ("1.5", "4", "6.5"):
            page.get_by_label("petal_length").fill(length)
            predict(page)
            expect(history.locator("summary .note")).to_have_text({"1.5": "1", "4": "2", "6.5": "3"}[length])
        page.get_by_label("petal_length").fill("six")
        predict(page)
        expect(page.locator(".trouble")).to_be_visible()
        bring(page, "flowers.csv", FLOWERS)
        answered(page)
        history.locator("summary").focus()
        page.keyboard.press("Enter")
        expect(calls(page)).to_have_count(5)
        assert [call.inner_text().splitlines()[0] for call in calls(page).all()] == [
            "12 rows", "not answered", "virginica 90.0%", "versicolor 90.0%", "setosa 90.0%",
        ]  # fmt: skip
        expect(calls(page).nth(0)).to_have_attribute("aria-current", "true")
        expect(calls(page).nth(2)).to_contain_text("sepal_length 5.1, sepal_width 3.5, petal_length 6.5, petal_width 0.2")

        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        calls(page).nth(3).focus()
        page.keyboard.press("Enter")
        expect(label(page)).to_have_text("versicolor")
        expect(page.get_by_label("petal_length")).to_have_value("4")
        expect(calls(page).nth(3)).to_have_attribute("aria-current", "true")
        assert calls(page).nth(3).evaluate("call => call === document.activeElement")
        assert '"petal_length": 4' in page.get_by_role("tabpanel").inner_text()
        calls(page).nth(1).click()
        expect(page.locator(".trouble")).to_have_text("One value does not fit.")
        expect(page.get_by_label("petal_length")).to_have_value("six")
        calls(page).nth(0).click()
        expect(page.locator(".answer .value")).to_have_text("12 rows")
        assert downloaded(page)[0] == "flowers-answers.csv"
        assert [each for each in asked if not each.startswith("blob:")] == [], "what is looked at again is not asked again"
        page.reload()
        expect(history).to_have_text("Calls of this visit none yet")


def test_what_is_edited_while_an_answer_is_awaited_was_not_asked(browser: Browser, url: str) -> None:
    with Visit(browser, url) as page:

        def edit(route: Route) -> None:
            page.get_by_label("petal_length").fill("6.5")
            route.continue_()

        page.route("**/predict", edit)
        page.get_by_label("petal_length").fill("1.5")
        predict(page)
        answered(page)
        page.locator(".history summary").click()
        expect(calls(page)).to_contain_text("petal_length 1.5")
        calls(page).click()
        expect(page.get_by_label("petal_length")).to_have_value("1.5")


def test_pictures_of_earlier_calls_come_back_with_their_labels(browser: Browser) -> None:
    with live(make_service(by_colour, ALONE)) as running, Visit(browser, running.url) as page:
        choose(page, file("wall.png", plain("red")), file("sky.png", plain("blue")))
        expect(page.locator(".history .note")).to_have_text("2")
        page.locator(".history summary").click()
        page.get_by_role("button", name="Clear").click()
        calls(page).filter(has_text="wall.png").click()
        expect(label(page)).to_have_text("red")
        expect(page.locator(".view img")).to_have_attribute("alt", "wall.png")
        assert page.locator(".view img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        calls(page).filter(has_text="sky.png").click()
        expect(label(page)).to_have_text("blue")
        expect(calls(page)).to_have_count(2)


def test_the_history_keeps_the_last_fifty(browser: Browser, url: str) -> None:
    with Visit(browser, url) as page:
        page.locator(".history summary").click()
        for number in range(1, 53):
            page.get_by_label("petal_width").fill(str(number))
            predict(page)
            expect(page.locator(".history summary .note")).to_have_text(str(number) if number <= 50 else f"{number}, of which the last 50")
        expect(calls(page)).to_have_count(50)
        expect(calls(page).last).to_contain_text("petal_width 3")


# What the model is, in Markdown

ABOUT = """# Iris

Tells **three** irises apart by *four* measures; see [Fisher](https://example.org/fisher "1936") and `iris.csv`.
It was trained
on 150 flowers, a_b_c and 2 * 3 * 4.

## How well

1. Measure
2. Ask
   - twice
   - or `more`

| class | right |
|:--|--:|
| setosa | 100 |
| a \\| b | 94.5 |

> Not for *other* flowers.

```sh
curl <b>not bold</b>
```

---

<script>hacked = 1</script><img src=x onerror="hacked = 1"> [bad](javascript:hacked=1) ![pixel](https://example.org/pixel.png)
<https://example.org/a?b=1&c=2>, https://example.org/bare. \\*not slanted\\*
"""


def test_a_description_is_markdown_and_nothing_in_it_runs_or_loads(browser: Browser) -> None:
    with live(make_service(), description=ABOUT) as running, Visit(browser, running.url) as page:
        opening = page.locator("header .description p").first
        expect(opening).to_have_text(
            "Tells three irises apart by four measures; see Fisher and iris.csv. It was trained on 150 flowers, a_b_c and 2 * 3 * 4."
        )
        assert [each.inner_text() for each in opening.locator("strong, em, code").all()] == ["three", "four", "iris.csv"]
        link = opening.get_by_role("link", name="Fisher")
        assert [link.get_attribute(name) for name in ("href", "rel", "target")] == [
            "https://example.org/fisher", "noopener noreferrer", "_blank",
        ]  # fmt: skip
        page.get_by_role("button", name="More about it").click()
        about = page.get_by_role("region", name="About")
        expect(about).to_be_focused()
        expect(about).to_be_in_viewport()
        assert about.locator(".description > *").evaluate_all("all => all.map((each) => each.tagName)") == [
            "H2", "H3", "OL", "DIV", "BLOCKQUOTE", "PRE", "HR", "P",
        ]  # fmt: skip
        assert about.locator("ol > li").evaluate_all("all => all.map((each) => each.firstChild.textContent)") == ["Measure", "Ask"]
        expect(about.locator("ol ul li")).to_have_text(["twice", "or more"])
        expect(about.get_by_role("cell")).to_have_text(["setosa", "100", "a | b", "94.5"])
        assert about.locator("pre").inner_text() == "curl <b>not bold</b>"
        last = about.locator(".description > p").last
        expect(last).to_contain_text('<script>hacked = 1</script><img src=x onerror="hacked = 1"> [bad](javascript:hacked=1) pixel')
        expect(last).to_contain_text("https://example.org/bare. *not slanted*")
        assert last.get_by_role("link").evaluate_all("all => all.map((each) => each.getAttribute('href'))") == [
            "https://example.org/pixel.png", "https://example.org/a?b=1&c=2", "https://example.org/bare",
        ]  # fmt: skip
        assert page.locator("main img, main script").count() == 0
        assert page.evaluate("typeof hacked") == "undefined"
        page.goto(f"{running.url}/docs")
        expect(page.locator(".description strong").first).to_have_text("three")


@pytest.mark.parametrize("text", ["One line with `code`.", "Two\nlines.\n\nAnd *more*."])
def test_a_short_description_stands_above_the_form(browser: Browser, text: str) -> None:
    with live(make_service(), description=text) as running, Visit(browser, running.url) as page:
        assert page.locator("header .description").inner_text().split() == text.replace("`", "").replace("*", "").split()
        expect(page.get_by_role("region", name="About")).to_have_count(0)


def test_markdown_that_never_ends_is_read_in_time(browser: Browser) -> None:
    """Each would take for ever where one mark is sought anew from each that opens."""
    wide = "|a" * 5_000 + "\n" + "|-" * 5_000
    for text in ("*a " * 20_000, "[" * 40_000, "`" * 30_000, "> " * 5_000, "- " * 5_000 + "x", "**" * 30_000, wide):
        with live(make_service(), description=text) as running, Visit(browser, running.url) as page:
            expect(page.get_by_role("button", name="Predict")).to_be_visible()


# Together


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", ["desk", "phone"])
def test_all_of_it_fits_the_window_and_stands_out(browser: Browser, bundles: Callable[..., Bundle], scheme: str, width: str) -> None:
    options = {"color_scheme": scheme, "viewport": DESK if width == "desk" else PHONE}
    iris = bundles("grid_search", name="iris", title="Iris species", subtitle="Which iris is it?")
    rows = iris.read_json("example.json")
    with served(iris, description=ABOUT) as url, Visit(browser, url, **options) as page:
        predict(page)
        answered(page)
        page.get_by_label("petal_length").fill("much")
        predict(page)
        expect(page.locator(".trouble")).to_be_visible()
        header = [*rows[0], "where it was found"]
        lines = [",".join([*map(str, row.values()), "a meadow near the river"]) for row in rows * 5]
        bring(page, "a file with a name that is quite long.csv", "\n".join([",".join(header), *lines]))
        expect(page.get_by_role("link", name="Download with answers")).to_be_visible()
        page.locator(".history summary").click()
        seen, low = page.evaluate(CONTRAST)
        assert seen > 40
        assert low == []
        assert page.evaluate("document.documentElement.scrollWidth") <= options["viewport"]["width"]
        shot(page, f"visit-{width}-{scheme}")


# Another origin


def test_a_page_of_another_origin_calls_the_service_where_it_is_let(browser: Browser) -> None:
    question = f"""service => fetch(service + "/predict", {{ method: "POST", body: {json.dumps(json.dumps(FLOWER))},
        headers: {{ "Content-Type": "application/json" }} }}).then((reply) => reply.json(), (error) => error.name)"""
    with live(make_service()) as elsewhere:
        context = browser.new_context(bypass_csp=True)
        page = context.new_page()
        page.goto(f"{elsewhere.url}/livez")
        for cors, expected in (((elsewhere.url,), "setosa"), (("https://app.example.com",), "TypeError"), ((), "TypeError")):
            with live(make_service(), cors=cors) as running:
                answer = page.evaluate(question, running.url)
                assert (answer["prediction"] if isinstance(answer, dict) else answer) == expected
        context.close()
