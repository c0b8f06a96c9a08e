"""Both files of the report, from the records of a run."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pipelines.report.cards import card_of
from pipelines.report.page import page, tiles
from pipelines.report.pictures import shrink
from pipelines.report.records import RunRecord, ViewRecord, plain, summarize, versions, view_figures
from pipelines.report.sections import mesh_sections, sections_of
from recon.io.files import replaced

COMPARED_SIZE = 480  # px, longer side of a photo beside the mesh
MAX_COMPARED_VIEWS = 4
MAX_PICTURED_VIEWS = 200  # about 60 kB each; later views get their figures only


def write_report(folder: Path, run: RunRecord, views: Iterable[ViewRecord]) -> None:
    """Writes `report.html` and `report.json` into a folder; each is replaced whole or not at all.

    Args:
        folder: OUT/ of the run; made where absent.
        run: What is not about one view.
        views: Those that are used; read once, one at a time.

    Raises:
        InputError: A file cannot be written.
    """
    posed = {view.name for view in run.scene.views} if run.scene else set()
    shown = [view.name for view in run.scene.views if view.name not in run.dropped] if run.scene else []
    compared = _evenly(shown, MAX_COMPARED_VIEWS)
    photos: dict[str, UInt8[np.ndarray, "h w 3"]] = {}
    records: list[dict[str, Any]] = []
    cards: list[str] = []
    for view in views:
        records.append(view_figures(view, registered=view.name in posed))
        cards.append(card_of(view, records[-1], pictured=len(cards) < MAX_PICTURED_VIEWS))
        if view.name in compared and view.image is not None:
            photos[view.name] = shrink(view.image, COMPARED_SIZE)
    report = plain(
        {
            "title": run.title,
            "notes": list(run.notes),
            "summary": summarize(run, records),
            "views": records,
            "dropped": run.dropped,
            "steps": run.steps,
            "options": run.options,
            "versions": versions(),
        }
    )
    sections = sections_of(report, cards, mesh_sections(run.mesh, run.scene, photos), run.scene)
    html = page(run.title, report["notes"], tiles(report["summary"]), list(sections))
    _write(folder / "report.json", json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    _write(folder / "report.html", html)


def _evenly(names: Sequence[str], count: int) -> list[str]:
    """Returns at most `count` names, spread evenly over all."""
    rows = (np.arange(min(count, len(names))) + 0.5) * len(names) / max(1, min(count, len(names)))
    return [names[int(row)] for row in rows]


def _write(path: Path, text: str) -> None:
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
