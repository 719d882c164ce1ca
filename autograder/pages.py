"""Self-contained HTML pages: no script, no address outside, every text escaped."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

_ENGINE = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
# even a text that slipped through could load and run nothing
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin: 2rem 0 .4rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left;
  vertical-align: top }
th { font-weight: 600 } .n { text-align: right; white-space: nowrap }
.lost { background: #fff4e5 } .waits { background: #eef4fb } small, .quiet { color: #5b5b5b }
pre { background: #f6f6f6; padding: .5rem; margin: 0; white-space: pre-wrap; font-size: .82rem }
img { max-width: 100% } ul { padding-left: 1.2rem } p { margin: .4rem 0 } td p { margin: 0 }
.two { table-layout: fixed } .two td { padding: .2rem }
.wide { table-layout: fixed } .wide th { width: 45% } .wide th.n { width: 10% }
mark { background: #ffe08a } figure { margin: 1rem 0 } figcaption { color: #5b5b5b }
</style></head><body>
<h1>{{ title }}</h1>
{{ body }}
</body></html>
"""


def page(title: str, body: str, **data: Any) -> str:
    """A page: `body` is a Jinja template of ours, into which `data` goes escaped."""
    inner = Markup(_ENGINE.from_string(body).render(data))
    return _ENGINE.from_string(_PAGE).render(title=title, body=inner, policy=_POLICY)


def image(png: bytes, text: str) -> Markup:
    """A PNG embedded in the page, with the text that stands for it."""
    data = base64.b64encode(png).decode()
    return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(data, text)


def write_page(path: Path, text: str) -> Path:
    """Write a page whole or not at all, readable by its owner alone; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text, encoding="utf-8", errors="replace")
    aside.chmod(0o600)
    return aside.replace(path)
