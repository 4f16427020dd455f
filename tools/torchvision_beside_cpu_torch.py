"""Lets a torchvision that was built for CUDA be imported beside a torch that was not; `make torch` installs it where that is so.

On Linux the package index has torchvision for CUDA alone. Its compiled operators do not load without CUDA, and all of it that needs none
works without them, but for two operators whose shapes it describes when it is imported. They are declared here, just before that, and
refuse to run as torchvision itself does.

    python tools/torchvision_beside_cpu_torch.py       copies itself and a .pth file into the environment
"""

import shutil
import sys
from importlib.machinery import PathFinder
from pathlib import Path

NAME = "torchvision_beside_cpu_torch"
_kept = []


class Finder:
    """Finds torchvision where it is, and declares the operators before it runs."""

    def find_spec(self, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target) if name == "torchvision" else None
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def declared_first(module):
                _declare()
                run(module)

            spec.loader.exec_module = declared_first
        return spec


def _declare():
    import torch

    folder = next((Path(entry) / "torchvision" for entry in sys.path if (Path(entry) / "torchvision").is_dir()), Path())
    compiled = next(iter(sorted(folder.glob("_C*.so"))), None)
    known = hasattr(torch.ops.torchvision, "nms")
    if torch.version.cuda is None and compiled is not None and not known and b"libtorch_cuda" in compiled.read_bytes():
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)


def install():
    import sysconfig

    folder = Path(sysconfig.get_paths()["purelib"])
    shutil.copyfile(__file__, folder / f"{NAME}.py")
    (folder / f"{NAME}.pth").write_text(f"import {NAME}; {NAME}.begin()\n")


def begin():
    sys.meta_path.insert(0, Finder())


if __name__ == "__main__":
    install()
