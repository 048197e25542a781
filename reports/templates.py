"""The HTML templates of the report, with autoescaping. The template of a section is beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

HERE = Path(__file__).parent

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader([HERE / "page", HERE / "sections"]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def fragment(name: str, **values: Any) -> Markup:
    """The rendered template, as HTML that is already escaped."""
    return Markup(ENVIRONMENT.get_template(name).render(**values))


def asset(name: str) -> Markup:
    """A style sheet or script of this package, unchanged."""
    return Markup((HERE / "page" / name).read_text(encoding="utf-8"))
