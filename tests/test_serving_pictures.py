"""Pictures in requests: as the body, in forms, in JSON, in tensors; and what bad ones get."""

from __future__ import annotations

import base64
import json
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from modelport import pictures
from modelport.preprocessing import Preprocessing
from modelport.serving import uploads
from modelport.signature import Columns, Field, Signature
from pictures_world import COLOURS, encoded, exif, hollow_png, image, noise, plain, with_chunk, with_segment
from serving_world import live, make_service

EXAMPLE = pictures.to_base64(pictures.example())
OUTPUTS = (Field("prediction", "category", choices=COLOURS), Field("probabilities", "number", shape=(3,), choices=COLOURS))
ALONE = Signature((Field("photo", "image", example=EXAMPLE, preprocessing=Preprocessing(8, 8)),), OUTPUTS)
BESIDE = Signature(
    (
        Field("photo", "image", example=EXAMPLE, preprocessing=Preprocessing(8, 8)),
        Field("factor", "number", example=1.0),
        Field("note", "text", nullable=True),
    ),
    (Field("redness", "number"), Field("note", "string", nullable=True)),
)


def by_colour(columns: Columns) -> Columns:
    """Which colour there is most of."""
    shares = columns["photo"].reshape(len(columns["photo"]), -1, 3).mean(axis=1) + 1
    shares = shares / shares.sum(axis=1, keepdims=True)
    return {"prediction": np.array(COLOURS, dtype=object)[shares.argmax(axis=1)], "probabilities": shares}


def with_factor(columns: Columns) -> Columns:
    return {"redness": columns["photo"][..., 0].mean(axis=(1, 2)) * columns["factor"], "note": columns["note"]}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with live(make_service(by_colour, ALONE, name="colours")) as running, running.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def beside() -> Iterator[httpx.Client]:
    with live(make_service(with_factor, BESIDE, name="beside")) as running, running.client() as opened:
        yield opened


def b64(colour: str) -> str:
    return base64.b64encode(plain(colour)).decode()


def post(client: httpx.Client, body: bytes, kind: str = "image/png", path: str = "/predict", **headers: str) -> httpx.Response:
    return client.post(path, content=body, headers={"Content-Type": kind, **headers})


def detail(answer: httpx.Response) -> str:
    """What is said of the picture."""
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/photo"
    return str(error["detail"])


# The body is the picture


@pytest.mark.parametrize(
    ("kind", "format"),
    [
        ("image/jpeg", "JPEG"), ("image/png", "PNG"), ("image/webp", "WEBP"), ("image/jpg", "JPEG"), ("application/x-image", "JPEG"),
        ("IMAGE/PNG; name=red.png", "PNG"), ("image/png", "JPEG"),
    ],
)  # fmt: skip
def test_a_picture_as_the_body_gives_its_record(client: httpx.Client, kind: str, format: str) -> None:
    for path in ("/predict", "/models/colours/predict", "/invocations"):
        answer = post(client, plain("red", kind=format), kind, path)
        assert answer.status_code == 200, answer.text
        assert answer.json()["prediction"] == "red"
        assert set(answer.json()["probabilities"]) == set(COLOURS)


def test_it_may_be_answered_as_csv(client: httpx.Client) -> None:
    answer = post(client, plain("green"), Accept="text/csv")
    assert answer.text.splitlines()[0] == "prediction,probabilities.red,probabilities.green,probabilities.blue"
    assert answer.text.splitlines()[1].startswith("green,")


def test_it_is_turned_upright_first() -> None:
    half = Image.new("RGB", (40, 20), "blue")
    half.paste((255, 0, 0), (0, 0, 20, 20))
    top = Signature((Field("photo", "image", example=EXAMPLE, preprocessing=Preprocessing(8, 4)),), (Field("prediction", "string"),))

    def upper(columns: Columns) -> Columns:
        red = columns["photo"][:, 0, :, 0].mean(axis=1) > columns["photo"][:, -1, :, 0].mean(axis=1)
        return {"prediction": np.where(red, "red is above", "red is below").astype(object)}

    with live(make_service(upper, top)) as running, running.client() as client:
        assert post(client, encoded(half, "JPEG", exif=exif(6)), "image/jpeg").json() == {"prediction": "red is above"}
        assert post(client, encoded(half, "JPEG", exif=exif(8)), "image/jpeg").json() == {"prediction": "red is below"}


def test_other_pictures_and_other_models_get_415(client: httpx.Client, beside: httpx.Client) -> None:
    answer = post(client, b"GIF89a", "image/gif")
    assert answer.status_code == 415
    assert "image/png" in answer.json()["hint"]
    assert "multipart/form-data" in answer.json()["hint"]
    assert post(beside, plain("red")).status_code == 415  # a picture alone is not all that this model needs
    with live(make_service()) as running, running.client() as iris:
        assert post(iris, plain("red")).status_code == 415
        assert iris.post("/predict", files={"file": b"x"}).status_code == 415


# What bad pictures get

TRUNCATED = encoded(Image.fromarray(noise(200, 200)), "JPEG")[:5000]
WHOLE = encoded(Image.fromarray(noise(20, 20)))
DAMAGED = WHOLE[:500] + bytes(byte ^ 255 for byte in WHOLE[500:520]) + WHOLE[520:]
BOMBS = {
    "50,000 x 50,000": (hollow_png(50_000, 50_000), "is 50,000 x 50,000 pixels; at most 10,000 each way are taken"),
    "30 megapixels": (hollow_png(6_000, 5_000), "has 30,000,000 pixels (6,000 x 5,000); at most 25,000,000 are taken of a PNG"),
    "truncated": (TRUNCATED, "is cut short: the file ends before the picture does"),
    "half a header": (plain("red")[:20], "is cut short: the file ends before the picture does"),
    "nothing": (b"", "is empty, and no JPEG, PNG or WEBP picture"),
    "not an image": (b"hello", "is something else, and no JPEG, PNG or WEBP picture"),
    "EPS named .jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9", "is PostScript, and no JPEG, PNG or WEBP picture"),
    "10,000 frames": (with_chunk(plain("red"), b"acTL", (10_000).to_bytes(4) + bytes(4)), "moves: it has 10,000 frames, and one is taken"),
    "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing, and no JPEG, PNG or WEBP picture"),
    "a TIFF": (b"II*\0" + bytes(50), "is a TIFF picture, and no JPEG, PNG or WEBP picture"),
    "damaged": (DAMAGED, "is damaged, or of a variety that is not read"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("way", ["body", "form", "json"])
def test_what_must_not_come_in_gets_words_that_people_understand(client: httpx.Client, name: str, way: str) -> None:
    data, words = BOMBS[name]
    if way == "body":
        answer = post(client, data, "image/jpeg")
    elif way == "form":
        answer = client.post("/predict", files={"photo": ("cat.jpg", data, "image/jpeg")})
    else:
        answer = client.post("/predict", json={"photo": base64.b64encode(data).decode()})
    assert detail(answer) == words
    assert len(answer.content) < 1000


RIGHT = {
    "CMYK": encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG", quality=95),
    "alpha": encoded(Image.new("RGBA", (20, 20), (255, 0, 0, 255))),
    "palette": encoded(Image.new("RGB", (20, 20), "red").quantize(4)),
    "1 x 1": encoded(Image.new("RGB", (1, 1), "red")),
    "10,000 x 1": encoded(Image.new("RGB", (10_000, 1), "red")),
    "an ICC bomb": with_chunk(plain("red"), b"iCCP", b"icc\0\0" + b"\x78\xda" + b"\0" * 9_000_000),
    "an EXIF bomb": with_segment(
        plain("red", kind="JPEG"), 0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x04\0\xff\xff\xff\xff" * 8000
    ),
    "a comment of a bomb": with_chunk(plain("red"), b"zTXt", b"x\0\0" + b"\x78\xda" + b"\0" * 9_000_000),
    "12 megapixels": encoded(Image.new("RGB", (4_000, 3_000), "red"), "JPEG"),
    "a page behind it": plain("red") + b"<script>alert(1)</script>",
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_unusual_and_good_gets_the_right_answer(client: httpx.Client, name: str) -> None:
    answer = post(client, RIGHT[name], "image/jpeg")
    assert answer.status_code == 200, answer.text
    assert answer.json()["prediction"] == "red"


def test_sixteen_bits_are_not_cut_off(beside: httpx.Client) -> None:
    deep = encoded(Image.fromarray(np.full((9, 9), 0x8000, np.uint16)))
    assert beside.post("/predict", files={"photo": deep}, data={"factor": "1"}).json()["redness"] == 0x80


def test_forty_megabytes_are_refused(client: httpx.Client) -> None:
    answer = post(client, bytes(40_000_000), "image/jpeg")
    assert answer.status_code == 413
    big = plain("red") + bytes(11 * 2**20)
    for answer in (post(client, big), client.post("/predict", files={"photo": big})):
        assert (answer.status_code, answer.json()["detail"]) == (
            413,
            f"the picture has {len(big):,} bytes; at most 10,485,760 are taken",
        )
    with live(make_service(by_colour, ALONE), max_picture_bytes=100) as running, running.client() as small:
        assert post(small, plain("red", 300, 300)).status_code == 413


def test_health_is_answered_while_a_large_picture_is_decoded() -> None:
    order: list[str] = []
    large = encoded(Image.new("RGBA", (5_000, 5_000), (255, 0, 0, 200)))
    with live(make_service(by_colour, ALONE)) as running, running.client() as slow, running.client() as quick:

        def ask() -> None:
            assert post(slow, large).status_code == 200
            order.append("picture")

        asking = threading.Thread(target=ask)
        asking.start()
        while not order:
            answer = quick.get("/metrics")
            if "modelport_requests_in_flight 2.0" in answer.text:
                order.append("health")
        asking.join()
    assert order == ["health", "picture"]


# Forms


def test_a_form_with_one_file_gives_a_record_and_with_several_a_list(client: httpx.Client) -> None:
    assert client.post("/predict", files={"photo": plain("blue")}).json()["prediction"] == "blue"
    assert client.post("/predict", files={"file": ("a.png", plain("red"), "image/png")}).json()["prediction"] == "red"
    files = [("photo[]", (f"{colour}.png", plain(colour), "image/png")) for colour in ("green", "red", "blue")]
    answer = client.post("/predict", files=files)
    assert [record["prediction"] for record in answer.json()] == ["green", "red", "blue"]


def test_other_fields_of_a_form_are_read_as_cells_of_csv_are(beside: httpx.Client) -> None:
    white = {"photo": plain("white")}
    assert beside.post("/predict", files=white, data={"factor": "0.5", "note": "a, b\nÿ"}).json() == {"redness": 127.5, "note": "a, b\nÿ"}
    assert beside.post("/predict", files=white, data={"factor": "2"}).json() == {"redness": 510.0, "note": None}
    two = [("photo", plain("white")), ("photo", plain("black"))]
    each = beside.post("/predict", files=two, data={"factor": ["1", "2"], "note": "both"})
    assert each.json() == [{"redness": 255.0, "note": "both"}, {"redness": 0.0, "note": "both"}]
    answer = beside.post("/predict", files=white, data={"factor": "much"})
    assert answer.json()["errors"][0]["pointer"] == "/factor"
    assert 'the string "much"' in answer.json()["errors"][0]["detail"]
    assert beside.post("/predict", files=white).json()["errors"][0]["pointer"] == "/factor"


def test_forms_that_do_not_fit_are_refused(client: httpx.Client, beside: httpx.Client) -> None:
    many = [("photo", plain("red", 2, 2))] * 17
    assert client.post("/predict", files=many).status_code == 413
    white = ("photo", plain("white"))
    wrong = beside.post("/predict", files=[white], data={"factr": "1", "factor": "1"})
    assert wrong.json()["errors"] == [
        {"pointer": "/factr", "detail": "there is no field 'factr'; did you mean \"factor\"?", "expected": "", "got": None}
    ]
    uneven = beside.post("/predict", files=[white] * 3, data={"factor": ["1", "2"]})
    assert "stands there 2 times, and another field 3 times" in uneven.json()["errors"][0]["detail"]
    assert beside.post("/predict", files=[white], data={"factor": b"\xff"}).json()["detail"] == (
        "the part 'factor' of the form is no UTF-8 text"
    )
    boundary = "multipart/form-data; boundary=x"
    good = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n' + plain("red") + b"\r\n--x--\r\n"
    assert post(client, good, boundary).json()["prediction"] == "red"
    for body, kind, status in (
        (good, "multipart/form-data", 415),
        (good[:-10], boundary, 400),
        (b"", boundary, 400),
        (b"--y\r\n\r\n", boundary, 400),
        (good.replace(b"form-data", b"attachment"), boundary, 400),
        (good.replace(b'; name="photo"', b""), boundary, 400),
        (good, f"multipart/form-data; boundary={'x' * 300}", 400),
        (b"--x\r\n" + b"A: b\r\n" * 50 + good[5:], boundary, 400),
        (b"--x--\r\n", boundary, 422),
    ):
        answer = post(client, body, kind)
        assert answer.status_code == status, (body, answer.text)


# JSON


def test_json_holds_pictures_in_base64(client: httpx.Client) -> None:
    record = {"photo": b64("red")}
    assert client.post("/predict", json=record).json()["prediction"] == "red"
    many = [record, {"photo": f"data:image/png;base64,{b64('blue')}"}, {"photo": {"b64": b64("green")}}, {"b64": b64("red")}]
    assert [one["prediction"] for one in client.post("/predict", json=many).json()] == ["red", "blue", "green", "red"]
    instances = {"instances": [b64("red"), {"b64": b64("blue")}, {"photo": b64("green")}]}
    answer = client.post("/v1/models/colours:predict", json=instances)
    assert [one["prediction"] for one in answer.json()["predictions"]] == ["red", "blue", "green"]


def test_every_wrong_picture_of_a_list_is_named(client: httpx.Client) -> None:
    sent = [{"photo": b64("red")}, {"photo": "?"}, {"photo": None}, {"photo": base64.b64encode(b"GIF89a").decode()}, {"picture": 1}, 7]
    errors = client.post("/predict", json=sent).json()["errors"]
    assert {error["pointer"] for error in errors} == {"/1/photo", "/2/photo", "/3/photo", "/4/picture", "/4/photo", "/5"}


def test_urls_are_not_fetched_unless_that_is_allowed(client: httpx.Client) -> None:
    for body in ({"url": "https://example.com/cat.jpg"}, {"photo": {"url": "https://example.com/cat.jpg"}}):
        assert detail(client.post("/predict", json=body)) == (
            "is named by its URL, and this service fetches none: it was started without --allow-url"
        )
    assert client.get("/predict", params={"url": "https://example.com/cat.jpg"}).status_code == 405
    assert client.get("/", headers={"Accept": "application/json"}).json()["fetches_urls"] is False


def test_bodies_with_urls_are_looked_through_within_reason() -> None:
    nested: Any = {"url": "a"}
    for _ in range(50):
        nested = [nested, {"x": {"url": "b", "more": 1}}]
    assert uploads.urls_in(nested) == ["a"]


def test_the_service_says_what_it_takes_of_a_picture(client: httpx.Client) -> None:
    (field,) = client.get("/", headers={"Accept": "application/json"}).json()["signature"]["inputs"]
    assert field["preprocessing"] == {"height": 8, "width": 8}


# Tensors


def infer(client: httpx.Client, inputs: list[dict[str, Any]], blobs: bytes = b"", name: str = "colours", **more: Any) -> httpx.Response:
    text = json.dumps({"inputs": inputs, **more}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))}
    if not blobs:
        return client.post(f"/v2/models/{name}/infer", content=text, headers={"Content-Type": "application/json"})
    return client.post(f"/v2/models/{name}/infer", content=text + blobs, headers=headers)


def texts(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def labels(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return list(answer.json()["outputs"][0]["data"])


def test_v2_takes_pictures_as_base64_as_bytes_and_as_pixels(client: httpx.Client) -> None:
    assert client.get("/v2/models/colours").json()["inputs"] == [{"name": "photo", "datatype": "BYTES", "shape": [-1]}]
    both = ["red", "blue"]
    for shape in ([2], [2, 1]):
        tensor = {"name": "photo", "shape": shape, "datatype": "BYTES"}
        assert labels(infer(client, [{**tensor, "data": [b64(colour) for colour in both]}])) == both
        blob = texts(*(plain(colour) for colour in both))
        assert labels(infer(client, [{**tensor, "parameters": {"binary_data_size": len(blob)}}], blob)) == both
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    pixels[0, ..., 0] = pixels[1, ..., 2] = 255
    tensor = {"name": "photo", "shape": [2, 8, 8, 3], "datatype": "UINT8"}
    assert labels(infer(client, [{**tensor, "data": pixels.ravel().tolist()}])) == both
    assert labels(infer(client, [{**tensor, "parameters": {"binary_data_size": pixels.nbytes}}], pixels.tobytes())) == both
    small = infer(client, [{"name": "photo", "shape": [1, 4, 4, 3], "datatype": "UINT8", "data": [0] * 48}])
    assert (small.status_code, "expected [rows, 8, 8, 3]" in small.json()["error"]) == (400, True)


def test_v2_answers_in_bytes_where_that_is_wanted(client: httpx.Client) -> None:
    tensor = {"name": "photo", "shape": [1], "datatype": "BYTES", "data": [b64("red")]}
    for more in (
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": name, "parameters": {"binary_data": True}} for name in ("prediction", "probabilities")]},
    ):
        answer = infer(client, [tensor], **more)
        assert answer.headers["content-type"] == "application/octet-stream"
        length = int(answer.headers["inference-header-content-length"])
        head, blob = json.loads(answer.content[:length]), answer.content[length:]
        sizes = [output["parameters"]["binary_data_size"] for output in head["outputs"]]
        assert blob[: sizes[0]] == texts(b"red")
        numbers = np.frombuffer(blob[sizes[0] :], "<f8")
        assert (sum(sizes), numbers.shape, numbers.argmax()) == (len(blob), (3,), 0)
    one = infer(client, [tensor], outputs=[{"name": "prediction"}, {"name": "probabilities", "parameters": {"binary_data": True}}])
    assert json.loads(one.content[: int(one.headers["inference-header-content-length"])])["outputs"][0]["data"] == ["red"]


@pytest.mark.parametrize(
    ("kind", "numpy"),
    [("FP32", "<f4"), ("FP64", "<f8"), ("FP16", "<f2"), ("INT8", "i1"), ("INT32", "<i4"), ("UINT16", "<u2"), ("BOOL", "?")],
)
def test_v2_takes_numbers_and_tensors_as_bytes(kind: str, numpy: str) -> None:
    inputs = (Field("one", "boolean" if kind == "BOOL" else "number"), Field("all", "tensor", "float64", (2, 2)), Field("text", "text"))
    outputs = (Field("sum", "number"), Field("text", "string"))

    def add(columns: Columns) -> Columns:
        return {"sum": columns["one"] + columns["all"].sum(axis=(1, 2)), "text": columns["text"]}

    examples = (kind == "BOOL" or 1.0, [[1.0, 2.0], [3.0, 4.0]], "x")
    signature = Signature(tuple(replace(one, example=value) for one, value in zip(inputs, examples, strict=True)), outputs)
    one, all_of_it = np.array([1, 0], numpy), np.arange(8).astype("<f4" if kind == "BOOL" else numpy).reshape(2, 2, 2)
    blobs = [one.tobytes(), all_of_it.tobytes(), texts(b"a", "ÿ".encode())]
    shapes = {"one": [2], "all": [2, 2, 2], "text": [2, 1]}
    kinds = {"one": kind, "all": "FP32" if kind == "BOOL" else kind, "text": "BYTES"}
    tensors = [
        {"name": name, "shape": shapes[name], "datatype": kinds[name], "parameters": {"binary_data_size": len(blob)}}
        for name, blob in zip(shapes, blobs, strict=True)
    ]
    with live(make_service(add, signature, name="sums", golden=False, warm=False)) as running, running.client() as client:
        answer = infer(client, tensors, b"".join(blobs), "sums")
        assert answer.status_code == 200, answer.text
        assert [output["data"] for output in answer.json()["outputs"]] == [[7.0, 22.0], ["a", "ÿ"]]


def test_v2_bytes_that_do_not_add_up_are_refused(client: httpx.Client) -> None:
    blob = texts(plain("red"))
    tensor = {"name": "photo", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
    for change, more, said in (
        ({}, b"!", "1 bytes behind the JSON belong to no tensor"),
        ({"parameters": {"binary_data_size": len(blob) + 1}}, b"", "bytes are left behind the JSON"),
        ({"parameters": {"binary_data_size": -1}}, b"", "is -1"),
        ({"parameters": {"binary_data_size": len(blob) - 1}}, b"", "is cut short"),
        ({"shape": [2]}, b"", "1 values do not fill the shape [2]"),
        ({"data": ["x"]}, b"", "stands there, and behind the JSON too"),
        ({"datatype": "UINT8", "shape": [1, 8, 8, 3]}, b"", "UINT8 of the shape [1, 8, 8, 3] has 192"),
        ({"datatype": "BF16"}, b"", "'BF16' is not taken"),
    ):
        answer = infer(client, [{**tensor, **change}], blob + more)
        assert (answer.status_code, said in answer.json()["error"]) == (400, True), answer.text
    headers = {"Inference-Header-Content-Length": "9", "Content-Type": "application/octet-stream"}
    wrong = client.post("/v2/models/colours/infer", content=b"{}", headers=headers)
    assert "Inference-Header-Content-Length is '9', and the body has 2 bytes" in wrong.json()["error"]


def test_a_service_of_pictures_measures_its_model_and_not_the_decoding() -> None:
    calls: list[int] = []

    def counted(columns: Columns) -> Columns:
        calls.append(len(columns["photo"]))
        return by_colour(columns)

    service = make_service(counted, ALONE)
    assert max(calls) == 512
    assert service.pace.known


def test_images_stand_where_their_name_says(client: httpx.Client) -> None:
    assert image(3, 2).size == (3, 2)
    assert client.post("/predict", json={"photo": EXAMPLE}).status_code == 200
