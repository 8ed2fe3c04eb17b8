"""Parts of a report's page: its style, sections and tables. Every text that comes from outside is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

from mifuse_runtime.shown import shown

CSS = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1f2937;
       background: #f3f4f6; margin: 0; }
main { max-width: 1060px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 18px; margin: 0 0 8px; }
header p { color: #6b7280; margin: 4px 0 20px; }
section { background: #fff; border: 1px solid #e5e7eb; border-radius: 10px; padding: 20px 24px;
          margin: 16px 0; }
section p { max-width: 75ch; color: #4b5563; margin: 6px 0 12px; }
.note { background: #fffbeb; border-color: #fde68a; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 16px 5px 0; text-align: right; border-bottom: 1px solid #e5e7eb; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
thead th { color: #6b7280; font-weight: 600; }
.settings th, .settings td { text-align: left; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
svg { max-width: 100%; height: auto; font-family: inherit; }
audio { height: 32px; width: 220px; }
@media (prefers-color-scheme: dark) {
  body { color: #e5e7eb; background: #111827; }
  section { background: #1f2937; border-color: #374151; } section p { color: #d1d5db; }
  .note { background: #422006; border-color: #854d0e; }
  th, td { border-color: #374151; } thead th, header p { color: #9ca3af; }
  svg { background: #fff; border-radius: 8px; }
}
"""


def text(value: object) -> str:
    """As HTML shows it."""
    return html.escape(shown(value))


def section(title: str, about: str, body: str) -> str:
    """A titled box; `about` and `body` are HTML."""
    return f'<section>\n<h2>{title}</h2>\n<p>{about}</p>\n<div class="scroll">{body}</div>\n</section>'


def table(header: Sequence[str], rows: Sequence[Sequence[object]], style: str = "") -> str:
    """A table; a cell that is `Html` is taken as it is."""
    head = "".join(f"<th>{text(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<table class="{style}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>'


class Html(str):
    """Text that is HTML already."""


def _cell(cell: object) -> str:
    return cell if isinstance(cell, Html) else text(cell)
