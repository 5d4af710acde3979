"""Pages of HTML that need no other files: they hold their style, no script, and load nothing.

They are made from the templates in this folder. Every value that a template shows is escaped, and its control and
reordering characters are made visible; only a `Drawing` is HTML already.
"""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from esx.load.report.describe import arguments, parameters, workload
from esx.load.report.pages.svg import COLOURS, MARKS
from esx.text import iso_utc, visible


def page(template: str, title: str, **values: Any) -> str:
    """Return a whole page, made from a template and its values."""
    return _templates().get_template(template).render(title=title, colours=COLOURS, marks=MARKS, **values)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: value if hasattr(value, "__html__") else visible(str(value), limit=2000),
    )
    made.filters |= {"arguments": arguments, "parameters": parameters, "workload": workload}
    made.filters["utc"] = lambda moment: iso_utc(moment)[:19].replace("T", " ")
    return made
