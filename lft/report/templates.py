"""Render the templates in report_templates/; every value is escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lft.paths import shipped


def render(name: str, **context: Any) -> str:
    """Fill in a template; a missing value is an error."""
    environment = Environment(
        loader=FileSystemLoader(shipped("report_templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**context)
