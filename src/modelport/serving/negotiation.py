"""Which form a body has, and which form the answer shall have: the headers Content-Type and Accept."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelport.errors import NotAcceptable, UnsupportedMediaType

JSON = "application/json"
CSV = "text/csv"
HTML = "text/html"


def media_type(content_type: str | None, taken: Sequence[str]) -> str:
    """The media type of a body. UnsupportedMediaType when it is not one of those taken, or its charset is not UTF-8."""
    hint = "Send " + " or ".join(f'"Content-Type: {name}"' for name in taken) + " in UTF-8."
    if content_type is None:
        raise UnsupportedMediaType("the request has no Content-Type", hint=hint)
    name, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if name not in taken:
        raise UnsupportedMediaType(f"the content type {content_type[:100]!r} is not taken here", hint=hint)
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8"):
            raise UnsupportedMediaType(f"the charset {value[:40]!r} is not taken here", hint=hint)
    return name


def choose(accept: str, offers: Sequence[str]) -> str:
    """The offer that an Accept header (RFC 9110, section 12.5.1) likes best, the first among equals. NotAcceptable when it likes none."""
    if not accept or accept == "*/*":
        return offers[0]
    weights = [(_weight(accept, offer), -index, offer) for index, offer in enumerate(offers)]
    weight, _, best = max(weights)
    if weight <= 0:
        raise NotAcceptable(f"the answer can be {' or '.join(offers)}, and Accept is {accept[:100]!r}")
    return best


def _weight(accept: str, offer: str) -> float:
    best = (-1, 0.0)
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        exactness = 2 if name == offer else 1 if name == offer.split("/")[0] + "/*" else 0 if name == "*/*" else -1
        weight = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        if exactness > best[0]:
            best = (exactness, float(weight) if re.fullmatch(r"[01](\.[0-9]{0,3})?", weight) else 0.0)
    return best[1]


def prefers_page(accept: str) -> bool:
    """Whether who asks wants to look at a page rather than read JSON: a browser that navigates."""
    return _weight(accept, HTML) > _weight(accept, JSON)
