"""How long a picture takes to become pixels: Modelport beside Pillow as tutorials use it, on the same bytes.

"plain" is `Image.open(file).convert("RGB")`, then the same resize and crop: torchvision's Resize(256), CenterCrop(224). Modelport does its
checks as well. The difference is that of the pixels, of 255.
"""

from __future__ import annotations

import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from modelport import pictures
from modelport.preprocessing import Preprocessing

ROUNDS = 7
HOW = Preprocessing(224, 224, resize=256)


def run(*options: str) -> str:
    """The table."""
    lines = [
        "# Pictures",
        "",
        f"`python -m bench pictures`: the middle of {ROUNDS} interleaved rounds, in processor time.",
        "The peaks are what a fresh process grew by while it decoded the picture once.",
        '"plain" is Pillow\'s `open`, `convert("RGB")`, resize and crop.',
        "",
        "| picture | MB | plain ms | Modelport ms | times | mean difference | plain peak MB | Modelport peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, data in _pictures().items():
        plain, own = _measure(lambda data=data: _plain(data), lambda data=data: pictures.decode(data, HOW))
        difference = np.abs(_plain(data).astype(int) - pictures.decode(data, HOW).astype(int)).mean()
        peaks = [_peak(way, data) for way in ("plain", "own")]
        lines.append(
            f"| {name} | {len(data) / 1e6:.1f} | {plain * 1e3:.1f} | {own * 1e3:.1f} | {plain / own:.1f} | {difference:.2f} "
            f"| {peaks[0]:.0f} | {peaks[1]:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _pictures() -> dict[str, bytes]:
    """Pictures with detail of every size, as photographs have."""
    made = {}
    for name, (width, height), kind, more in (
        ("12 megapixels, JPEG", (4000, 3000), "JPEG", {"quality": 88}),
        ("12 megapixels, JPEG, progressive", (4000, 3000), "JPEG", {"quality": 88, "progressive": True}),
        ("48 megapixels, JPEG", (8000, 6000), "JPEG", {"quality": 88}),
        ("640 x 480, JPEG", (640, 480), "JPEG", {"quality": 88}),
        ("640 x 480, PNG", (640, 480), "PNG", {}),
        ("640 x 480, WEBP", (640, 480), "WEBP", {}),
    ):
        out = io.BytesIO()
        photo(width, height).save(out, kind, **more)
        made[name] = out.getvalue()
    return made


def photo(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(0)
    layers = np.zeros((height, width, 3), np.float32)
    for size, weight in ((8, 60), (40, 35), (200, 20), (1000, 6)):
        shape = max(2, height * size // 1000), max(2, width * size // 1000), 3
        coarse = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        layers += (np.asarray(coarse, np.float32) - 128) * weight / 60
    return Image.fromarray(np.clip(layers + 128, 0, 255).astype(np.uint8))


def _plain(data: bytes) -> Any:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    new = (256, int(256 * height / width)) if width <= height else (int(256 * width / height), 256)
    image = image.resize(new, Image.Resampling.BILINEAR)
    left, top = round((new[0] - 224) / 2), round((new[1] - 224) / 2)
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


def _measure(*ways: Callable[[], Any]) -> list[float]:
    """The middle of the seconds that each way takes."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for way, taken in zip(ways, seconds, strict=True):
            begun = time.process_time()
            way()
            taken.append(time.process_time() - begun)
    return [statistics.median(taken) for taken in seconds]


def _peak(way: str, data: bytes) -> float:
    """Megabytes that a fresh process grows by while it decodes."""
    done = subprocess.run([sys.executable, __file__, way], input=data, capture_output=True, check=True)
    return float(done.stdout)


def _high_water() -> int:
    """The most kilobytes that this program has used."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


if __name__ == "__main__":
    given = sys.stdin.buffer.read()
    (_plain if sys.argv[1] == "plain" else lambda data: pictures.decode(data, HOW))(pictures.example())
    before = _high_water()
    _plain(given) if sys.argv[1] == "plain" else pictures.decode(given, HOW)
    print((_high_water() - before) / 1024)
