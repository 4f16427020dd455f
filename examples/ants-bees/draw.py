"""Draw pictures of ants and of bees, each another one, and always the same ones."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 160, 120


def pictures(folder: str, count: int, seed: int) -> None:
    """So many of each, as folder/ants/000.jpg and folder/bees/000.jpg."""
    rng = np.random.default_rng(seed)
    for label, draw in (("ants", ant), ("bees", bee)):
        place = Path(folder, label)
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            animal(draw, rng).save(place / f"{number:03}.jpg", quality=88)


def animal(draw, rng: np.random.Generator) -> Image.Image:
    """One of them somewhere on a ground of sand, grass or petals, turned and lit in its own way."""
    ground = np.array([(214, 190, 140), (120, 160, 90), (235, 205, 220), (190, 190, 185)][rng.integers(4)], float)
    ground = ground * rng.uniform(0.8, 1.15) + rng.normal(0, 12, (HEIGHT // 4, WIDTH // 4, 1))
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR).convert("RGBA")
    layer = Image.new("RGBA", (240, 240))
    draw(ImageDraw.Draw(layer), rng)
    size = int(rng.uniform(80, 118))
    layer = layer.rotate(rng.uniform(0, 360), Image.Resampling.BICUBIC).resize((size, size), Image.Resampling.LANCZOS)
    at = (int(rng.uniform(8, WIDTH - size - 8)), int(rng.uniform(2 - size // 12, HEIGHT - size + size // 12)))
    picture.alpha_composite(layer, (at[0], max(0, at[1])))
    pixels = np.asarray(picture.convert("RGB").filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9))), float)
    return Image.fromarray((pixels * rng.uniform(0.8, 1.15) + rng.normal(0, 5, pixels.shape)).clip(0, 255).astype(np.uint8))


def ant(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """A head, a middle and a long hind part in one dark colour, six thin legs and two feelers."""
    dark = tuple(int(value) for value in np.array([70, 35, 20]) * rng.uniform(0.3, 1.4))
    for side in (-1, 1):
        for leg, lean in enumerate((-0.7, 0.0, 0.7)):
            x, y = 120, 108 + 9 * leg
            reach = rng.uniform(48, 66)
            knee = (x + side * reach * 0.6, y + reach * 0.5 * math.sin(lean) - 10)
            draw.line([(x, y), knee, (x + side * reach, y + reach * lean)], fill=dark, width=4)
        draw.line([(120, 70), (120 + side * 22, 44), (120 + side * 34, 34)], fill=dark, width=3)
    oval(draw, 120, 75, 17, 16, dark)
    oval(draw, 120, 115, 12, 24, dark)
    oval(draw, 120, 175, rng.uniform(22, 27), 40, dark)


def bee(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """A round body in yellow and black stripes, a furry middle, and four clear wings."""
    yellow = (int(rng.uniform(215, 250)), int(rng.uniform(160, 200)), int(rng.uniform(20, 60)))
    for side in (-1, 1):
        oval(draw, 120 + side * 48, 104, 42, rng.uniform(15, 20), (235, 240, 245, 190))
        oval(draw, 120 + side * 38, 134, 30, 13, (225, 232, 240, 190))
        draw.line([(120, 70), (120 + side * 14, 46)], fill=(30, 25, 20), width=3)
    width = rng.uniform(36, 42)
    oval(draw, 120, 160, width, 52, yellow)
    for stripe in (136, 158, 180, 200):
        half = width * math.sqrt(max(0.0, 1 - ((stripe - 160) / 52) ** 2))
        draw.line([(120 - half, stripe), (120 + half, stripe)], fill=(30, 25, 20), width=10)
    oval(draw, 120, 106, 27, 24, (130, 95, 40))
    oval(draw, 120, 74, 18, 15, (40, 32, 24))


def oval(draw: ImageDraw.ImageDraw, x: float, y: float, across: float, along: float, colour) -> None:
    draw.ellipse([x - across, y - along, x + across, y + along], fill=colour)
