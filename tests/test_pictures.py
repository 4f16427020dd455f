"""Pictures become pixels just as the training libraries make them; what must not come in is refused in words."""

from __future__ import annotations

import base64
import io
import random
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from modelport import pictures
from modelport.pictures import Head, PictureError, decode, look
from modelport.preprocessing import Preprocessing
from pictures_world import encoded, exif, hollow_png, image, noise, pattern, png_chunk, with_chunk, with_segment

SMALL = Preprocessing(32, 32)


def refused(data: bytes, how: Preprocessing | None = SMALL) -> str:
    with pytest.raises(PictureError) as caught:
        decode(data, how)
    return str(caught.value)


def near(one: Any, other: Any, most: int = 2) -> bool:
    return bool(np.abs(one.astype(int) - other.astype(int)).max() <= most)


# What a picture is


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_and_way_up_are_read_from_the_header(kind: str, orientation: int) -> None:
    data = encoded(image(40, 30), kind, exif=exif(orientation))
    assert look(data)[0] == Head(kind, 40, 30, orientation=orientation)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_each_kind_of_webp_says_its_size(lossless: bool, mode: str) -> None:
    picture = image(41, 29, mode)
    if mode == "RGBA":
        picture.putalpha(100)
    assert look(encoded(picture, "WEBP", lossless=lossless))[0] == Head("WEBP", 41, 29)


def test_metadata_never_reaches_the_decoder() -> None:
    bulk = b"x" * 60_000
    jpeg = encoded(image(), "JPEG")
    for marker in (*range(0xE1, 0xEE), 0xEF, 0xFE):
        assert look(with_segment(jpeg, marker, bulk)) == look(jpeg)
    png = encoded(image())
    bomb = b"Comment\0\0" + zlib.compress(b"\0" * 50_000_000)
    for kind in (b"iCCP", b"zTXt", b"tEXt", b"iTXt", b"eXIf", b"tIME", b"abCd"):
        assert look(with_chunk(png, kind, bomb)) == look(png)


def test_an_orientation_that_makes_no_sense_is_upright() -> None:
    plain = encoded(image(), "JPEG")
    assert look(encoded(image(), "JPEG", exif=exif(6)))[0].orientation == 6
    for tiff in (
        b"",
        b"II*\0",
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",
        b"XX*\0" * 10,
    ):
        assert look(with_segment(plain, 0xE1, b"Exif\0\0" + tiff))[0].orientation == 1


def test_a_jpeg_of_two_pictures_is_its_first() -> None:
    """Phones keep a second picture, of brightness, behind the first."""
    second = Image.new("RGB", (20, 20), "red")
    data = encoded(image(40, 30), "MPO", save_all=True, append_images=[second])
    assert data[:2] == b"\xff\xd8"
    assert near(decode(data), pattern(40, 30), 12)


# What is let in


def test_what_is_no_picture_is_called_by_its_name() -> None:
    for data, words in {
        b"": "is empty",
        b"%!PS-Adobe-3.0 EPSF-3.0": "is PostScript",
        b"%PDF-1.7": "is a PDF file",
        b"GIF89a" + bytes(20): "is a GIF",
        b"BM" + bytes(20): "is a BMP picture",
        b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>': "is an SVG drawing",
        b"  <svg onload=alert(1)>": "is an SVG drawing",
        b"<!doctype html><title>Not found</title>": "is HTML or XML",
        b"\0\0\0\x1cftypheic": "is a HEIC picture",
        b"\0\0\0\x1cftypavif": "is an AVIF picture",
        b'{"url": "x"}': "is JSON",
        b"hello": "is something else",
    }.items():
        assert refused(data) == f"{words}, and no JPEG, PNG or WEBP picture"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_that_is_cut_short_is_refused_wherever_it_is_cut(kind: str) -> None:
    data = encoded(Image.fromarray(noise(60, 50)), kind)
    for length in (*range(len(data) // 20, len(data), len(data) // 20), len(data) - 2, len(data) - 1):
        assert "picture" in refused(data[:length]) or "damaged" in refused(data[:length])
    assert refused(data[: len(data) // 2]) == "is cut short: the file ends before the picture does"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_bytes_are_refused_in_our_own_words_or_decoded(kind: str) -> None:
    """Whatever is changed, nothing but PictureError comes out, and never what the decoder says of its memory."""
    data = encoded(Image.fromarray(noise(30, 20)), kind, exif=exif(3))
    rng = random.Random(0)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            assert decode(bytes(damaged), SMALL).shape == (32, 32, 3)
        except PictureError as error:
            outcomes.add(str(error)[:20])
    assert outcomes
    assert all(text.startswith(("is ", "has ", "moves", "goes ")) for text in outcomes)


def test_limits_hold_before_a_byte_is_unpacked() -> None:
    assert refused(hollow_png(50_000, 50_000)) == "is 50,000 x 50,000 pixels; at most 10,000 each way are taken"
    assert refused(hollow_png(6_000, 5_000)) == "has 30,000,000 pixels (6,000 x 5,000); at most 25,000,000 are taken of a PNG"
    assert "at most 12,500,000 are taken of a WEBP" in refused(encoded(Image.new("L", (4_000, 3_500)).convert("RGB"), "WEBP"))


def test_a_jpeg_may_have_more_pixels_where_it_is_decoded_smaller() -> None:
    wide = encoded(Image.new("RGB", (8_000, 6_000), (200, 100, 50)), "JPEG")
    assert near(decode(wide, SMALL), np.full((32, 32, 3), (200, 100, 50)), 4)
    assert refused(wide, None) == "has 48,000,000 pixels (8,000 x 6,000); at most 25,000,000 are taken of a JPEG"


def test_a_picture_that_moves_is_refused() -> None:
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in range(0, 250, 50)]
    for kind in ("PNG", "WEBP"):
        moving = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=10)
        assert refused(moving) == "moves: it has 5 frames, and one is taken"
    many = with_chunk(encoded(image()), b"acTL", (10_000).to_bytes(4) + bytes(4))
    assert refused(many) == "moves: it has 10,000 frames, and one is taken"


def test_a_progressive_jpeg_may_not_go_over_its_pixels_for_ever() -> None:
    data = encoded(Image.new("RGB", (2_000, 2_000)), "JPEG", progressive=True)
    assert decode(data, SMALL).shape == (32, 32, 3)
    start = data.index(b"\xff\xda")
    scan = data[start : data.index(b"\xff", start + 2 + int.from_bytes(data[start + 2 : start + 4]))]
    assert "times over its 4,000,000 pixels" in refused(data[:-2] + scan * 200 + data[-2:])


def test_a_png_of_countless_chunks_is_refused() -> None:
    data = encoded(image())
    assert refused(data[:33] + png_chunk(b"abCd", b"") * 30_000 + data[33:]) == "is damaged, or of a variety that is not read"


def test_memory_stays_bounded_whatever_is_sent(tmp_path: Path) -> None:
    """The worst pictures that are let in, many at once, in a process of its own."""
    see_through = Image.new("RGBA", (5_000, 5_000), (255, 0, 0, 90))
    worst = [hollow_png(5_000, 5_000, 5_000), hollow_png(50_000, 50_000), hollow_png(9_999, 2, 2), encoded(see_through, compress_level=1)]
    worst += [encoded(see_through.convert(mode), "JPEG", progressive=True) for mode in ("RGB", "CMYK")]
    worst.append(encoded(see_through.resize((3_500, 3_500)), "WEBP", method=0))
    for number, data in enumerate(worst * 2):
        (tmp_path / f"{number:02}").write_bytes(data)
    program = """
        import sys
        from pathlib import Path
        from modelport import pictures
        from modelport.preprocessing import Preprocessing

        def peak():  # of this program alone: getrusage begins with that of whoever started it
            (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
            return int(line.split()[1])

        how = Preprocessing(224, 224, resize=256)
        pictures.decode(pictures.example(), how)
        before = peak()
        outcomes = pictures.decode_all([path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())], how)
        print(*(str(one)[:10] if isinstance(one, Exception) else one.shape for one in outcomes), sep="; ")
        print((peak() - before) // 1024)
    """
    environment = {"OMP_NUM_THREADS": "4", "PYTHONPATH": str(Path(pictures.__file__).parent.parent)}
    words = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    outcomes, megabytes = done.stdout.splitlines()
    assert outcomes.count("(224, 224, 3)") == 10
    assert int(megabytes) < 350, f"{megabytes} MB for {outcomes}"


# Colours


def test_colours_come_out_as_people_see_them() -> None:
    want = pattern(40, 30)
    grey = np.asarray(image(40, 30, "L"))
    for mode in ("RGB", "P", "RGBA", "CMYK", "L", "LA", "1"):
        picture = image(40, 30).quantize(64, dither=Image.Dither.NONE) if mode == "P" else image(40, 30, mode)
        kind = "JPEG" if mode == "CMYK" else "PNG"
        pixels = decode(encoded(picture, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {})))
        assert pixels.shape == (30, 40, 3)
        if mode in ("L", "LA"):
            assert near(pixels, np.stack([grey] * 3, axis=-1), 0)
        elif mode == "1":
            assert set(np.unique(pixels)) == {0, 255}
        else:
            assert near(pixels, want, 40 if mode == "P" else 12), mode


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    deep = np.linspace(0, 65535, 1200).reshape(30, 40).astype(np.uint16)
    pixels = decode(encoded(Image.fromarray(deep)))
    assert near(pixels[..., 0], deep >> 8, 0)
    assert pixels.min() == 0
    assert pixels.max() == 255


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_becomes_white(kind: str) -> None:
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (0, 0, 32, 64))
    picture.paste((0, 0, 255, 128), (0, 0, 32, 32))
    pixels = decode(encoded(picture, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
    assert near(pixels[40, 8], np.array([0, 0, 255]), 2)
    assert near(pixels[8, 8], np.array([127, 127, 255]), 3)
    assert near(pixels[40, 48], np.array([255, 255, 255]), 0)


def test_a_colour_that_stands_for_nothing_is_white_too() -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    assert near(decode(encoded(palette, transparency=1)), np.full((8, 8, 3), 255), 0)
    assert near(decode(encoded(palette, transparency=0)), np.full((8, 8, 3), (0, 255, 0)), 0)
    for mode, value in (("RGB", (10, 20, 30)), ("L", 77)):
        assert near(decode(encoded(Image.new(mode, (8, 8), value), transparency=value)), np.full((8, 8, 3), 255), 0)


def test_grey_models_get_one_channel() -> None:
    how = Preprocessing(10, 10, mode="L")
    assert decode(encoded(image()), how).shape == (10, 10, 1)
    assert near(decode(encoded(Image.new("RGB", (20, 20), (255, 0, 0))), how), np.full((10, 10, 1), 76), 0)


# The way up


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_turned_as_its_camera_noted(kind: str, orientation: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(image(40, 30), kind, exif=exif(orientation), **options)
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert near(decode(data), want, 0)
    assert near(decode(data, Preprocessing(30, 40, exif=False)), pattern(40, 30), 12)
    if orientation > 4:
        assert near(decode(data, Preprocessing(40, 30)), want, 0)


# Cut and resized


def torchvision(picture: Image.Image, resize: int, crop: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Resize and CenterCrop as torchvision 0.28 does them with Pillow's images."""
    width, height = picture.size
    short, long = min(width, height), max(width, height)
    new = (resize, int(resize * long / short)) if width <= height else (int(resize * long / short), resize)
    resized = picture.resize(new, Image.Resampling.BILINEAR)
    top, left = round((new[1] - crop[0]) / 2.0), round((new[0] - crop[1]) / 2.0)
    return np.asarray(resized.crop((left, top, left + crop[1], top + crop[0])))


def fastai(picture: Image.Image, size: tuple[int, int], method: str) -> np.ndarray[Any, Any]:
    """Resize as fast.ai 2.8 does it when it validates: crop, or pad with zeros."""
    (width, height), (w, h) = picture.size, (size[1], size[0])
    ratio = (max if method == "pad" else min)(width / w, height / h)
    part = int(ratio * w), int(ratio * h)
    left, top = int(0.5 * (width - part[0])), int(0.5 * (height - part[1]))
    return np.asarray(picture.crop((left, top, left + part[0], top + part[1])).resize((w, h), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("size", [(640, 480), (479, 641), (300, 300), (233, 97), (31, 500), (4000, 90), (460, 300), (90, 251)])
def test_pixels_are_those_of_the_training_libraries(size: tuple[int, int]) -> None:
    picture = Image.fromarray(noise(*size))
    data = encoded(picture)
    how = Preprocessing(224, 224, resize=256)
    assert near(decode(data, how), torchvision(picture, 256, (224, 224)), 0)
    assert near(decode(data, Preprocessing(96, 160)), fastai(picture, (96, 160), "crop"), 0)
    assert near(decode(data, Preprocessing(96, 160, pad="zeros")), fastai(picture, (96, 160), "pad"), 0)
    assert near(decode(data, Preprocessing(224, 224, pad="zeros")), fastai(picture, (224, 224), "pad"), 0)
    squished = np.asarray(picture.resize((160, 96), Image.Resampling.BILINEAR))
    assert near(decode(data, Preprocessing(96, 160, crop="none")), squished, 0)
    cut = np.asarray(picture.resize((256, 256), Image.Resampling.BILINEAR).crop((16, 16, 240, 240)))
    assert near(decode(data, Preprocessing(224, 224, resize=(256, 256))), cut, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_has_the_colour_that_lies_there_where_the_training_library_took_that(mode: str) -> None:
    picture = Image.fromarray(pattern(40, 30)).convert(mode)
    options = {"transparency": 3} if mode == "P" else {}
    if mode != "P":
        picture.putalpha(90)
    data = encoded(picture, **options)
    assert near(decode(data, Preprocessing(30, 40, alpha="dropped")), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), 0)


def test_padding_repeats_the_border_or_mirrors() -> None:
    picture = Image.fromarray(pattern(80, 40))
    border = decode(encoded(picture), Preprocessing(80, 80, pad="border"))
    assert near(border[:20], np.repeat(pattern(80, 40)[:1], 20, axis=0), 0)
    mirrored = decode(encoded(picture), Preprocessing(80, 80, pad="reflection"))
    assert near(mirrored[:20], pattern(80, 40)[1:21][::-1], 0)


def test_a_large_jpeg_decoded_smaller_is_the_same_to_the_eye() -> None:
    across, down = np.meshgrid(np.linspace(0, 9, 1600), np.linspace(0, 7, 1200))
    smooth = np.stack([np.sin(across * down), np.cos(across), np.sin(down)], axis=-1) * 100 + 128
    picture = Image.fromarray(smooth.astype(np.uint8))
    data = encoded(picture, "JPEG", quality=95)
    want = torchvision(Image.open(io.BytesIO(data)).convert("RGB"), 64, (56, 56))
    got = decode(data, Preprocessing(56, 56, resize=64))
    assert np.abs(got.astype(int) - want.astype(int)).mean() < 1
    assert near(got, want, 6)


def test_what_is_too_long_and_narrow_is_refused_rather_than_blown_up() -> None:
    thread = encoded(Image.new("RGB", (10_000, 1)))
    assert refused(thread, Preprocessing(224, 224, resize=256)) == "is 10,000 x 1 pixels: too long and narrow for this model"
    assert refused(thread, Preprocessing(224, 224, pad="zeros")) == "is 10,000 x 1 pixels: too long and narrow for this model"
    assert decode(thread, Preprocessing(224, 224)).shape == (224, 224, 3)


def test_several_are_decoded_at_once_and_fail_alone() -> None:
    good = encoded(image())
    outcomes = pictures.decode_all([good, b"no", good, b""] * 5, SMALL)
    assert [isinstance(one, PictureError) for one in outcomes] == [False, True] * 10
    assert pictures.decode_all([], SMALL) == []


# In texts and folders


def test_base64_comes_plain_in_lines_or_as_a_data_url() -> None:
    data = encoded(image())
    plain = base64.b64encode(data).decode()
    lines = base64.encodebytes(data).decode()
    for text in (plain, lines, f"data:image/png;base64,{plain}", f"data:;base64,{plain}"):
        assert pictures.from_base64(text) == data
    for text in ("not base64", "ÿ", plain[:-1], "data:image/png,xyz"):
        with pytest.raises(PictureError, match="is no picture in base64"):
            pictures.from_base64(text)


def test_the_made_example_is_a_picture_and_so_are_pixels_written() -> None:
    assert decode(pictures.example()).shape == (36, 48, 3)
    assert near(decode(pictures.png(pattern(20, 10))), pattern(20, 10), 0)


def test_examples_are_kept_small_and_upright() -> None:
    data = pictures.smaller(encoded(Image.fromarray(noise(800, 600)), "JPEG", exif=exif(6)), 100)
    assert look(data)[0] == Head("JPEG", 100, 133)
    assert look(pictures.smaller(encoded(image(40, 30)), 100))[0] == Head("JPEG", 40, 30)


def test_a_folder_is_looked_through_by_name(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/c.png", "a/notes.txt", "z.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.relative_to(tmp_path).as_posix() for path in pictures.find(tmp_path)] == ["a/c.png", "b.JPG", "z.webp"]
