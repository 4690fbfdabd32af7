"""The reference of commands and manifest keys, made from what reads them.

Usage: python -m tests.reference   (rewrites what stands between the marks in the pages of docs/ below)
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from batcher.catalog import bundled
from batcher.cli.app import COMMANDS
from batcher.manifest.schema import editor_schema
from batcher.provider import PROVIDERS
from batcher.provider.provider import Provider

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- made by python -m tests.reference -->\n", "<!-- end -->\n"


def commands() -> Iterator[str]:
    """Describe every command, from what `--help` knows."""
    for name, entry in COMMANDS.items():
        command = entry.load(name)
        about, _, example = (command.help or "").partition("Example")
        yield f"## batcher {name}\n\n{' '.join(about.split())}\n"
        if example:
            lines = [one.strip() for one in re.split(r";\s|\n", example.lstrip("s:")) if one.strip()]
            yield "```\n" + "\n".join(lines) + "\n```\n"
        rows = [_parameter(one) for one in command.params if one.name != "help"]
        if rows:
            yield "| argument or option | environment | meaning |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"


def _parameter(one: Any) -> str:
    shown = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
    if one.param_type_name == "argument":
        shown = f"`{one.metavar or (one.name or '').upper()}`"
    default = "" if one.default in {None, False} or callable(one.default) else f" (default {one.default})"
    environment = f"`{one.envvar}`" if one.envvar else ""
    return f"| {shown} | {environment} | {(one.help or '').replace('|', '&#124;')}{default} |"


def manifest() -> Iterator[str]:
    """Describe every key of a manifest, from the model that reads it."""
    schema = editor_schema([])
    top = {name: _with_its_words(one, schema["$defs"]) for name, one in schema["properties"].items()}
    yield _table(top, "")
    for section, name in (
        ("limits", "Limits"),
        ("retry", "Retry"),
        ("output", "OutputSection"),
        ("images", "ImagesSection"),
    ):
        yield f"### {section}\n\n{_table(schema['$defs'][name]['properties'], f'{section}.')}"
    for name, title in (("RowsFile", "jobs, as a file"), ("RowsGlob", "jobs, as a pattern")):
        yield f"### {title}\n\n{_table(schema['$defs'][name]['properties'], 'jobs.')}"


def _with_its_words(schema: Mapping[str, Any], sections: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give a section what is said of it where it is defined."""
    if "description" in schema or "$ref" not in schema:
        return schema
    return {**schema, "description": sections[schema["$ref"].rpartition("/")[2]]["description"]}


def _table(properties: Mapping[str, Any], before: str) -> str:
    rows = [
        f"| `{before}{name}` | {_kind(one)} | {_default(one)} | {' '.join(str(one.get('description', '')).split())} |"
        for name, one in properties.items()
    ]
    return "| key | takes | default | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"


def _kind(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        kinds = [_kind(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in schema:
        return "mapping"
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    words = {"string": "text", "integer": "whole number", "number": "number", "object": "mapping", "array": "list"}
    kind = words.get(str(schema.get("type")), "")
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    if kind.endswith("number") and high is not None:
        return f"{kind}, {low:,} to {high:,}"
    if kind == "text" and "smhd" in str(schema.get("pattern")):
        return "time such as `90s`, `30m`, `1h30m`"
    return kind


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    return (
        ""
        if default in (None, {}) or "$ref" in schema
        else f"`{default:g}`"
        if isinstance(default, float)
        else f"`{default}`"
    )


def providers() -> Iterator[str]:
    """Describe what each provider can promise, from what it declares."""
    names = list(PROVIDERS)
    head = "| | " + " | ".join(PROVIDERS[name].traits.title for name in names) + " |\n| --- |" + " --- |" * len(names)
    rows = [
        f"| {title} | " + " | ".join(say(PROVIDERS[name]) for name in names) + " |" for title, say in _PROMISES.items()
    ]
    yield "\n".join([head, *rows]) + "\n"


def _bytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count % 2**20 == 0 else f"{count / 1e6:.0f} MB"


def _names_of_token(one: Provider) -> str:
    names = [f"`{name}`" for name in one.traits.token_names]
    pair = " with ".join(f"`{name}`" for name in one.traits.token_pair)
    return ", else ".join([*names, *([pair] if pair else [])])


_PROMISES: dict[str, Callable[[Provider], str]] = {
    "in a manifest": lambda one: f"`provider: {one.name}`",
    "token": _names_of_token,
    "base URLs moved by": lambda one: f"`{one.traits.api.variable}`, `{one.traits.account.variable}`",
    "models bundled": lambda one: ", ".join(f"`{name}`" for name in bundled(one.name)),
    "a submission sent twice": lambda one: (
        "makes two requests" if one.traits.repeat == "none" else "is one request, by its key"
    ),
    "a submission whose answer was lost": lambda one: (
        "is looked for in the list of past requests, and adopted where it certainly is this one"
        if one.history
        else "stays `uncertain`: the vendor lists no past requests"
    ),
    "where a request stands": lambda one: (
        "the result tells, in one call with the bill"
        if one.traits.result_tells_state
        else "a call of its own tells, then the result"
    ),
    "bill": lambda one: {
        "result": "comes with the result, in dollars",
        "units": "units of the result times a listed price",
        "none": "is not told",
    }[one.traits.bill],
    "a full queue": lambda one: {"rejects": "rejects: the window narrows", "waits": "waits"}[one.traits.full_queue],
    "request with its images inside": lambda one: f"up to {_bytes(one.traits.most_inline_bytes)}",
    "outputs can be fetched for": lambda one: one.traits.outputs_live,
    "outputs lie on": lambda one: ", ".join(f"`*{host}`" for host in one.traits.file_hosts),
}


PAGES = {"commands.md": commands, "manifest.md": manifest, "providers.md": providers}


def made(page: str) -> str:
    """Give a page with its reference as it should be."""
    text = (DOCS / page).read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n" + "\n".join(PAGES[page]()) + f"\n{END}{after}"


if __name__ == "__main__":
    for page in PAGES:
        (DOCS / page).write_text(made(page), "utf-8")
    sys.exit(0)
