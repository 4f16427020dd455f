"""As FastAPI and torch do it best: frozen TorchScript, numpy for what comes before it, a raw body, no torchvision."""

import io

import numpy as np
import torch
from fastapi import FastAPI, Request
from PIL import Image

app = FastAPI()
torch.set_num_threads(1)
model = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.load("resnet.torchscript").eval()))
with open("labels.txt") as file:  # noqa: PTH123 as the tutorials write it
    labels = file.read().split()
mean = np.array([0.485, 0.456, 0.406], np.float32)
std = np.array([0.229, 0.224, 0.225], np.float32)


@app.post("/predict")
async def predict(request: Request):
    picture = Image.open(io.BytesIO(await request.body())).convert("RGB")
    pixels = (np.asarray(picture, np.float32) / 255 - mean) / std
    with torch.inference_mode():
        chances = model(torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()).softmax(dim=1)[0]
    best = int(chances.argmax())
    return {"prediction": labels[best], "probability": float(chances[best])}
