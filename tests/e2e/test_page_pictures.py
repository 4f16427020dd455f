"""A real browser and pictures: dropped, pasted, chosen, named by URL; their labels beside them, from the keyboard and on a phone."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from test_page import CONTRAST, DESK, PHONE, Visit, answered, code, predict, shot
from test_page import browser as browser

from modelport.frameworks import tabular
from modelport.signature import Columns, Signature
from pictures_world import COLOURS, encoded, pattern, plain
from serving_world import live, make_service
from test_fetch import Server, picture
from test_serving_pictures import ALONE, BESIDE, by_colour, with_factor

ABOUT = {"title": "Which colour?", "subtitle": "Drop a picture, see its colour."}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with live(make_service(by_colour, ALONE, name="colours", **ABOUT)) as running:
        yield running.url


def file(name: str, data: bytes, kind: str = "image/png") -> dict[str, Any]:
    return {"name": name, "mimeType": kind, "buffer": data}


def wall(colour: str) -> bytes:
    """A picture that is mostly of one colour, for people to look at."""
    pixels = pattern(320, 240) // 3
    pixels[..., COLOURS.index(colour)] += 120
    pixels[60:180, 100:220, COLOURS.index(colour)] = 255
    return encoded(Image.fromarray(pixels), "JPEG", quality=90)


def choose(page: Page, *files: dict[str, Any]) -> None:
    page.locator("input[type=file]").first.set_input_files(list(files))


def transfer(page: Page, *files: dict[str, Any]) -> Any:
    """What a drop or a paste brings."""
    given = [[each["name"], each["mimeType"], base64.b64encode(each["buffer"]).decode()] for each in files]
    return page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [name, type, text] of files) {
                transfer.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name, { type }));
            }
            return transfer;
        }""",
        given,
    )


def label(page: Page) -> Any:
    return page.locator(".value").first


def test_the_page_begins_with_a_picture_and_predict_gives_its_label(browser: Browser, url: str) -> None:
    with Visit(browser, url) as page:
        expect(page.locator(".view img")).to_be_visible()
        assert page.locator(".view img").evaluate("image => image.naturalWidth") == 48
        expect(page.locator(".zone")).to_contain_text("example.png")
        predict(page)
        answered(page)
        assert label(page).inner_text() in COLOURS
        shares = [float(each.inner_text().strip("<> %")) for each in page.locator(".bar-value").all()]
        assert shares == sorted(shares, reverse=True)


def test_a_chosen_picture_is_shown_and_answered_at_once(browser: Browser, url: str) -> None:
    with Visit(browser, url) as page:
        choose(page, file("wall.jpg", wall("red"), "image/jpeg"))
        answered(page)
        expect(label(page)).to_have_text("red")
        expect(page.locator(".view img")).to_have_attribute("alt", "wall.jpg")
        expect(page.locator(".zone")).to_contain_text("wall.jpg, ")
        expect(page.locator(".gallery")).to_be_hidden()
        expect(page.get_by_role("status").filter(has_text="prediction: red")).to_have_count(1)
        choose(page, file("sky.png", plain("blue")))
        expect(label(page)).to_have_text("blue")


def test_a_picture_is_dropped_or_pasted(browser: Browser, url: str) -> None:
    with Visit(browser, url) as page:
        page.dispatch_event(".zone", "dragover", {"dataTransfer": transfer(page)})
        expect(page.locator(".zone")).to_have_class("zone filled over")
        page.dispatch_event(".zone", "drop", {"dataTransfer": transfer(page, file("leaf.png", plain("green")))})
        expect(label(page)).to_have_text("green")
        expect(page.locator(".zone")).to_have_class("zone filled")
        page.evaluate(
            "data => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))",
            transfer(page, file("image.png", plain("blue"))),
        )
        expect(label(page)).to_have_text("blue")
        page.evaluate("data => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }))", transfer(page))
        expect(page.locator(".tile")).to_have_count(2)


def test_several_pictures_are_a_gallery_with_their_labels(browser: Browser, url: str) -> None:
    with Visit(browser, url) as page:
        choose(page, *(file(f"{colour} {number}.jpg", wall(colour), "image/jpeg") for number in range(3) for colour in COLOURS))
        tiles = page.locator(".tile")
        expect(tiles).to_have_count(9)
        for number, colour in enumerate(COLOURS * 3):
            expect(tiles.nth(number)).to_contain_text(colour)
            assert "%" in tiles.nth(number).inner_text()
        expect(page.get_by_role("status").filter(has_text="9 pictures are answered.")).to_have_count(1)
        expect(label(page)).to_have_text("red")
        page.get_by_role("button", name="blue 1.jpg").click()
        expect(label(page)).to_have_text("blue")
        expect(page.locator(".view img")).to_have_attribute("alt", "blue 1.jpg")
        expect(page.get_by_role("button", name="blue 1.jpg")).to_have_attribute("aria-pressed", "true")
        choose(page, file("more.png", plain("green")))
        expect(tiles).to_have_count(10)
        expect(label(page)).to_have_text("green")
        shot(page, "pictures-gallery")
        page.get_by_role("button", name="Clear").click()
        expect(tiles).to_have_count(0)
        predict(page)
        expect(page.locator(".trouble")).to_have_text("Not sent.")
        expect(page.get_by_text("Is missing: choose a picture", exact=True)).to_be_visible()
        page.get_by_role("button", name="Fill example").click()
        predict(page)
        answered(page)


def test_what_is_no_picture_is_told_and_its_neighbours_are_answered(browser: Browser, url: str) -> None:
    with Visit(browser, url) as page:
        choose(page, file("cat.jpg", b"%!PS-Adobe-3.0", "image/jpeg"), file("wall.png", plain("red")))
        expect(page.locator(".trouble")).to_have_text("One value does not fit.")
        expect(page.locator(".answer")).to_contain_text("is PostScript, and no JPEG, PNG or WEBP picture")
        expect(page.locator(".tile.failed")).to_contain_text("not answered")
        page.get_by_role("button", name="wall.png").click()
        expect(label(page)).to_have_text("red")
        expect(page.locator(".trouble")).to_have_count(0)


def test_a_picture_is_named_by_its_url_where_that_is_allowed(browser: Browser, url: str) -> None:
    with Visit(browser, url) as page:
        expect(page.get_by_label("Address of a picture")).to_have_count(0)
    with Server(picture(body=wall("blue"), kind=b"image/jpeg")) as elsewhere:
        origin = f"http://127.0.0.1:{elsewhere.port}"
        with live(make_service(by_colour, ALONE, name="colours", **ABOUT), allow_url=(origin,)) as running:
            assert running.app.fetcher is not None
            running.app.fetcher._connect = lambda address, port, timeout_s: httpcore.SyncBackend().connect_tcp(address, port, timeout_s)
            with Visit(browser, running.url) as page:
                page.get_by_label("Address of a picture").fill(f"{origin}/sky.jpg")
                with page.expect_request("**/predict") as request:
                    page.get_by_label("Address of a picture").press("Enter")
                assert request.value.post_data_json == {"photo": {"url": f"{origin}/sky.jpg"}}
                expect(label(page)).to_have_text("blue")
                expect(page.locator(".view .elsewhere")).to_have_text(f"127.0.0.1:{elsewhere.port}")
                command = code(page, "curl").replace("curl ", "curl -sS ", 1)
                answer = json.loads(subprocess.run(["bash"], input=command, capture_output=True, text=True, check=True).stdout)
                assert answer["prediction"] == "blue"
                page.get_by_label("Address of a picture").fill("https://elsewhere.example/cat.jpg")
                page.get_by_role("button", name="Use the address").click()
                expect(page.locator(".answer")).to_contain_text("is a URL of a host that is not fetched from here")
                shot(page, "pictures-url")


def test_a_model_of_more_than_pictures_waits_for_the_button(browser: Browser) -> None:
    with live(make_service(with_factor, BESIDE, name="beside")) as running, Visit(browser, running.url) as page:
        choose(page, file("white.png", plain("white")))
        page.get_by_label("factor").fill("0.5")
        page.get_by_label("note").fill('two\nlines, "quoted"')
        with page.expect_request("**/predict") as request:
            predict(page)
        assert (request.value.headers["content-type"] or "").startswith("multipart/form-data")
        answered(page)
        assert page.locator(".value").first.inner_text() == "127.5"
        assert json.loads(page.locator(".raw pre").text_content() or "")["note"] == 'two\nlines, "quoted"'
        page.get_by_label("factor").fill("much")
        predict(page)
        expect(page.get_by_label("factor")).to_have_attribute("aria-invalid", "true")
        page.get_by_label("factor").fill("2")
        predict(page)
        expect(page.locator(".value").first).to_have_text("510")


def test_the_copied_code_sends_the_picture(browser: Browser, url: str, tmp_path: Path) -> None:
    (tmp_path / "my wall.jpg").write_bytes(wall("green"))

    def run(program: str, text: str) -> str:
        done = subprocess.run([program], input=text, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with Visit(browser, url) as page:
        choose(page, file("my wall.jpg", wall("green"), "image/jpeg"))
        answered(page)
        expected = json.loads(page.locator(".raw pre").text_content() or "")
        assert json.loads(run("bash", code(page, "curl").replace("curl ", "curl -sS ", 1))) == expected
        assert run(sys.executable, code(page, "Python")).strip() == str(expected)
        assert run(sys.executable, code(page, "requests")).strip() == str(expected)
        javascript = code(page, "JavaScript")
        choose(page)
        given = transfer(page, file("x", wall("green")))
        page.evaluate("given => { document.querySelector('input[type=file]').files = given.files; }", given)
        assert page.evaluate(f"async () => {{ {javascript.replace('console.log', 'return ')} }}") == expected


def test_the_keyboard_alone_is_enough_and_everything_has_a_name(browser: Browser, url: str) -> None:
    with Visit(browser, url) as page:
        reached = []
        for _ in range(12):
            page.keyboard.press("Tab")
            name, ring = page.evaluate("""() => {
                const at = document.activeElement;
                const shown = at.type === 'file' ? at.nextElementSibling : at;
                return [at.labels?.[0]?.textContent ?? at.textContent, getComputedStyle(shown).outlineStyle];
            }""")
            assert ring != "none", name
            reached.append(name)
            if name == "Predict":
                break
        assert [name for name in reached if name in ("Choose pictures", "Predict")] == ["Choose pictures", "Predict"]
        page.keyboard.press("Enter")
        answered(page)
        with page.expect_file_chooser() as chooser:
            page.locator("input[type=file]").first.focus()
            page.keyboard.press("Space")
        chooser.value.set_files([file("a.png", plain("red")), file("b.png", plain("blue"))])
        expect(label(page)).to_have_text("red")
        expect(page.locator(".tile").nth(1)).to_contain_text("blue")
        page.locator(".tile").nth(1).focus()
        page.keyboard.press("Enter")
        expect(label(page)).to_have_text("blue")
        assert page.evaluate("document.activeElement.textContent").startswith("blue"), "the keyboard stays where it was"
        nameless = """() => [...document.querySelectorAll('input, button, [role=group], img')]
            .filter((each) => !(each.labels?.length || each.ariaLabel || each.getAttribute('aria-labelledby') || each.alt))
            .filter((each) => !each.textContent.trim())
            .map((each) => each.outerHTML)"""
        assert page.evaluate(nameless) == []


def test_a_phone_offers_its_camera(browser: Browser, url: str) -> None:
    with Visit(browser, url) as page:
        expect(page.get_by_text("Take a photo")).to_be_hidden()
    with Visit(browser, url, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        expect(page.get_by_text("Take a photo")).to_be_visible()
        camera = page.locator("input[capture=environment]")
        assert camera.get_attribute("accept") == "image/jpeg,image/png,image/webp"
        camera.set_input_files([file("photo.jpg", wall("green"), "image/jpeg")])
        expect(label(page)).to_have_text("green")
        expect(page.locator(".bars li").first).to_be_in_viewport()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", ["desk", "phone"])
def test_all_text_stands_out_and_nothing_is_wider_than_the_window(browser: Browser, url: str, scheme: str, width: str) -> None:
    phone = {"viewport": PHONE, "has_touch": True, "is_mobile": True}
    options = {"color_scheme": scheme, **({"viewport": DESK} if width == "desk" else phone)}
    with Visit(browser, url, **options) as page:

        def check(name: str) -> None:
            seen, low = page.evaluate(CONTRAST)
            assert seen > 10
            assert low == []
            assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
            shot(page, f"pictures-{name}-{width}-{scheme}")

        check("before")
        choose(page, file("wall with a name that is quite long.jpg", wall("red"), "image/jpeg"))
        answered(page)
        check("one")
        more = [file(f"{number}.jpg", wall(colour), "image/jpeg") for number, colour in enumerate(COLOURS * 2)]
        choose(page, *more, file("cat.jpg", b"GIF89a", "image/jpeg"))
        expect(page.get_by_role("status").filter(has_text="8 pictures are answered.")).to_have_count(1)
        check("gallery")
        page.locator(".tile").last.click()
        expect(page.locator(".trouble")).to_be_visible()
        check("refused")


def test_a_picture_is_tried_from_the_reference(browser: Browser, url: str) -> None:
    with Visit(browser, url, "/docs") as page:
        form = page.get_by_role("form", name="Try it")
        form.get_by_label("Example").select_option(label="a picture")
        expect(form.get_by_label("Body")).to_be_hidden()
        form.get_by_label("Picture").set_input_files([file("wall.jpg", wall("blue"), "image/jpeg")])
        form.get_by_role("button", name="Send").click()
        expect(form.locator(".result strong")).to_have_text("200")
        assert json.loads(form.locator(".result pre").inner_text())["prediction"] == "blue"
        assert "--data-binary @wall.jpg" in page.get_by_role("tabpanel").inner_text()
        form.get_by_label("Example").select_option(index=0)
        form.get_by_role("button", name="Send").click()
        expect(form.locator(".result strong")).to_have_text("200")
        assert np.isfinite(json.loads(form.locator(".result pre").inner_text())["probabilities"]["red"])


def some_colours(columns: Columns) -> Columns:
    """All colours of which there is some; or none."""
    scores = columns["photo"].reshape(len(columns["photo"]), -1, 3).mean(axis=1) / 255
    return {"prediction": tabular.chosen(COLOURS, scores, 0.5), "scores": scores}


def test_several_labels_stand_in_one_line(browser: Browser) -> None:
    signature = Signature(ALONE.inputs, (tabular.several(COLOURS), tabular.vector("scores", COLOURS)))
    with live(make_service(some_colours, signature, name="colours", **ABOUT)) as running, Visit(browser, running.url) as page:
        choose(page, file("white.png", plain("white")))
        expect(label(page)).to_have_text("red, green, blue")
        expect(page.locator(".bars .chosen")).to_have_count(3)
        choose(page, file("black.png", plain("black")))
        expect(label(page)).to_have_text("none")
        expect(page.locator(".bars .chosen")).to_have_count(0)
        expect(page.locator(".tile").first).to_contain_text("red, green, blue")
