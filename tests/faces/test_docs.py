"""What the documents say is so: the reference is made from the code, and what can be typed can be run."""

import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from batcher.catalog import bundled
from batcher.cli.app import COMMANDS
from batcher.manifest.document import Document
from batcher.manifest.schema import editor_schema
from batcher.settings import Limits, Retry
from tests.reference import PAGES, made

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "manifests").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LOADED: Any = {name: entry.load(name) for name, entry in COMMANDS.items()}


@pytest.mark.parametrize("page", PAGES)
def test_the_reference_is_as_the_code_makes_it(page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == made(page), "python -m tests.reference writes it anew"


def test_every_command_and_every_key_is_in_it() -> None:
    commands, manifest = ((ROOT / "docs" / name).read_text() for name in ("commands.md", "manifest.md"))
    assert all(f"## batcher {name}\n" in commands for name in LOADED)
    keys = [*Document.model_fields, *(f"limits.{key}" for key in Limits.__dataclass_fields__ if key[0] != "_")]
    keys += [f"retry.{key}" for key in Retry.__dataclass_fields__ if key[0] != "_"]
    assert [key for key in keys if f"| `{key}` |" not in manifest] == []
    rows = re.findall(r"^\| `.*\|$", manifest, re.MULTILINE)
    assert [row for row in rows if not row.split("|")[4].strip()] == [], "a key without a meaning"


def typed() -> list[tuple[str, str]]:
    """Give every command of ours that stands in a document, in a block or in a line."""
    found: list[tuple[str, str]] = []
    for document in DOCUMENTS:
        text = document.read_text()
        blocks = "\n".join(block for language, block in BLOCK.findall(text) if language in {"", "sh"})
        lines = [*blocks.splitlines(), *re.findall(r"`((?:\.venv/bin/)?batcher [^`]+)`", BLOCK.sub("", text))]
        for line in lines:
            parts = re.split(r"&&|\|\||;|\||(?<= )> ", line.partition(" #")[0])
            matches = (re.search(r"(?:^|\s|/)batcher (.*)$", part.strip()) for part in parts)
            found.extend((document.name, match.group(1)) for match in matches if match)
    return found


@pytest.mark.parametrize(("document", "line"), typed(), ids=[f"{name}: {line}" for name, line in typed()])
def test_every_command_in_the_documents_can_be_given(document: str, line: str) -> None:
    words = shlex.split(line)
    if words[0].startswith("-") or words[0] == "COMMAND":
        assert words[0] in {"--install-completion", "--help", "COMMAND"}
        return
    command = LOADED[words[0]]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    if words[0] != "sandbox":  # it reads its own
        assert [word for word in words[1:] if word.startswith("-") and word != "-" and word not in known] == []


def test_there_are_commands_to_look_at() -> None:
    assert len(typed()) > 40


def test_every_manifest_in_the_documents_is_one() -> None:
    schema = jsonschema.Draft202012Validator(editor_schema(bundled().values()))
    blocks = [block for document in DOCUMENTS for kind, block in BLOCK.findall(document.read_text()) if kind == "yaml"]
    assert len(blocks) >= 2
    for block in blocks:
        assert [error.message for error in schema.iter_errors(yaml.safe_load(block))] == []


def test_every_page_and_picture_that_is_pointed_to_is_there() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
            assert target.startswith("https://") or (document.parent / target).exists(), (document.name, target)


def test_every_page_is_in_the_sites_index() -> None:
    index = (ROOT / "scripts" / "mkdocs.yml").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if page.name not in index] == []
