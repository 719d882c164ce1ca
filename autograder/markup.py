"""Markdown to HTML for pages that show what students wrote: markup is data, never code."""

from __future__ import annotations

import re
from typing import Any

import bleach
from bleach.css_sanitizer import CSSSanitizer
from jinja2 import pass_context
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

_WORDS = """
a abbr b blockquote br center code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li ol
p pre s span strong sub summary sup table tbody td tfoot th thead tr tt u ul
"""
_TAGS = frozenset(_WORDS.split())
_PLAIN = frozenset(("class", "title", "align", "colspan", "rowspan", "style", "open", "start"))
_STYLES = CSSSanitizer(
    allowed_css_properties=("color", "text-align", "font-weight", "font-style", "width")
)
_PNG = "data:image/png;base64,"
# what lets a formula be a link, carry a style, or load more of MathJax: shown without backslash
_MACROS = re.compile(r"\\+(href|class|cssId|style|require|csname|unicode|bbox)(?![A-Za-z])")


@pass_context
def safe_markdown2html(context: Any, source: str) -> str:
    """HTML of a markdown text: no script, no event handler, no frame, no foreign picture.

    Takes the place of nbconvert's filter of the same job (`HTMLExporter.filters`), because
    nbgrader's templates do not clean what it returns. Pictures attached to the cell are shown.
    """
    cell = context.get("cell", {}) or {}
    attachments = cell.get("attachments", {}) or {}
    renderer = IPythonRenderer(escape=False, attachments=attachments, exclude_anchor_links=True)
    return clean_html(MarkdownWithMath(renderer=renderer).render(_MACROS.sub(r"\1", source)))


def clean_html(html: str) -> str:
    """The HTML with everything but harmless tags and attributes turned into visible text."""
    return bleach.clean(
        html,
        tags=_TAGS,
        attributes=_allowed,
        protocols={"http", "https", "mailto", "data"},
        css_sanitizer=_STYLES,
        strip_comments=True,
    )


def _allowed(tag: str, name: str, value: str) -> bool:
    """Links to the web, pictures as embedded PNG, and attributes that do nothing."""
    if tag == "img" and name == "src":
        return value.startswith(_PNG)
    if tag == "a" and name == "href":
        return value.lower().startswith(("http://", "https://", "mailto:", "#"))
    return name in _PLAIN or (tag == "img" and name in ("alt", "width", "height"))
