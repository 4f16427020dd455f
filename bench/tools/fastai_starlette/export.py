"""`python export.py FOLDER`: a ResNet-18 of fast.ai for two kinds of pictures of 224 px, exported to FOLDER/export.pkl; not trained."""

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from fastai.vision.all import ImageDataLoaders, Normalize, Resize, imagenet_stats, resnet18, vision_learner
from PIL import Image

warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
with tempfile.TemporaryDirectory() as data:
    for label in ("ants", "bees"):
        for number in range(8):
            path = Path(data) / label / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.random.default_rng(number).integers(0, 256, (240, 320, 3), dtype=np.uint8)).save(path)
    loaders = ImageDataLoaders.from_folder(
        data, valid_pct=0.5, seed=0, item_tfms=Resize(224), batch_tfms=[Normalize.from_stats(*imagenet_stats)], bs=4, num_workers=0
    )
    learn = vision_learner(loaders, resnet18, pretrained=False, path=folder)
    learn.export("export.pkl")
