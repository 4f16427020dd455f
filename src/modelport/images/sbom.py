"""The parts that an image is made of, as CycloneDX: https://cyclonedx.org/docs/1.6/json/"""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

from modelport import __version__
from modelport.images.build import Image


def cyclonedx(image: Image) -> str:
    """The document, in JSON: what is installed, Modelport, the model and the base. The same image gives the same text."""
    bundle = image.plan.bundle
    parts = [_distribution(one.name, one.version, one.license) for one in image.components]
    parts.append(_distribution("modelport", __version__, "Apache-2.0"))
    model = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{image.plan.ref}",
        "name": bundle.name,
        "version": str(image.plan.version),
        "description": bundle.description or bundle.subtitle or bundle.card.cls,
        "hashes": [{"alg": "SHA-256", "content": bundle.digest.removeprefix("sha256:")}],
    }
    base = {
        "type": "container",
        "bom-ref": f"base:{image.base.name}",
        "name": image.base.name,
        "version": image.base.digest,
    }
    whole = {"type": "container", "bom-ref": f"image:{image.id}", "name": bundle.name, "version": image.id}
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{UUID(image.id.removeprefix('sha256:')[:32], version=4)}",
        "version": 1,
        "metadata": {
            "timestamp": json.loads(image.config)["created"],
            "tools": {"components": [{"type": "application", "name": "modelport", "version": __version__}]},
            "component": whole,
        },
        "components": [*parts, model, base],
        "dependencies": [{"ref": whole["bom-ref"], "dependsOn": sorted(part["bom-ref"] for part in (*parts, model, base))}],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _distribution(name: str, version: str, license: str) -> dict[str, Any]:
    """A distribution of the Python package index; https://github.com/package-url/purl-spec says how it is called."""
    url = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
    part: dict[str, Any] = {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}
    return {**part, "licenses": [{"expression": license}]} if license else part
