"""The docs say what is so."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    """docs/cli.md holds every command and option. After a change: python docs/generate_cli.py"""
    page = runpy.run_path(str(DOCS / "generate_cli.py"))["cli_page"]()
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == page
