"""What `modelport show` says of an image: which bundle it serves, what that takes and gives, and where it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelport.images.labels import About

_OCI = "org.opencontainers.image."


def text(ref: str, *, as_json: bool) -> str:
    """The image in a file or a registry, told. UsageError when the file is none; RegistryError when the registry does not say."""
    from modelport.cli.build import open_registry
    from modelport.images import labels
    from modelport.images.names import Name

    about = labels.in_tar(Path(ref)) if Path(ref).is_file() else labels.in_registry(Name.parse(ref), open_registry)
    return _as_json(ref, about) if as_json else _page(ref, about)


def _page(ref: str, about: About) -> str:
    from modelport.cli.output import aligned, size
    from modelport.cli.show import field_tables, lineage_facts

    said = about.labels
    model = about.said("model") or {}
    facts = [
        ("image", ref),
        ("digest", about.digest),
        ("for", about.platform),
        ("size", f"{size(about.size)} compressed"),
        ("user", about.user),
        ("created", about.created),
        ("base", " ".join(filter(None, (said.get(f"{_OCI}base.name"), said.get(f"{_OCI}base.digest"))))),
        ("bundle", said.get("modelport.bundle.ref", "")),
        ("", said.get("modelport.bundle.digest", "")),
        ("model", ", ".join(filter(None, (model.get("class"), f"{model.get('library', '')} {model.get('version') or ''}".strip())))),
        ("engine", said.get("modelport.engine", "")),
        ("modelport", said.get("modelport.version", "")),
        *lineage_facts(about.said("lineage") or {}),
    ]
    parts = [aligned([(name, value) for name, value in facts if value])]
    signature = about.signature()
    if signature is not None:
        parts += field_tables(signature)
    if "modelport.bundle.digest" not in said:
        parts.append("It has no labels of Modelport: it was made by something else.")
    return "\n\n".join(parts)


def _as_json(ref: str, about: About) -> str:
    signature = about.signature()
    return json.dumps(
        {
            "image": ref,
            "digest": about.digest,
            "platform": about.platform,
            "created": about.created,
            "bytes": about.size,
            "bundle": {"ref": about.labels.get("modelport.bundle.ref"), "digest": about.labels.get("modelport.bundle.digest")},
            "model": about.said("model"),
            "lineage": about.said("lineage"),
            "signature": None if signature is None else signature.to_dict(),
            "labels": dict(about.labels),
        }
    )
