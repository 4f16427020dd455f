"""The network: a ResNet-18 for two classes. train.py fits it, and whoever loads its weights needs it again."""

from torchvision.models import resnet18


def make_model():
    return resnet18(num_classes=2)
