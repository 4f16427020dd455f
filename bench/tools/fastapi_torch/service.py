"""The service of the tutorials: torchvision's network and transforms, an uploaded file."""

import io

import torch
from fastapi import FastAPI, UploadFile
from PIL import Image
from torchvision import models, transforms

app = FastAPI()
model = models.resnet18(num_classes=1000)
model.load_state_dict(torch.load("resnet.pt"))
model.eval()
with open("labels.txt") as file:  # noqa: PTH123 as the tutorials write it
    labels = file.read().split()
prepare = transforms.Compose(
    [
        transforms.Resize(224),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)


@app.post("/predict")
async def predict(image: UploadFile):
    picture = Image.open(io.BytesIO(await image.read())).convert("RGB")
    with torch.no_grad():
        chances = model(prepare(picture).unsqueeze(0)).softmax(dim=1)[0]
    best = int(chances.argmax())
    return {"prediction": labels[best], "probability": float(chances[best])}
