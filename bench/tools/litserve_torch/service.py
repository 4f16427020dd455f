"""A LitServe service with batching, as its guide writes one for pictures."""

import io
import sys
from pathlib import Path

import litserve as ls
import torch
from fastapi import UploadFile
from PIL import Image
from torchvision import models, transforms


class ResNet(ls.LitAPI):
    def setup(self, device):
        self.model = models.resnet18(num_classes=1000)
        self.model.load_state_dict(torch.load("resnet.pt"))
        self.model.to(device).eval()
        self.labels = Path("labels.txt").read_text().split()
        normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        self.prepare = transforms.Compose([transforms.Resize(224), transforms.CenterCrop(224), transforms.ToTensor(), normalise])

    def decode_request(self, request: UploadFile):
        return self.prepare(Image.open(io.BytesIO(request.file.read())).convert("RGB"))

    def batch(self, inputs):
        return torch.stack(inputs)

    def predict(self, x):
        with torch.inference_mode():
            return self.model(x).softmax(dim=1)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, chances):
        best = int(chances.argmax())
        return {"prediction": self.labels[best], "probability": float(chances[best])}


if __name__ == "__main__":
    server = ls.LitServer(ResNet(max_batch_size=8, batch_timeout=0.005), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
