"""The HTML of the report: elements in, one self-contained page out. All text is escaped here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Float64

STYLE = """
:root{color-scheme:light dark;--bg:#f5f6f8;--card:#fff;--ink:#1b1f26;--soft:#646c79;--rule:#e2e5ea;
--accent:#2563a8;--warm:#c2571a;--note:#eef4fb;--stage:#fff}
@media(prefers-color-scheme:dark){:root{--bg:#14171c;--card:#1d2128;--ink:#e6e9ee;--soft:#98a1ae;--rule:#2e343d;
--accent:#6fb0f0;--warm:#f09a5c;--note:#1b2735;--stage:#c9ccd2}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",
sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1320px;margin:0 auto;padding:36px 28px 72px}
h1{font-size:30px;line-height:1.2;margin:0 0 14px;letter-spacing:-.015em;overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:2px 18px;margin:0 0 18px;font-size:14px}
a{color:var(--accent);text-decoration:none}
a:hover{text-decoration:underline}
h2{font-size:19px;margin:44px 0 2px;letter-spacing:-.01em}
h3{font-size:15px;margin:20px 0 8px;font-weight:600}
.hint{color:var(--soft);margin:0 0 12px;max-width:80ch}h2+:not(.hint){margin-top:12px}
.notes{background:var(--note);border-left:3px solid var(--accent);border-radius:0 8px 8px 0;padding:10px 16px;
margin:0 0 22px;max-width:100ch}
.notes p{margin:4px 0}
.card,.tile,table,details{background:var(--card);border:1px solid var(--rule);border-radius:10px}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:12px;margin:0}
.tile{padding:12px 16px;overflow-wrap:anywhere}.tile dt{color:var(--soft);font-size:13px}
.tile dd{margin:0;font-size:22px;font-weight:600;letter-spacing:-.01em}
.tile.text{grid-column:span 2}.tile.text dd{font-size:15px;line-height:1.4;font-weight:500;letter-spacing:0}
.card{padding:16px;margin:0 0 14px;break-inside:avoid}
.card h3{margin:0;overflow-wrap:anywhere}
.chips{display:flex;flex-wrap:wrap;gap:2px 20px;margin:2px 0 12px;color:var(--soft);font-size:13.5px}
.chips div{display:flex;gap:6px}.chips dt,.chips dd{margin:0}.chips dd{color:var(--ink)}
.grid{display:grid;gap:12px;grid-template-columns:repeat(auto-fill,minmax(185px,1fr))}
.grid.three{grid-template-columns:repeat(3,1fr)}.grid.four{grid-template-columns:repeat(4,1fr)}
@media(max-width:800px){.grid.four{grid-template-columns:repeat(2,1fr)}main{padding:20px 14px}}
figure{margin:0;min-width:0}
figure img{display:block;width:100%;height:auto;border-radius:7px;background:var(--stage)}
figure.mesh{background:var(--stage);border:1px solid var(--rule);border-radius:7px;overflow:hidden}
figure.mesh img{mix-blend-mode:multiply}figure.mesh figcaption{color:#59616e;padding:0 10px 6px}
figcaption{font-size:12.5px;color:var(--soft);margin-top:4px;overflow-wrap:anywhere}
.legend{display:flex;align-items:center;gap:6px;font-size:12px;color:var(--soft)}
.legend i{flex:1;height:5px;border-radius:3px;min-width:20px}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:12px}
.fit .axes{fill:none;stroke:var(--rule);stroke-width:1.5}
.fit .inlier,.fit .outlier{stroke:var(--accent);stroke-width:3.5;stroke-linecap:round;opacity:.55;fill:none}
.fit .outlier{stroke:var(--warm);opacity:.75}
.fit .line{stroke:var(--ink);stroke-width:1.3;fill:none}
.maps{display:grid;gap:14px;grid-template-columns:repeat(2,1fr)}.maps .card{margin:0}
@media(max-width:800px){.maps{grid-template-columns:1fr}}
.map path{fill:var(--accent);fill-opacity:.3;stroke:var(--accent);stroke-width:1.2;stroke-linejoin:round}
.map path:hover{fill-opacity:.9}
.map path.unused{fill:var(--warm);stroke:var(--warm)}
.scroll{overflow-x:auto}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:14px}
th,td{text-align:left;padding:7px 14px;border-top:1px solid var(--rule);
vertical-align:top;overflow-wrap:anywhere}
tr:first-child>*{border-top:0}th{color:var(--soft);font-weight:500;font-size:13px;white-space:nowrap}
.number{text-align:right;white-space:nowrap}
.bar{width:34%;vertical-align:middle}.bar i{display:block;height:9px;border-radius:3px;
background:var(--accent);min-width:2px;opacity:.85}
details{margin:0 0 12px}summary{cursor:pointer;padding:10px 16px;font-weight:600}
details table{border:0;border-top:1px solid var(--rule);border-radius:0}
details td:last-child{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:13px}
"""
LABELS = {
    "views_used": "photos used",
    "held_out_error": "held-out depth error",
    "peak_memory_bytes": "peak memory",
    "seconds": "time",
    "vertices": "mesh vertices",
    "faces": "mesh faces",
}
SHARES = ("error", "share", "coverage", "sigma")  # keys that end so hold shares of 1, shown in %
LONG_TEXT = 14  # characters that fit a tile in its large type


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    title: str
    content: str
    """HTML."""

    hint: str = ""
    """A line that says how to read it."""


def page(title: str, notes: Sequence[str], top: str, sections: Sequence[Section]) -> str:
    """Returns a whole HTML document: title, notes, links to the sections, `top` (HTML), the sections."""
    paragraphs = "".join(f"<p>{escape(note)}</p>" for note in notes)
    remarks = f'<div class="notes">{paragraphs}</div>' if notes else ""
    links = "".join(f'<a href="#s{row}">{escape(part.title)}</a>' for row, part in enumerate(sections))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{STYLE}</style></head>\n'
        f"<body><main><h1>{escape(title)}</h1><nav>{links}</nav>\n"
        f"{remarks}{top}"
        f"{''.join(_section(row, part) for row, part in enumerate(sections))}</main></body></html>\n"
    )


def _section(row: int, part: Section) -> str:
    hint = f'<p class="hint">{escape(part.hint)}</p>' if part.hint else ""
    return f'<section id="s{row}"><h2>{escape(part.title)}</h2>{hint}{part.content}</section>\n'


def figure(content: str, caption: str, below: str = "", kind: str = "") -> str:
    """Returns a picture (data URI) or plot (SVG) with its caption; `below` is HTML."""
    shown = (
        content
        if content.startswith("<svg")
        else f'<img src="{content}" alt="{escape(caption)}" loading="lazy">'
    )
    return f'<figure class="{kind}">{shown}<figcaption>{escape(caption)}</figcaption>{below}</figure>'


def legend(low: str, high: str, stops: Float64[np.ndarray, "n 3"]) -> str:
    """Returns a colour bar between two labels; colours in 0 to 255."""
    colors = ",".join(f"rgb({red:.0f},{green:.0f},{blue:.0f})" for red, green, blue in stops)
    bar = f'<i style="background:linear-gradient(90deg,{colors})"></i>'
    return f'<div class="legend">{escape(low)}{bar}{escape(high)}</div>'


def tiles(facts: Mapping[str, Any]) -> str:
    """Returns one tile per fact; used and given photos share one."""
    shown = dict(facts)
    if shown.get("photos") and "views_used" in shown:
        shown["views_used"] = f"{shown['views_used']} of {shown.pop('photos')}"
    parts = []
    for key, value in shown.items():
        text = format_value(key, value)
        kind = "tile text" if len(text) > LONG_TEXT else "tile"
        label = LABELS.get(key, key.replace("_", " "))
        parts.append(f'<div class="{kind}"><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>')
    return f'<dl class="tiles">{"".join(parts)}</dl>\n'


def view_card(name: str, facts: Mapping[str, str], figures: str) -> str:
    """Returns the card of one view: its name, its figures in numbers, its pictures (HTML)."""
    chips = [f"<div><dt>{escape(key)}</dt><dd>{escape(text)}</dd></div>" for key, text in facts.items()]
    grid = f'<div class="grid">{figures}</div>' if figures else ""
    headline = f'<h3>{escape(name)}</h3><dl class="chips">{"".join(chips)}</dl>'
    return f'<article class="card">{headline}{grid}</article>\n'


def pairs_table(pairs: Mapping[str, Any], key_name: str, value_name: str) -> str:
    """Returns a table of two columns."""
    rows = "".join(
        f"<tr><td>{escape(key)}</td><td>{escape(format_value('', value))}</td></tr>"
        for key, value in pairs.items()
    )
    return f"<table><tr><th>{escape(key_name)}</th><th>{escape(value_name)}</th></tr>{rows}</table>"


def steps_table(steps: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table of the steps with a bar for the time of each."""
    longest = max([step.get("seconds") or 0 for step in steps], default=0) or 1
    head = "<th>artifact</th><th>stage</th>" + "".join(
        f'<th class="number">{name}</th>' for name in ("computed", "reused", "peak memory", "time")
    )
    rows = []
    for step in steps:
        numbers = "".join(
            f'<td class="number">{escape(format_value(key, step.get(key)))}</td>'
            for key in ("computed", "reused", "peak_memory_bytes", "seconds")
        )
        texts = "".join(
            f"<td>{escape(format_value('', step.get(key)))}</td>" for key in ("artifact", "stage")
        )
        width = 100 * (step.get("seconds") or 0) / longest
        rows.append(f'<tr>{texts}{numbers}<td class="bar"><i style="width:{width:.1f}%"></i></td></tr>')
    return f'<div class="scroll"><table><tr>{head}<th></th></tr>{"".join(rows)}</table></div>'


def folded(title: str, content: str) -> str:
    """Returns HTML that a click on the title opens."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>\n"


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested options under dotted names."""
    named: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            named |= flat(value, f"{prefix}{key}.")
        else:
            named[prefix + key] = value
    return named


def format_value(key: str, value: Any) -> str:
    """Returns a value as a person reads it; the ending of its key says its unit."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if key.endswith("_bytes"):
        return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
    if key.endswith(("seconds", "_s")):
        return _duration(float(value))
    if key.endswith(SHARES):
        return f"{100 * value:.3g} %"
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else f"{value:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
