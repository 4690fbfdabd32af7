"""What makes it pleasant: a manifest to begin from, editors and shells that help, words near to those meant."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

from batcher.catalog import bundled
from batcher.cli.app import COMMANDS
from batcher.manifest.schema import editor_schema
from tests.faces.conftest import PHOTOS
from tests.real.conftest import MODEL, Batcher

ROOT = Path(__file__).parents[2]

MANIFESTS = PHOTOS.parent


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    found = editor_schema(bundled().values())
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.mark.parametrize("file", sorted(MANIFESTS.glob("*.yaml")), ids=lambda file: str(file.name))
def test_editors_accept_every_example(schema: jsonschema.Draft202012Validator, file: Path) -> None:
    assert [error.message for error in schema.iter_errors(yaml.safe_load(file.read_text()))] == []


GOOD = {"model": MODEL, "inputs": {"prompt": "x", "image_urls": ["{{ a }}"], "resolution": "{{ b }}"}}


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"jobs": "a.csv", "retry": {"job_timeout": "1h30m"}, "prices": {"1K": 0.1}}, True),
        ({"jobs": {"glob": "*.jpg"}, "limits": {"max_cost_usd": 4}}, True),
        ({"jobs": [{"a": 1}], "matrix": {"b": ["1K"]}}, True),
        ({"inptus": {}}, False),
        ({"limits": {"concurency": 3}}, False),
        ({"limits": {"concurrency": 0}}, False),
        ({"retry": {"uncertain": "maybe"}}, False),
        ({"retry": {"patience": "soon"}}, False),
        ({"inputs": {"prompt": "x", "resolution": "8K"}}, False),
        ({"inputs": {"prmpt": "x"}}, False),
        ({"matrix": {"b": []}}, False),
    ],
)
def test_editors_see_the_faults_that_the_reader_sees(
    schema: jsonschema.Draft202012Validator, batcher: Batcher, change: dict[str, Any], good: bool
) -> None:
    manifest = GOOD | change
    assert schema.is_valid(manifest) is good
    manifest = {**manifest, "jobs": manifest.get("jobs", [{"a": "https://i.invalid/1.png", "b": "1K"}])}
    if good and isinstance(manifest["jobs"], str | dict):
        return  # its files are not here
    (batcher.folder / "m.yaml").write_text(json.dumps(manifest).replace('{"a": 1}', '{"a": "https://i.invalid/1.png"}'))
    assert batcher("plan", "m.yaml").code == (0 if good else 65)


def test_a_starter_begins_with_the_photos_that_are_there(
    batcher: Batcher, schema: jsonschema.Draft202012Validator
) -> None:
    shutil.copytree(PHOTOS, batcher.folder / "shop" / "photos")
    assert batcher("init", "shop/restyle.yaml").code == 0
    text = (batcher.folder / "shop/restyle.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=batcher.schema.json\n")
    assert "[jobs]" not in text
    assert schema.is_valid(yaml.safe_load(text))
    assert batcher("plan", "shop/restyle.yaml", "--json").json()["jobs"] == 12
    assert json.loads((batcher.folder / "shop/batcher.schema.json").read_text()) == editor_schema(bundled().values())
    (batcher.folder / "batcher.schema.json").write_text("mine")
    assert batcher("init").code == 0
    assert (batcher.folder / "batcher.schema.json").read_text() == "mine"
    assert schema.is_valid(yaml.safe_load((batcher.folder / "batch.yaml").read_text()))


def complete(batcher: Batcher, words: str) -> list[str]:
    environ = {"_BATCHER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    script = Path(sys.executable).with_name("batcher")
    return subprocess.check_output([script], cwd=batcher.folder, env=batcher.environ | environ, text=True).split()


@pytest.mark.long
def test_the_shell_completes_commands_directories_and_words(batcher: Batcher) -> None:
    batcher.run_csv(["a"])
    assert complete(batcher, "batcher sta") == ["status"]
    assert complete(batcher, "batcher status ru") == ["runs/jobs"]
    assert complete(batcher, "batcher jobs runs/jobs --state un") == ["uncertain"]
    assert complete(batcher, "batcher jobs runs/jobs --kind re") == ["refused"]
    assert complete(batcher, "batcher run x.csv --model goo") == [MODEL]
    assert "batcher" in batcher("--show-completion", SHELL="/bin/bash").out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_shows_an_example(batcher: Batcher, name: str) -> None:
    assert f"batcher {name}" in batcher(name, "--help").out


def test_the_lock_has_what_the_two_commands_install_as_the_metadata_asks_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = [
        Requirement(line) for line in (ROOT / "scripts/requirements.lock").read_text().splitlines() if line[0] != "#"
    ]
    pinned = {one.name.lower(): next(iter(one.specifier)).version for one in lock}
    for needed in map(Requirement, project["dependencies"] + project["optional-dependencies"]["test"]):
        version = pinned[needed.name.lower()]
        assert needed.specifier.contains(version), f"{needed}: scripts/lock writes the lock anew"


def test_a_word_that_is_near_is_offered(batcher: Batcher) -> None:
    assert "Did you mean 'status'?" in batcher("statsu", "x").err
    assert "--concurrency" in batcher("run", "m.yaml", "--concurency", "3").err
    (batcher.folder / "m.yaml").write_text(f"model: {MODEL}\nlimits: {{concurency: 3}}\n")
    assert "did you mean `concurrency`?" in batcher("plan", "m.yaml").err


@pytest.mark.parametrize("name", ["plain", "ph [old]", 'p"q', "größe 磨", b"caf\xe9"])
def test_a_starter_about_any_folder_can_be_read(batcher: Batcher, name: str | bytes) -> None:
    place = batcher.folder / (name if isinstance(name, str) else os.fsdecode(name))
    place.mkdir()
    shutil.copy(PHOTOS / "mug.jpg", place / "IMG_1.JPG")
    assert batcher("init").code == 0
    plan = batcher("plan", "batch.yaml", "--json").json()
    assert (plan["fault_count"], plan["images"]) == (0, 0 if isinstance(name, bytes) else 2)
