"""What a large result carries as data URIs comes out whole, wherever the network cuts it, and memory stays flat."""

import base64
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from batcher.errors import WrongUse
from batcher.job import ASIDE
from batcher.provider import runcomfy
from batcher.provider.calls import Answer
from batcher.provider.data_uri_extractor import DataUriExtractor
from batcher.provider.http import HttpWire
from batcher.provider.provider import Reference
from batcher.provider.replies import Finished
from batcher.provider.runcomfy import RUNCOMFY
from tests.nights.memory import picture
from tests.real.api import TOKEN, Api
from tests.real.conftest import MODEL, Batcher


def sifted(text: bytes, folder: Path, chance: random.Random) -> DataUriExtractor:
    cuts = sorted(chance.choices(range(len(text) + 1), k=chance.choice([0, 1, 3, 40])))
    first, *blocks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    extractor = DataUriExtractor(folder, bytearray(first))
    for block in [*blocks, b""]:
        extractor.feed(block)
    extractor.close()
    return extractor


@pytest.mark.parametrize("seed", range(60))
def test_data_uris_come_out_whole_wherever_an_answer_is_cut(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    media = [chance.randbytes(chance.choice([0, 1, 2, 3, 100, 5000])) for _ in range(chance.randint(0, 3))]
    uris = ["data:image/png;base64," + base64.b64encode(one).decode() for one in media]
    odd = [
        'he said "data:image/png;base64,AAAA" twice',
        "ends in a backslash\\",
        "data:text/plain,short",
        "data:",
        'é\\"',
    ]
    body = {"status": "succeeded", "odd": chance.sample(odd, k=3), "output": {"images": uris}, "note": odd[seed % 5]}
    text = json.dumps(body, ensure_ascii=chance.random() < 0.5)
    if chance.random() < 0.5:
        text = text.replace("/", "\\/")
    extractor = sifted(text.encode(), tmp_path, chance)
    marks = [f"data:image/png;base64,aside:{number}" for number in range(len(media))]
    assert json.loads(bytes(extractor.body)) == {**body, "output": {"images": marks}}
    assert [file.read_bytes() for file in extractor.files] == media


def test_a_server_cannot_name_a_file_of_ours(tmp_path: Path) -> None:
    asked = ["aside:/etc/passwd", "data:image/png;base64,aside:0", "data:image/png;base64,aside:7"]
    body = json.dumps({"status": "succeeded", "output": {"images": asked}}).encode()
    reply = runcomfy.read_poll(Answer(200, {}, body), 0.0, "r")
    assert isinstance(reply, Finished) and not any(url.startswith(ASIDE) for url in reply.urls)
    own = runcomfy.read_poll(Answer(200, {}, body, aside=(tmp_path / "a",)), 0.0, "r")
    assert isinstance(own, Finished) and [url for url in own.urls if url.startswith(ASIDE)] == [
        f"aside:{tmp_path / 'a'}"
    ]


def test_what_an_answer_left_that_broke_off_is_thrown_away(tmp_path: Path) -> None:
    extractor = DataUriExtractor(tmp_path, bytearray(b'{"output": {"image": "data:image/png;base64,AAAA'))
    extractor.feed(b"BBBB" * 1000)
    assert len(list(tmp_path.iterdir())) == 1
    extractor.drop()
    assert not list(tmp_path.iterdir())


async def test_a_folder_that_cannot_be_written_is_not_the_networks_fault(api: Api, tmp_path: Path) -> None:
    links = api.accept({"prompt": "a"})
    api.delay = -1.0
    api.output_urls = ["data:image/png;base64," + "A" * 12_000_000]
    wire = HttpWire(api.base, TOKEN)
    with pytest.raises(WrongUse, match="cannot be written"):
        await wire.send(RUNCOMFY.result(Reference("m", links["request_id"]), tmp_path / "nowhere"))
    await wire.close()


MEASURED = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "batcher", *sys.argv[1:]]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(code)
"""


@pytest.mark.long
def test_a_result_of_a_hundred_megabytes_is_streamed(batcher: Batcher, api: Api) -> None:
    content = picture("large") + bytes(75_000_000)
    api.output_urls = ["data:image/png;base64," + base64.b64encode(content).decode()]
    manifest = batcher.csv(["a"])
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "run", manifest, "--model", MODEL, "-o", "out"],
        cwd=batcher.folder, env=batcher.environ, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 150, "MB at the most; in memory it took over 400"
    (file,) = (batcher.folder / "out" / "files").glob("*.png")
    assert file.read_bytes() == content
    said = json.loads(file.with_suffix(".json").read_text())
    assert said["output"]["url"] == f"data:image/png;sha256={said['output']['sha256']},"
    assert not (batcher.folder / "out" / ".parts").exists()
    assert batcher("verify", "out").code == 0
