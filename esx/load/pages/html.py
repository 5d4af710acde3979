"""A page of HTML that stands alone: its style within it, no script, nothing fetched. Texts are escaped here."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from esx.load.pages.svg import COLOURS, MARKS
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_STYLE = """
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:1124px;margin:0 auto;padding:32px 32px 48px}
h1{font-size:24px;line-height:1.25;margin:0 0 2px}
h2{font-size:16px;margin:36px 0 10px;padding-bottom:5px;border-bottom:1px solid var(--grid)}
p{margin:6px 0;max-width:78ch}
.muted{color:var(--muted)}
.badge{display:inline-block;padding:1px 10px;border-radius:5px;font-weight:600;font-size:14px;vertical-align:3px;
margin-left:8px;color:var(--ground)}
.pass{background:var(--t3)}.fail{background:var(--t2)}.none{background:var(--muted)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:20px 0 0}
.tile{background:var(--panel);border-radius:8px;padding:11px 14px}
.tile b{display:block;font-size:23px;line-height:1.25;font-weight:600;font-variant-numeric:tabular-nums}
.tile span{display:block;color:var(--muted);font-size:13px}
.charts{display:flex;flex-wrap:wrap;gap:22px 20px;margin-top:14px}
.chart{max-width:100%;height:auto;display:block}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}
th,td{padding:4px 14px 4px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--grid)}
th{color:var(--muted);font-weight:500}
td.n,th.n{text-align:right;padding:4px 0 4px 22px}
td.best{font-weight:600;color:var(--t3)}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:0 36px;align-items:start}
.columns h2{margin-bottom:6px}.columns table{width:100%}.columns td{overflow-wrap:anywhere}
.scroll{overflow-x:auto}
.said{border-left:3px solid var(--t1);padding:2px 0 2px 14px;margin:16px 0}
ul{margin:6px 0;padding-left:20px}
code{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
pre{background:var(--panel);border-radius:6px;padding:10px 14px;overflow-x:auto;margin:8px 0}
footer{margin-top:44px;color:var(--muted);font-size:13px}
@media print{body{background:#fff}}
"""


def page(title: str, body: Iterable[str]) -> str:
    """Return a whole page; `body` is HTML, `title` is text."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline'\">"
        f"<title>{text(title)}</title><style>{COLOURS}{_STYLE}{MARKS}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def text(value: object) -> str:
    """Return a value as HTML text; control and reordering characters are shown, not obeyed."""
    return escape(visible(str(value), limit=2000))


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Return figures, each a value and what it is, in large print."""
    cells = (f'<div class="tile"><b>{text(value)}</b><span>{text(name)}</span></div>' for value, name in figures)
    return f'<div class="tiles">{"".join(cells)}</div>'


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """Return names and values as a table of two columns."""
    return f"<table>{''.join(f'<tr><th>{text(name)}</th><td>{text(value)}</td></tr>' for name, value in rows)}</table>"


def table(titles: Sequence[str], rows: Iterable[Sequence[object]], *, names: int = 1) -> str:
    """Return a table whose first `names` columns are text and whose others are numbers."""

    def cells(tag: str, row: Sequence[object]) -> str:
        return "".join(
            f"<{tag}{' class=n' if at >= names else ''}>{text(value)}</{tag}>" for at, value in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{cells("th", titles)}</tr>{body}</table></div>'


def badge(verdict: str | None) -> str:
    """Return a verdict as a coloured word."""
    kind = verdict if verdict in ("pass", "fail") else "none"
    return f'<span class="badge {kind}">{text((verdict or "no verdict").upper())}</span>'


def bullets(lines: Iterable[str]) -> str:
    """Return lines as a list."""
    return f"<ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>"


def charts(pieces: Iterable[str]) -> str:
    """Return charts side by side, as many as there is room for."""
    return f'<div class="charts">{"".join(pieces)}</div>'
