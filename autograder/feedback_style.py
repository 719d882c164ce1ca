"""How a feedback page looks, on a desk and on a phone, and what it may load: formulae alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.preprocessors import NbGraderPreprocessor

STYLE = """
/* nbgrader's list of test cells: the table of points says more */
#toc, div.prompt { display: none; }
h4 { overflow-wrap: anywhere; }
pre, div.output_area pre { white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere; }
.text_cell_render, .output_area { overflow-x: auto; overflow-y: hidden; }
.output_png img, img { max-width: 100%; height: auto; }
.rendered_html table { display: block; overflow-x: auto; border-collapse: collapse; }
.rendered_html th, .rendered_html td {
  padding: 0.25em 0.75em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top;
}
.rendered_html td { overflow-wrap: break-word; }
.MathJax_Display, .MJXc-display { overflow-x: auto; }
@media (max-width: 700px) {
  body { padding-top: 0; }
  .container, div#notebook-container, div#notebook { padding: 2px; border: 0; box-shadow: none; }
  .panel-body { padding: 4px; }
  div.nbgrader_cell .panel-heading { height: auto; overflow: auto; }
}
"""
_MATHJAX = "https://cdnjs.cloudflare.com"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "img-src data:",
        f"style-src 'unsafe-inline' {_MATHJAX}",
        f"font-src data: {_MATHJAX}",
        f"script-src {_MATHJAX} 'unsafe-eval'",  # MathJax's configuration is evaluated
        "base-uri 'none'",
        "form-action 'none'",
    )
)
_HEAD = '<meta charset="utf-8"/>'  # as nbgrader's template comes out
_MORE = (
    '<meta name="viewport" content="width=device-width, initial-scale=1" />\n'
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />'
)


class Readable(NbGraderPreprocessor):
    """Adds our style to nbconvert's; runs after CSSHTMLHeaderPreprocessor."""

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """The notebook unchanged."""
        resources["inlining"]["css"].append(STYLE)
        return nb, resources


def finish(page: Path) -> Path:
    """Give a written page a phone's width and the policy that keeps scripts out of it."""
    text = page.read_text(encoding="utf-8")
    if _MORE not in text:
        page.write_text(text.replace(_HEAD, f"{_HEAD}\n{_MORE}", 1), encoding="utf-8")
    return page
