"""Fuzzes what strangers write: manifests, rows, templates, a server's replies, names. Needs the extra `fuzz`.

Usage: python -m tests.fuzz manifest|csv|template|reply|name|token|words --minutes 1
"""

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import atheris

with atheris.instrument_imports(include=["batcher"]):
    from batcher.catalog import bundled
    from batcher.errors import BatcherError
    from batcher.hosting.inline import ImageFactsCache
    from batcher.manifest.expand import Expansion, Options
    from batcher.manifest.manifest import open_manifest
    from batcher.manifest.names import safe_name
    from batcher.manifest.templates import BadTemplate, Template
    from batcher.provider import PROVIDERS
    from batcher.provider.answers import MOST_OUTPUTS
    from batcher.provider.calls import Answer, target
    from batcher.provider.damaged_json import hinted_ids, parse
    from batcher.provider.provider import Provider, Reference
    from batcher.provider.redaction import Redactor
    from batcher.provider.replies import Accepted, Finished
    from batcher.terminal_text import CONTROLS, command, plain

MODEL = bundled()["google/nano-banana/pro/edit"]
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
SLOW = 2.0
"""Seconds that nothing may take."""


def expand(name: str, content: bytes) -> None:
    """Read a manifest and expand it: it is jobs, or named faults."""
    file = FOLDER / name
    file.write_bytes(content)
    try:
        manifest = open_manifest(str(file))
        for number, _ in enumerate(
            Expansion(manifest, MODEL, ImageFactsCache(), Options({}, None, skip_invalid=False), None)
        ):
            if number > 500:
                break
    except BatcherError:
        pass


def manifest(data: bytes) -> None:
    expand("m.yaml", b"model: google/nano-banana/pro/edit\n" + data)


def csv(data: bytes) -> None:
    expand("m.csv", b"prompt,image_urls," + data)


def template(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        filled = Template("{{ " + text + " }}").fill({"a": "Mug", "n": 7, "words": ["x", "y"], "d": {"k": 1}})
    except BadTemplate:
        return
    assert len(filled) <= 1_000_000
    assert " at 0x" not in filled, "an address: another one at each start"
    again = Template("{{ " + text + " }}").fill({"a": "Mug", "n": 7, "words": ["x", "y"], "d": {"k": 1}})
    assert again == filled


def reply(data: bytes) -> None:
    given = atheris.FuzzedDataProvider(data)
    status = given.ConsumeIntInRange(100, 599)
    headers = {"retry-after": given.ConsumeUnicodeNoSurrogates(20)}
    headers |= {name: given.ConsumeUnicodeNoSurrogates(20) for name in ("x-fal-billable-units", "x-fal-error-type")}
    answer = Answer(status, headers, given.ConsumeBytes(2000), given.ConsumeBool())
    for one in PROVIDERS.values():
        read_by(one, answer)
    for hint in hinted_ids(answer.body.decode("utf-8", "replace")):
        assert hint.isprintable() and hint not in {".", ".."}


def read_by(api: Provider, answer: Answer) -> None:
    """Let a provider read an answer as that of each of its calls: whatever it says, it is one of the closed set."""
    request = Reference("m/n/o", "r-1", unit_usd=0.1)
    found = api.read_submit(answer, 1.7e9, "m/n/o")
    if isinstance(found, Accepted):
        assert found.request_id and found.request_id.isprintable()
        json.dumps([found.request_id, dict(found.follow)]).encode()
        for step in (api.status, api.result, api.cancel):
            call = step(Reference("m/n/o", found.request_id, found.follow))
            assert target(call, "https://api.example/x").startswith("https://api.example/")
    for read in (api.read_status, api.read_result):
        polled = read(answer, 1.7e9, request)
        if isinstance(polled, Finished):
            assert len(polled.urls) <= MOST_OUTPUTS
            assert polled.billed_usd is None or 0 <= polled.billed_usd < math.inf
    api.read_cancel(answer, 1.7e9, request)
    api.read_probe(answer)
    api.read_balance(answer)
    if api.history:
        api.history.read(answer)
    if api.price_list:
        api.price_list.read(answer, "m/n/o")
    value, _ = parse(answer.body)
    api.read_catalogue(value, "m/n/o")


def token(data: bytes) -> None:
    """A server's words never hold the token, however they are read."""
    secret = "tok-/en+0123"
    given = atheris.FuzzedDataProvider(data)
    spelt = "".join(_spell(char, given.ConsumeIntInRange(0, 5)) for char in secret)
    text = given.ConsumeUnicodeNoSurrogates(40) + spelt + given.ConsumeUnicodeNoSurrogates(40)
    clean = Redactor(secret).text(text)
    assert secret not in unquote(clean) and spelt not in clean, clean
    try:
        assert secret not in json.loads(f'"{clean}"')
    except ValueError:
        pass


def _spell(char: str, how: int) -> str:
    code = ord(char)
    return [char, f"\\u{code:04x}", f"\\u{code:04X}", f"%{code:02x}", f"%{code:02X}", f"\\u0025{code:02x}"][how]


def words(data: bytes) -> None:
    """Texts of others steer no terminal, and commands can be read back by a shell."""
    text = data.decode("utf-8", "surrogateescape")
    assert not CONTROLS.search(plain(text))
    made = command("status", Path(text)) if "\0" not in text else ""
    assert not CONTROLS.search(made)


def name(data: bytes) -> None:
    made = safe_name(data.decode("utf-8", "surrogateescape"))
    parts = made.split("/")
    assert made and not made.startswith("/") and ".." not in parts and all(parts), made
    assert all(len(part.encode()) <= 200 for part in parts), made
    assert not any(ord(char) < 32 for char in made), made


TARGETS: dict[str, Callable[[bytes], None]] = {
    "manifest": manifest,
    "csv": csv,
    "template": template,
    "reply": reply,
    "name": name,
    "token": token,
    "words": words,
}
SEEDS = {
    "manifest": [
        b"jobs: [{prompt: a, image_urls: https://x.y/z.png}]\nmatrix: {scene: [a, b]}\noutput: {name: '{{ scene | slug }}'}\n",
        b"jobs: {glob: '*.png'}\nlimits: {concurrency: 4}\nretry: {job_timeout: 1h30m}\nrepeat: 2\n",
    ],
    "csv": [b'scene\n"a, b",https://x.y/z.png,c\n', b";n\r\na;https://x.y/z.png|https://x.y/w.png;1\r\n"],
    "template": [
        b"a ~ n * 3 | string | center(9)",
        b"words | join('-') ~ d.k ** 2",
        b"'%03d' % n if n > 3 else a[0]",
        b"words | map('upper') | random",
        b"d.items",
    ],
    "reply": [
        b'\xc8\x00{"request_id": "r-1", "status_url": "x"}',
        b'\x00{"error_code": 400002, "error_message": "no"}',
    ],
    "token": [b"\x00\x01\x02\x03\x04\x05", b"\xff" * 40],
    "words": [b"-dash", b"a\nb", "\u202egnp.exe".encode(), b"it's $(x) `y`"],
    "name": [b"a/b/../c", b"con.txt", "磨砂玻璃/ü".encode()],
}


def main() -> None:
    which = sys.argv[1]
    minutes = float(sys.argv[sys.argv.index("--minutes") + 1]) if "--minutes" in sys.argv else 1.0
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[which]):
        (corpus / str(number)).write_bytes(seed)

    def timed(data: bytes) -> None:
        begun = time.process_time()
        TARGETS[which](data)
        assert time.process_time() - begun < SLOW, "it took too long"

    options = [f"-max_total_time={int(minutes * 60)}", "-max_len=3000", "-rss_limit_mb=4096", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={FOLDER}/", str(corpus)], timed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
