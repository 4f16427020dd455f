"""A real browser asks the functions of the forecast story: a switch between them, a curve with its band, and tables."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from test_page import CONTRAST, DESK, PHONE, Visit, answered, code, listening, predict, run, shot
from test_page import browser as browser

from modelport import engines, project
from modelport.bundle import Bundle
from modelport.packing import Options, pack_file
from modelport.serving.service import services_of

STORY = Path(__file__).parents[2] / "examples" / "forecast"
CURVE = """plot => ({
    line: plot.querySelector('.curve-line').getAttribute('points').split(' ').map((point) => point.split(',').map(Number)),
    band: plot.querySelector('.curve-band')?.getAttribute('points').split(' ').length,
    labels: [...plot.querySelectorAll('text')].map((text) => text.textContent),
    size: [plot.clientWidth, plot.clientHeight],
})"""


@contextmanager
def served(bundle: Bundle) -> Iterator[str]:
    with listening(*services_of(bundle.name, "1", bundle, engines.load(bundle))) as url:
        yield url


@pytest.fixture(scope="module")
def forecast_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The story from the start: trained, packed by its modelport.toml, served."""
    folder = tmp_path_factory.mktemp("story") / "forecast"
    shutil.copytree(STORY, folder)
    subprocess.run([sys.executable, "train.py"], cwd=folder, check=True, capture_output=True, timeout=120)
    found = project.find(folder)
    assert found is not None
    assert found.model is not None
    with served(pack_file(found.model, tmp_path_factory.mktemp("bundle"), Options(**found.options))) as url:
        yield url


def serve_source(source: str, folder: Path) -> Any:
    (folder / "service.py").write_text(dedent(source))
    (folder / "bundle").mkdir()
    return served(pack_file(folder / "service.py", folder / "bundle", Options()))


def curve(page: Page) -> dict[str, Any]:
    return page.locator(".curve-plot").evaluate(CURVE)


def test_the_forecast_shows_its_curve_with_the_band_and_the_values_under_the_pointer(browser: Browser, forecast_url: str) -> None:
    with Visit(browser, forecast_url) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("Beetle forecast")
        page.get_by_label("days").fill("90")
        predict(page)
        answered(page)
        days = json.loads(page.locator(".raw code").text_content() or "")["curve"]
        shown = curve(page)
        assert len(shown["line"]) == len(days) == 90
        assert shown["band"] == 180
        heights = [height for _, height in shown["line"]]
        expected = [day["expected"] for day in days]
        assert heights.index(min(heights)) == expected.index(max(expected)), "the highest point is that of the largest value"
        assert [x for x, _ in shown["line"]] == sorted(x for x, _ in shown["line"])
        assert {"0", "50", "100", "150", "200", "1 Apr", "15 Apr", "24 Jun"} <= set(shown["labels"])
        expect(page.locator(".curve-key")).to_have_text("expectedlower to upper")

        x, y = shown["line"][44]
        page.locator(".curve-plot").hover(position={"x": x, "y": y})
        day = days[44]
        expect(page.locator(".curve-key")).to_have_text(
            f"15 May 2025{day['expected']:g} ({day['lower']:g} to {day['upper']:g})".replace(".0 ", " ")
        )
        page.mouse.move(0, 0)
        expect(page.locator(".curve-key")).to_have_text("expectedlower to upper")


def test_the_curve_is_told_in_words_and_its_values_stand_in_a_table(browser: Browser, forecast_url: str) -> None:
    with Visit(browser, forecast_url) as page:
        predict(page)
        answered(page)
        expect(page.get_by_role("img", name="Curve: expected from ")).to_be_visible()
        expect(page.get_by_role("status").filter(has_text="curve: expected from ")).to_have_count(1)
        fold = page.get_by_text("As a table: 120 rows")
        fold.focus()
        page.keyboard.press("Enter")
        table = page.get_by_role("region", name="curve")
        expect(table.get_by_role("columnheader")).to_have_text(["day", "expected", "lower", "upper"])
        expect(table.get_by_role("row")).to_have_count(121)
        first = json.loads(page.locator(".raw code").text_content() or "")["curve"][0]
        expect(table.get_by_role("row").nth(1).get_by_role("cell")).to_have_text(
            [first["day"], *(f"{first[name]:g}" for name in ("expected", "lower", "upper"))]
        )


def test_each_function_has_a_form_an_answer_an_address_and_code_of_its_own(browser: Browser, forecast_url: str) -> None:
    with Visit(browser, forecast_url) as page:
        switch = page.get_by_role("navigation", name="Functions")
        expect(switch.get_by_role("link")).to_have_text(["predict", "peak"])
        page.get_by_role("radiogroup", name="region").get_by_label("island").check()
        switch.get_by_role("link", name="peak").click()
        expect(switch.locator("[aria-current]")).to_have_text("peak")
        expect(page.get_by_text("When the most sightings are to be expected.")).to_be_visible()
        assert page.get_by_label("days").count() == 0
        predict(page)
        answered(page)
        exact = json.loads(page.locator(".raw code").text_content() or "")
        assert exact.keys() == {"day", "sightings", "total"}
        assert json.loads(run("bash", code(page, "curl"))) == exact
        assert json.loads(run(sys.executable, code(page, "Python")).replace("'", '"')) == exact
        page.go_back()
        expect(page.get_by_role("radiogroup", name="region").get_by_label("island")).to_be_checked()
        page.goto(f"{forecast_url}/#peak")
        expect(switch.locator("[aria-current]")).to_have_text("peak")


def test_a_wrong_value_is_named_beside_the_field_of_the_function_that_is_shown(browser: Browser, forecast_url: str) -> None:
    with Visit(browser, forecast_url) as page:
        page.get_by_label("days").fill("366")
        predict(page)
        expect(page.locator(".field.wrong .note")).to_have_text("Expected an integer of at most 365, got 366")
        expect(page.get_by_label("days")).to_be_focused()


TABLES = """
    from dataclasses import dataclass
    from typing import Literal

    @dataclass
    class Place:
        name: str
        distance: float
        open: bool
        tags: list[str]
        note: str | None = None

    @dataclass
    class Spot:
        at: float
        value: float | None

    def places(most: int = 3) -> list[Place]:
        return [Place(f"<b>{at}</b>", 1234567.891 * at, at == 0, ["a"] * (at % 3), None if at else "first") for at in range(most)]

    def wave(scale: float = 1.0, points: int = 50) -> list[float]:
        return [scale * (at % 7) for at in range(points)]

    def gaps(points: int = 12) -> list[Spot]:
        return [Spot(at / 2, None if at in (4, 5) else -1000.0 + at) for at in range(points)]
"""


@pytest.fixture(scope="module")
def tables_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_source(TABLES, tmp_path_factory.mktemp("tables")) as url:
        yield url


def test_a_list_of_records_is_a_table(browser: Browser, tables_url: str) -> None:
    with Visit(browser, tables_url, "/#places") as page:
        table = page.get_by_role("region", name="places")
        expect(table.get_by_role("columnheader")).to_have_text(["name", "distance", "open", "tags", "note"])
        predict(page)
        answered(page)
        rows = [row.get_by_role("cell").all_inner_texts() for row in table.get_by_role("row").all()[1:]]
        assert rows == [
            ["<b>0</b>", "0", "yes", "[]", "first"],
            ["<b>1</b>", "1,234,568", "no", '["a"]', "none"],
            ["<b>2</b>", "2,469,136", "no", '["a","a"]', "none"],
        ]
        page.get_by_label("most").fill("600")
        predict(page)
        expect(page.get_by_text("The first 500 of 600 rows; the exact answer has them all.")).to_be_visible()


def test_a_list_of_numbers_is_a_curve(browser: Browser, tables_url: str) -> None:
    with Visit(browser, tables_url, "/#wave") as page:
        predict(page)
        answered(page)
        shown = curve(page)
        assert len(shown["line"]) == 50
        assert {"0", "2", "4", "6", "10", "40"} <= set(shown["labels"])
        page.get_by_label("points").fill("0")
        predict(page)
        expect(page.get_by_role("img", name="Curve: no values")).to_be_visible()
        page.get_by_label("points").fill("1")
        predict(page)
        expect(page.locator(".curve-plot > .curve-dot")).to_have_count(1)


def test_a_curve_is_broken_where_values_are_missing(browser: Browser, tables_url: str) -> None:
    with Visit(browser, tables_url, "/#gaps") as page:
        predict(page)
        answered(page)
        lines = page.locator(".curve-line")
        expect(lines).to_have_count(2)
        assert [len(line.get_attribute("points").split()) for line in lines.all()] == [4, 6]
        assert {"-1,000", "-990", "0", "5"} <= set(curve(page)["labels"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", ["desk", "phone"])
def test_curves_and_tables_fit_the_window_and_stand_out(
    browser: Browser, forecast_url: str, tables_url: str, scheme: str, width: str
) -> None:
    options = {"color_scheme": scheme, "viewport": DESK if width == "desk" else PHONE}
    for url, path in ((forecast_url, "/"), (forecast_url, "/#peak"), (tables_url, "/#places"), (tables_url, "/#wave")):
        with Visit(browser, url, path, **options) as page:
            predict(page)
            answered(page)
            for fold in page.locator(".fold summary").all():
                fold.click()
            seen, low = page.evaluate(CONTRAST)
            assert seen > 15
            assert low == []
            assert page.evaluate("document.documentElement.scrollWidth") <= options["viewport"]["width"]
            if page.locator(".curve-plot").count():
                assert curve(page)["size"][0] <= options["viewport"]["width"] - 60
            shot(page, f"functions-{path.strip('/#') or 'forecast'}-{width}-{scheme}")


def test_a_curve_is_drawn_anew_when_its_room_changes(browser: Browser, forecast_url: str) -> None:
    with Visit(browser, forecast_url) as page:
        predict(page)
        answered(page)
        before = curve(page)["size"]
        page.set_viewport_size(PHONE)
        page.wait_for_function("before => document.querySelector('.curve-plot').clientWidth < before", arg=before[0])
        assert curve(page)["size"][0] < 360


def test_the_reference_tries_a_function_by_get(browser: Browser, forecast_url: str) -> None:
    with Visit(browser, forecast_url, "/docs#peak.get") as page:
        operation = page.locator("[id='peak.get']")
        operation.get_by_label("region").fill("valley")
        operation.get_by_role("button", name="Send").click()
        expect(operation.locator(".result strong")).to_have_text("200")
        assert json.loads(operation.locator(".result pre").inner_text()).keys() == {"day", "sightings", "total"}
