"""The docs say what is so."""

import os
import re
import runpy
from functools import partial
from pathlib import Path

import pytest

from batchrun.cli import batchrun_group
from tests.forked_shell import folder_with_batchrun

DOCS = Path(__file__).parent.parent / "docs"
COMMANDS = batchrun_group.commands


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    """After a change: python docs/generate_cli.py"""
    page = runpy.run_path(str(DOCS / "generate_cli.py"))["cli_page"]()
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == page


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_on_its_page(name: str) -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## batchrun {name}\n")[2].partition("\n## ")[0]
    options = [
        option for parameter in COMMANDS[name].params for option in parameter.opts + parameter.secondary_opts
    ]
    missing = [option for option in options if option.startswith("-") and f" {option}" not in section]
    assert section
    assert missing == []
    assert f"](#batchrun-{name})" in page


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_shows_an_example_before_anything_but_what_the_command_does(name: str | None) -> None:
    command = batchrun_group if name is None else COMMANDS[name]
    first, example, *_ = [part.strip("\b\n ") for part in (command.help or "").split("\n\n")]
    assert first.endswith(".")
    assert example.startswith("batchrun init " if name is None else f"batchrun {name}")


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = DOCS / (path or page)
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), target


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


RUN_GUIDE = runpy.run_path(str(DOCS / "run_guide.py"))


@pytest.mark.timeout(240)  # some twenty commands
@pytest.mark.parametrize("name", RUN_GUIDE["PAGES"])
def test_a_page_shows_what_its_commands_print(name: str) -> None:
    """All but numbers, and the line of progress. After a change: python docs/run_guide.py

    first-labels.md without the new environment, which that script makes and fills with pip.
    """
    outputs = RUN_GUIDE["PAGES"][name]
    if name == "docs/first-labels.md":
        outputs = partial(RUN_GUIDE["first_labels_outputs"], set_up=False)
    page = (DOCS.parent / name).read_text(encoding="utf-8")
    commands, shown = zip(*RUN_GUIDE["commands_of"](page), strict=True)
    with folder_with_batchrun() as folder:
        printed = outputs(list(commands), path=os.pathsep.join((str(folder), RUN_GUIDE["PATH"])))
    assert list(map(_without_numbers, printed)) == list(map(_without_numbers, shown))


def test_output_is_shown_only_where_a_command_prints_it() -> None:
    """Help and a tree of classes are the exceptions; help is checked above."""
    pages = [DOCS.parent / "README.md", *DOCS.glob("*.md")]
    kinds = {
        (path.name, kind)
        for path in pages
        for kind in re.findall(
            r"^```(\w*)\n(?:(?!```).*\n)*?```$", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    transcripts = {Path(name).name for name in RUN_GUIDE["PAGES"]}
    assert {name for name, kind in kinds if kind == "console"} == transcripts
    assert {name for name, kind in kinds if kind == "text"} == {"cli.md", "python.md"}


def _without_numbers(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if " rows/s" not in line]
    return [re.sub(r"\d[\d.,:+T-]*", "#", line) for line in lines]
