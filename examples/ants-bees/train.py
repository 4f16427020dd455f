"""Draw ants and bees, train a ResNet-18 to tell them apart, and keep a checkpoint as people do."""

import json
import shutil
from pathlib import Path

import torch
from draw import pictures
from model import make_model
from torchvision import datasets, transforms

EPOCHS = 6
torch.manual_seed(0)

for folder, count, seed in (("data/train", 150, 1), ("data/val", 30, 2)):
    pictures(folder, count, seed)
Path("photos").mkdir(exist_ok=True)
for number in range(6):
    for label in ("ants", "bees"):
        shutil.copyfile(f"data/val/{label}/{number:03}.jpg", f"photos/{label[:-1]}-{number}.jpg")

look = [transforms.Resize(56), transforms.CenterCrop(48)]
numbers = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
turned = [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip()]
train = datasets.ImageFolder("data/train", transforms.Compose([*look, *turned, *numbers]))
val = datasets.ImageFolder("data/val", transforms.Compose([*look, *numbers]))
Path("labels.txt").write_text("\n".join(train.classes) + "\n")

model = make_model()
optimizer = torch.optim.AdamW(model.parameters())
batches = torch.utils.data.DataLoader(train, batch_size=20, shuffle=True)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.0015, total_steps=EPOCHS * len(batches))
loss_of = torch.nn.CrossEntropyLoss()

for epoch in range(EPOCHS):
    model.train()
    total = 0.0
    for images, labels in batches:
        optimizer.zero_grad()
        loss = loss_of(model(images), labels)
        loss.backward()
        optimizer.step()
        scheduler.step()
        total += loss.item() * len(labels)
    model.eval()
    with torch.no_grad():
        right = sum((model(images).argmax(1) == labels).sum().item() for images, labels in torch.utils.data.DataLoader(val, batch_size=30))
    print(f"epoch {epoch + 1}: loss {total / len(train):.3f}, {right} of {len(val)} pictures right that it has not seen")

Path("metrics.json").write_text(json.dumps({"accuracy": right / len(val)}))
torch.save(
    {"epoch": EPOCHS, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "accuracy": right / len(val)},
    "checkpoint.pt",
)
