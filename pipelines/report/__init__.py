"""The record of a run: `report.json` for programs, `report.html` for people.

The page is one file that needs neither network nor JavaScript. Nothing in either file depends on the clock or
on the folder, so equal runs give equal bytes, up to the times and memory that they measured.

`records` holds what a run knows, and the figures of it; `cards` and `sections` make the parts of the page,
with `page` for the HTML and `pictures` for what is drawn; `writing` puts all of it together.
"""

from pipelines.report.records import RunRecord, ViewRecord
from pipelines.report.writing import write_report

__all__ = ["RunRecord", "ViewRecord", "write_report"]
