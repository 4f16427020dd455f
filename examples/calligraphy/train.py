"""Draw words in three hands, as if they had been photographed, and train a small network with fast.ai to tell the hands apart."""

import json
import math
import random
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

HANDS = {
    "blackletter": ("fonts-blankenburg", ["Blankenburg_UNZ1A"]),
    "roman": ("fonts-dejavu-core", ["DejaVuSerif", "DejaVuSerif-Bold"]),
    "script": ("fonts-dancingscript", ["DancingScript-Regular", "DancingScript-Bold"]),
}
"""For each hand the package of Debian that has its fonts, and their files."""
WORDS = [
    "amber", "river", "quill", "garden", "winter", "letter", "copper", "market", "silver", "harbour", "linen", "candle", "orchard",
    "meadow", "lantern", "pepper", "thistle", "velvet", "walnut", "bramble", "anchor", "cobble", "feather", "granite", "heather",
    "ivory", "juniper", "kettle", "lavender", "mallow", "nettle", "October", "plover", "Quince", "Rowan", "Sorrel", "Tansy", "Umber",
    "Violet", "Willow", "Yarrow",
]  # fmt: skip
SIDE, EACH, EPOCHS = 128, 300, 8


def fonts(package: str, names: list[str]) -> list[Path]:
    """The files of fonts. Says which package to install where they are not here."""
    found = [path for name in names for path in Path("/usr/share/fonts").rglob(f"{name}.*") if path.suffix in (".ttf", ".otf")]
    if not found:
        sys.exit(f"no font {names[0]} in /usr/share/fonts: sudo apt-get install {package}")
    return sorted(found)


def drawn(font: Path) -> Image.Image:
    """Two or three words on paper, in ink, not quite straight, not quite sharp, and with grain."""
    ink, paper = random.randint(10, 90), random.randint(165, 250)
    page = Image.new("L", (2 * SIDE, 2 * SIDE), paper)
    pen = ImageDraw.Draw(page)
    letters = ImageFont.truetype(str(font), random.randint(26, 44))
    for line in range(random.randint(2, 3)):
        at = random.randint(40, 80), 70 + line * random.randint(40, 50)
        pen.text(at, " ".join(random.sample(WORDS, 2)), font=letters, fill=ink)
    page = waved(page.rotate(random.uniform(-7, 7), Image.Resampling.BICUBIC, fillcolor=paper))
    page = page.crop((SIDE // 2, SIDE // 2, SIDE // 2 + SIDE, SIDE // 2 + SIDE))
    pixels = np.asarray(page.filter(ImageFilter.GaussianBlur(random.uniform(0, 0.9))), np.float32)[..., None]
    light = np.linspace(random.uniform(0.85, 1.05), random.uniform(0.85, 1.05), SIDE)[:, None, None]
    tint = np.array([1.0, random.uniform(0.93, 1.0), random.uniform(0.8, 1.0)])
    grain = np.random.normal(0, random.uniform(2, 14), (SIDE, SIDE, 1))
    return Image.fromarray(np.clip(pixels * light * tint + grain, 0, 255).astype(np.uint8))


def waved(page: Image.Image) -> Image.Image:
    """The page as if it were not flat: columns and rows slide in waves."""
    pixels = np.asarray(page)
    high, wide = random.uniform(0, 3), random.uniform(0, 3)
    start, period = random.uniform(0, 2 * math.pi), random.uniform(60, 140)
    across, down = np.meshgrid(np.arange(page.width), np.arange(page.height))
    x = across + wide * np.sin(2 * math.pi * down / period + start)
    y = down + high * np.sin(2 * math.pi * across / period + start)
    return Image.fromarray(pixels[y.round().astype(int) % page.height, x.round().astype(int) % page.width])


def draw(folder: Path) -> None:
    """`EACH` pictures of every hand, in a folder of its name."""
    shutil.rmtree(folder, ignore_errors=True)
    for hand, (package, names) in HANDS.items():
        (folder / hand).mkdir(parents=True)
        files = fonts(package, names)
        for number in range(EACH):
            drawn(random.choice(files)).save(folder / hand / f"{hand}-{number:03}.jpg", quality=random.randint(60, 95))


def train(folder: Path) -> None:
    """Train on four fifths of the pictures, keep what was learnt, and a few pictures that it has not seen."""
    from fastai.vision.all import (
        ImageDataLoaders,
        Learner,
        Normalize,
        RandomResizedCrop,
        SimpleCNN,
        accuracy,
        nn,
        set_seed,
    )

    set_seed(0)
    loaders = ImageDataLoaders.from_folder(
        folder,
        valid_pct=0.2,
        seed=0,
        item_tfms=RandomResizedCrop(96, min_scale=0.6),
        batch_tfms=Normalize(),
        bs=16,
        num_workers=0,
    )
    network = nn.Sequential(SimpleCNN((3, 16, 32, 64, 128)), nn.Linear(128, len(HANDS)))
    learn = Learner(loaders, network, metrics=accuracy, path=".")
    with learn.no_bar():
        learn.fit_one_cycle(EPOCHS, 5e-3)
        right = learn.validate()[1]
    learn.export("model.pkl")
    shutil.rmtree("samples", ignore_errors=True)
    Path("samples").mkdir()
    unseen = sorted(loaders.valid_ds.items)
    for hand in HANDS:
        for number, path in enumerate([path for path in unseen if path.parent.name == hand][:2], 1):
            shutil.copy(path, f"samples/{hand}-{number}.jpg")
    Path("metrics.json").write_text(json.dumps({"accuracy": float(right)}))
    print(f"model.pkl: {right:.0%} of {len(unseen)} pictures right that it has not seen")


if __name__ == "__main__":
    random.seed(0)
    np.random.seed(0)
    warnings.filterwarnings("ignore")
    draw(Path("drawn"))
    train(Path("drawn"))
