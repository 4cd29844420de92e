"""The templates that all HTML comes from. Every value is escaped there, but for the figures of `mtl.report.svg`."""

from __future__ import annotations

import functools
from typing import Any

import jinja2


@functools.cache
def environment() -> jinja2.Environment:
    """Return the templates of ``mtl/report/templates``: values are escaped, one that is not there is an error.

    >>> environment().from_string("<p>{{ name }}</p>").render(name="<b>&")
    '<p>&lt;b&gt;&amp;</p>'
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("mtl.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Strict JSON, the keys in their order; the filter `tojson` makes it fit for a script element.
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return templates


def render(name: str, **values: Any) -> str:
    """Write HTML by a template.

    Args:
      name: of a file in ``mtl/report/templates``.
      values: what the template takes: numbers, words, dataclasses, dicts and lists of these.

    Returns:
      The HTML.

    Raises:
      jinja2.UndefinedError: if the template takes a value that is not given.
    """
    return environment().get_template(name).render(values)
