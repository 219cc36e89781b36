"""A page from plain values: one HTML file that loads nothing and runs nothing but its own short script."""

from base64 import b64encode
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

import minijinja

_FILES = files("batchrun.runs.report")
_NO_TEXT = dict.fromkeys([*range(32), 127, *range(128, 160)], "�") | {9: "\t", 10: "\n", 13: "\n"}
"""Control characters, which HTML doesn't allow."""


def page(values: dict[str, Any]) -> str:
    """Returns the HTML. Every text in `values` is escaped; only charts, made here, are markup."""
    css, script = _text("page.css"), _text("page.js")
    return _templates().render_template(
        "page.html", **values, css=css, script=script, policy=_policy(css, script)
    )


def _policy(css: str, script: str) -> str:
    """Returns a Content-Security-Policy that allows this style sheet and this script alone."""
    return (
        f"default-src 'none'; style-src {_hash(css)}; script-src {_hash(script)}; base-uri 'none'; "
        "form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


@cache
def _text(name: str) -> str:
    return _FILES.joinpath(name).read_text(encoding="utf-8")


@cache
def _templates() -> minijinja.Environment:
    return templates(_text)


def templates(load: Callable[[str], str | None]) -> minijinja.Environment:
    """Returns templates that escape every text in them, with the filter `plain` for texts of others."""
    environment = minijinja.Environment(loader=load)
    environment.add_filter("plain", _plain)
    return environment


def _plain(text: str) -> str:
    return text.translate(_NO_TEXT).encode(errors="replace").decode()
