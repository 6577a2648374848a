"""What the documents say is so: links, commands, settings, exit codes, topics and reasons."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main

import streams.errors
from driftline import app  # noqa: TID251 - the command line itself is what the documents speak of
from streams.errors import DriftlineError
from streams.records import DeadReason
from streams.settings import Settings
from streams.topics import NAMES

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CHANGELOG.md", "DECISIONS.md", "ops/runbooks.md")


def text(document: str) -> str:
    return (ROOT / document).read_text()


def anchors(document: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", text(document), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    """Files exist, and so do the sections of ours that are named."""
    for target in re.findall(r"\]\(([^)]+)\)", text(document)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(str(file.relative_to(ROOT))), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_exist(document: str) -> None:
    """Each `driftline …` names a command, and each option one of its options."""
    root: Any = typer.main.get_command(app)
    found = re.findall(r"(?:`|^|bin/)driftline ([^`#|\n]+)", text(document), re.MULTILINE)
    assert found or document == "CHANGELOG.md"
    for line in found:
        command, known = root, {name for each in root.params for name in each.opts}
        for word in shlex.split(line.replace("…", "").replace("$ARGS", "")):
            if word.startswith("-"):
                assert word.split("=")[0] in known, f"driftline {line}"
            elif word in getattr(command, "commands", {}):
                command = command.commands[word]
                known |= {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        assert command is not root or "--" in line, f"driftline {line}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_settings_exist(document: str) -> None:
    """Each `section.key` is a setting."""
    sections = {name: set(value) for name, value in Settings().model_dump().items() if isinstance(value, dict)}
    for section, key in re.findall(r"`(?:--set )?(\w+)\.(\w+)`", text(document)):
        if section in sections and key != "py":
            assert key in sections[section], f"{section}.{key}"


def test_the_exit_codes_are_those_of_the_code() -> None:
    """None is missing, none is invented."""
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", text("README.md"), re.MULTILINE)}
    raised = {
        kind.exit_code
        for kind in vars(streams.errors).values()
        if isinstance(kind, type) and issubclass(kind, DriftlineError)
    }
    assert rows == raised | {0, 1}


def test_every_topic_is_in_the_table() -> None:
    """Names as they are on the broker."""
    section = text("README.md").split("## Topics")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)) == {name.replace("_", "-") for name in NAMES}


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    """Whoever finds one in a header can look it up."""
    section = text("ops/runbooks.md").split("## DriftlineDeadLetters")[1].split("\n## ")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(get_args(DeadReason))
