"""Bugs planted on purpose into a copy of the project: each breaks a promise, and some proof must notice.

Usage: python -m tests.planted [NAME...] [--minutes 5]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent

PROOFS = {
    "nights": ("-m", "tests.nights.many", "--count", "80", "--seed", "5000", "--workers", "1"),
    "acts": ("-m", "tests.nights.play", '{"jobs": 2, "seed": 3, "every_act": true, "stride": 2, "strict": true}'),
    "powercut": ("-m", "tests.crashes.powercut", "--every", "2"),
    "model": ("-m", "pytest", "-q", "-x", "tests/rooms/test_model.py"),
    "cases": ("-m", "pytest", "-q", "-x", "-m", "not long", "tests/nights/test_faults.py"),
    "disks": ("-m", "pytest", "-q", "-x", "tests/real/test_disks.py", "-k", "ballast or printed or anew"),
    "copies": ("-m", "pytest", "-q", "-x", "tests/real/test_copies.py", "-k", "older_backup"),
    "money": ("-m", "pytest", "-q", "-x", "tests/rooms/test_pacing.py", "-k", "bill or cap"),
    "page": ("-m", "pytest", "-q", "-x", "tests/rooms/test_report.py", "-k", "ends_no_element"),
    "counts": ("-m", "pytest", "-q", "-x", "tests/nights/test_counts.py", "-k", "does_not_say"),
    "order": ("-m", "pytest", "-q", "-x", "tests/nights/test_nights.py", "-k", "due_before"),
    "clocks": ("-m", "pytest", "-q", "-x", "tests/nights/test_clocks.py", "-k", "after_hours"),
    "requests": (
        "-m",
        "pytest",
        "-q",
        "-x",
        "tests/real/test_by_hand.py",
        "-k",
        "carried_out or adopted_request_costs",
    ),
    "files": ("-m", "pytest", "-q", "-x", "tests/rooms/test_outputs.py", "-k", "under_the_thread"),
    "intake": ("-m", "pytest", "-q", "-x", "-m", "not long", "tests/rooms/test_intake.py"),
    "narrowed": ("-m", "pytest", "-q", "-x", "tests/real/test_intake.py", "-k", "narrowed or damaged_photo"),
    "templates": (
        "-m",
        "tests.nights.play",
        '{"jobs": 6, "seed": 4, "templates": true, "kills": [60, 90], "strict": true}',
    ),
    "gateways": (
        *("-m", "tests.nights.play"),
        '{"jobs": 16, "seed": 4, "mishaps": {"code_504": 0.2, "code_500_in_200": 0.2, "code_408": 0.2, "error_503": 0.2}, '
        '"strict": true}',
    ),
    "late": ("-m", "tests.nights.play", '{"jobs": 8, "seed": 4, "mishaps": {"late_output": 0.6}, "strict": true}'),
    "mixed": (
        *("-m", "tests.nights.play"),
        '{"jobs": 12, "seed": 4, "concurrency": 4, "mishaps": {"read_other": 0.2}, "strict": true}',
    ),
    "methods": ("-m", "pytest", "-q", "-x", "tests/rooms/test_bounds.py", "-k", "no_text_of_its_own"),
    "drips": ("-m", "pytest", "-q", "-x", "tests/real/test_far_side.py", "-k", "drips"),
    "passwords": ("-m", "pytest", "-q", "-x", "tests/real/test_far_side.py", "-k", "password"),
    "unbilled failures": (
        *("-m", "tests.nights.play"),
        '{"jobs": 8, "seed": 1190, "images": 2, "slots": 6, "concurrency": 11, "kills": [30, 312], "signals": [0, 0], '
        '"busy": 0.001, "timers_first": true, "mishaps": {"fail": 0.057, "file_wrong": 0.164}, "max_outstanding": 5, '
        '"retry": {"attempts": 1}, "max_cost": 1.47, "estimate": 0.11, "strict": true}',
    ),
    "untold ends": (
        *("-m", "tests.nights.play"),
        '{"jobs": 9, "seed": 122, "slots": 5, "concurrency": 2, "kills": [-73], "signals": [7.85], "mishaps": '
        '{"gone": 0.028, "file_scheme": 0.124, "stuck": 0.098, "read_other": 0.197, "read_busy": 0.084}, '
        '"retry": {"attempts": 1}, "max_cost": 0.36, "estimate": 0.11, "strict": true}',
    ),
    "refusals": (
        *("-m", "tests.nights.play"),
        '{"jobs": 12, "seed": 4, "mishaps": {"code_504_cut": 0.3, "refusal_with_id": 0.3}, "strict": true}',
    ),
    "caps": (
        *("-m", "tests.nights.play"),
        '{"jobs": 40, "seed": 4, "concurrency": 20, "slots": 9, "max_cost": 1.0, "estimate": 0.2, "strict": true}',
    ),
    "found": (
        *("-m", "tests.nights.play"),
        '{"jobs": 20, "seed": 3, "protocol": "fal", "mishaps": {"lose": 0.2, "reset": 0.3}, "strangers": 0.5, '
        '"kills": [60, 200], "strict": true}',
    ),
    "found by inputs": ("-m", "pytest", "-q", "-x", "tests/real/test_fal.py", "-k", "stays_uncertain and held"),
    "never listed": (
        *("-m", "tests.nights.play"),
        '{"jobs": 12, "seed": 3, "protocol": "fal", "mishaps": {"lose": 0.4, "unlisted": 0.5}, "strict": true}',
    ),
    "twins": ("-m", "pytest", "-q", "-x", "tests/real/test_fal.py", "-k", "could_not_be_read"),
    "gateways at fal": (
        *("-m", "tests.nights.play"),
        '{"jobs": 12, "seed": 4, "protocol": "fal", "mishaps": {"code_503": 0.4}, "strict": true}',
    ),
    "seeds": ("-m", "pytest", "-q", "-x", "tests/real/test_fal.py", "-k", "seed_of_its_own_which"),
    "followed": ("-m", "pytest", "-q", "-x", "tests/real/test_fal.py", "-k", "another_host"),
    "fal's failures": (
        "-m",
        "tests.nights.play",
        '{"jobs": 12, "seed": 4, "protocol": "fal", "mishaps": {"refuse": 0.3, "stumble": 0.4, "read_busy": 0.3}, '
        '"strict": true}',
    ),
    "hosts": ("-m", "tests.nights.play", '{"jobs": 6, "seed": 4, "mishaps": {"file_500": 0.4}, "strict": true}'),
    "far": ("-m", "pytest", "-q", "-x", "tests/real/test_far_side.py", "-k", "keep_nobody or spells_otherwise"),
    "doors": ("-m", "pytest", "-q", "-x", "tests/real/test_doors.py", "-k", "names_files_elsewhere or leads_out"),
    "security": ("-m", "pytest", "-q", "-x", "tests/real/test_security.py", "-k", "redirect or stood_still"),
}
LIMIT = 300
"""Seconds after which a proof counts as failed: it takes a sixth of that on sound code, and a slow machine twice as long."""


@dataclass(frozen=True)
class Bug:
    name: str
    proof: str
    changes: Sequence[tuple[str, str, str]]
    """File, what is right, what is wrong."""


BUGS = [
    Bug(
        "learns of ends that nobody has seen",
        "clocks",
        [
            (
                "engine/watch.py",
                "if not watched.tells or not (watched.fresh or watched.before):",
                "if not watched.tells:",
            )
        ],
    ),
    Bug(
        "carries a request from another terminal out again",
        "requests",
        [("ledger/retry.py", "self.only.get(job.id) == job.attempt", "job.id in self.only")],
    ),
    Bug(
        "sets nothing aside for a request that is adopted",
        "requests",
        [("runs/commands.py", "            if more:\n", "            if not more:\n")],
    ),
    Bug(
        "closes a file under the thread that writes it",
        "files",
        [
            (
                "outputs/download.py",
                "            self._left = True\n            if not self._busy:\n                self._drop()",
                "            self._left = True\n            self._drop()",
            )
        ],
    ),
    Bug(
        "takes the look that sees an end for the end",
        "counts",
        [("engine/watch.py", "self._pace.learn(job, age, before)", "self._pace.learn(job, age)")],
    ),
    Bug(
        "resubmits on recovery",
        "model",
        [
            (
                "engine/rules.py",
                'Move(facts.after_crash, facts.after_crash_kind, "the process ended while the submission was on its way")',
                'Move(State.PENDING, message="surely it was not accepted")',
            )
        ],
    ),
    Bug(
        "resubmits on recovery, as a night sees it",
        "acts",
        [
            (
                "engine/rules.py",
                'Move(facts.after_crash, facts.after_crash_kind, "the process ended while the submission was on its way")',
                'Move(State.PENDING, message="surely it was not accepted")',
            )
        ],
    ),
    Bug(
        "posts before the intent is on disk",
        "acts",
        [
            (
                "engine/submit.py",
                "        return Move(State.SUBMITTING, seed=seed)",
                "        self._answers = getattr(self, '_answers', {})\n"
                "        self._answers[job.id] = await self._context.tools.wire.send(\n"
                "            self._context.tools.api.submit(job.spec.model, flight.body, 60.0)\n"
                "        )\n"
                "        return Move(State.SUBMITTING, seed=seed)",
            ),
            (
                "engine/submit.py",
                "reply = context.tools.api.read_submit(await context.tools.wire.send(call), context.tools.clock.now(), model_id)",
                "reply = context.tools.api.read_submit(self._answers.pop(job.id), context.tools.clock.now(), model_id)",
            ),
        ],
    ),
    Bug(
        "does not wait for the intent to be on disk",
        "powercut",
        [
            (
                "engine/engine.py",
                "            after = await self._ledger.record(before, move)\n",
                "            if move.to is State.SUBMITTING:\n"
                "                self._told.add(asyncio.create_task(self._ledger.record(before, move)))\n"
                "                after = replace(before, state=State.SUBMITTING, attempt=before.attempt + 1)\n"
                "            else:\n"
                "                after = await self._ledger.record(before, move)\n",
            )
        ],
    ),
    Bug(
        "resubmits when the answer is lost",
        "nights",
        [
            (
                "engine/rules.py",
                "return Move(State.UNCERTAIN, FailureKind.LOST, message, evidence=evidence)",
                "return Move(State.PENDING, message=message, delay=1.0)",
            )
        ],
    ),
    Bug(
        "takes a proxy's 503 for the API's own",
        "gateways",
        [("provider/runcomfy.py", "case 503, _ if said.own:", "case 503, _:")],
    ),
    Bug(
        "buys a failed generation again unasked",
        "nights",
        [("engine/rules.py", "job.attempt < retry.attempts", "job.attempt < max(2, retry.attempts)")],
    ),
    Bug(
        "does not notice an id that another job has",
        "cases",
        [("ledger/changes.py", '(row["job_id"], row["number"]) == (job.id, job.attempt)', "row is not None")],
    ),
    Bug(
        "throws the id of a cut answer away",
        "cases",
        [
            (
                "provider/runcomfy.py",
                "return salvaged_id(answer.body)",
                "return salvaged_id(answer.body) if answer.whole else None",
            )
        ],
    ),
    Bug(
        "commits without flushing the log of changes",
        "powercut",
        [("ledger/database.py", "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL")],
    ),
    Bug(
        "gives a file its name before it is flushed",
        "powercut",
        [("outputs/output_folder.py", "        os.fsync(self._fd)\n", "")],
    ),
    Bug(
        "does not flush the folder after a file was named",
        "powercut",
        [
            (
                "outputs/output_folder.py",
                "    os.rename(part, name, src_dir_fd=parts, dst_dir_fd=fd)\n    os.fsync(fd)\n",
                "    os.rename(part, name, src_dir_fd=parts, dst_dir_fd=fd)\n",
            ),
        ],
    ),
    Bug(
        "writes the sidecar first",
        "powercut",
        [
            (
                "outputs/output_folder.py",
                "            _name(part.name, parts, name, fd)\n"
                "            if beside:\n"
                "                _name(beside.name, parts, sidecar_file(name), fd)\n",
                "            if beside:\n"
                "                _name(beside.name, parts, sidecar_file(name), fd)\n"
                "            _name(part.name, parts, name, fd)\n",
            )
        ],
    ),
    Bug(
        "says that a job is done before its sidecar is there",
        "acts",
        [
            (
                "engine/fetch.py",
                "sidecar(job, placed, 1, self._tools.origin) if len(job.outputs) == 1 else None",
                "None",
            ),
            (
                "engine/fetch.py",
                "        if len(placed) > 1:\n            await asyncio.to_thread(self._write_sidecars, job, placed)\n",
                "        self._late = getattr(self, '_late', [])\n"
                "        self._late.append(asyncio.get_running_loop().call_later(\n"
                "            0.01, self._write_sidecars, job, placed))\n",
            ),
        ],
    ),
    Bug(
        "goes on with a connection that the disk has failed",
        "disks",
        [
            (
                "ledger/database.py",
                "        if not self.fell:\n            return connection\n",
                "        return connection\n",
            )
        ],
    ),
    Bug(
        "lets a request id go that cannot be saved",
        "disks",
        [
            (
                "ledger/ledger.py",
                "        precious = [change for change in batch if change.move.to is State.RUNNING and change.move.request_id]\n",
                "        precious: list[_Change] = []\n",
            )
        ],
    ),
    Bug(
        "does not ask the journal of its submissions",
        "copies",
        [("ledger/reconcile.py", "    if last is None:\n        return True\n", "    return True\n")],
    ),
    Bug(
        "follows a redirect with a submission",
        "security",
        [
            (
                "provider/http.py",
                "allow_redirects=False,\n                    trace_request_ctx",
                "allow_redirects=True,\n                    trace_request_ctx",
            )
        ],
    ),
    Bug(
        "gives an answer up that came while the machine slept",
        "security",
        [("provider/http.py", "                limit.reschedule(soonest)\n", "                pass\n")],
    ),
    Bug(
        "forgets what is in flight when a bill is above its estimate",
        "money",
        [
            (
                "pacing/budget.py",
                "self._reserve_anew([held for held in self._held.values() if held.kind == kind])",
                "self._reserve_anew([])",
            )
        ],
    ),
    Bug(
        "believes the manifest's price whatever is billed",
        "money",
        [("pacing/budget.py", "(estimate or 0.0) * (known.factor if known else 1.0)", "estimate or 0.0")],
    ),
    Bug(
        "takes the end of a job's last task for the end of its next",
        "order",
        [
            (
                "engine/engine.py",
                "        if flight is None or flight.task is not task:\n",
                "        if flight is None:\n",
            )
        ],
    ),
    Bug(
        "draws by the interpreter's own chance",
        "templates",
        [
            (
                "manifest/template_limits.py",
                'return int.from_bytes(digest[:8], "big") % count',
                "import secrets; return secrets.randbelow(count)",
            )
        ],
    ),
    Bug(
        "takes a gateway's 504001 for a certain refusal",
        "gateways",
        [
            (
                "provider/runcomfy.py",
                "case status, _ if status in FOR_GOOD:",
                "case status, code if code is not None or status in FOR_GOOD:",
            )
        ],
    ),
    Bug(
        "gives up a result without outputs at once",
        "late",
        [("engine/rules.py", "now - watch.empty_since >= LATE_OUTPUTS", "now - watch.empty_since >= 2.0")],
    ),
    Bug(
        "lets what waits for late outputs hold its place",
        "far",
        [("engine/watch.py", "            flights.lacks_outputs(flight)\n", "            pass\n")],
    ),
    Bug(
        "takes an answer about another request for its own",
        "mixed",
        [
            (
                "provider/runcomfy.py",
                "return None if named is None else Misdirected(named)",
                "return None",
            )
        ],
    ),
    Bug(
        "waits for a file that never comes for ever",
        "hosts",
        [("engine/rules.py", "| Interrupted(message) if late:", "| Interrupted(message) if False:")],
    ),
    Bug(
        "spends the whole cap before the first bill",
        "caps",
        [("pacing/budget.py", "UNKNOWN: Final = 10.0", "UNKNOWN: Final = 1.0")],
    ),
    Bug(
        "joins what has no text of its own",
        "methods",
        [
            (
                "manifest/template_limits.py",
                "found = [*map(make_attrgetter(context.environment, attribute), found)]",
                "pass",
            )
        ],
    ),
    Bug(
        "believes a refusal that speaks of the server's own trouble",
        "refusals",
        [
            (
                "provider/runcomfy.py",
                "if meaning in FOR_GOOD and said.code is None and _is_troubled",
                "if False and _is_troubled",
            )
        ],
    ),
    Bug(
        "drops the request id of a refusal",
        "refusals",
        [("provider/runcomfy.py", "or meaning not in _NOT_TAKEN", "or meaning not in _NOT_TAKEN | _FOR_GOOD")],
    ),
    Bug(
        "waits for the headers of a file for as long as they drip",
        "drips",
        [("outputs/download.py", "async with asyncio.timeout(patience):", "async with asyncio.timeout(None):")],
    ),
    Bug(
        "writes a proxy's password down",
        "passwords",
        [("provider/http.py", "text = without_passwords(readable(", "text = str(readable(")],
    ),
    Bug(
        "takes the bill of nothing of a failure for a price",
        "unbilled failures",
        [("pacing/budget.py", "or (billed is not None and billed <= 0):", "or False:")],
    ),
    Bug(
        "counts what ended without a word at its estimate",
        "untold ends",
        [("engine/pace.py", " and after.kind not in UNTOLD:", ":")],
    ),
    Bug(
        "writes wherever a ledger says",
        "doors",
        [("outputs/output_folder.py", '        if not is_inside(f"{folder}/x"):', "        if False:")],
    ),
    Bug(
        "reads wherever a ledger says",
        "doors",
        [
            ("checks/verify.py", '    if not is_inside(row["file"]):', "    if False:"),
            ("outputs/output_folder.py", "    if not is_inside(file):\n", "    if False:\n"),
            ("ledger/rows.py", 'row["file"] if row["file"] and is_inside(row["file"]) else None', 'row["file"]'),
        ],
    ),
    Bug(
        "knows its token only as it is spelt",
        "far",
        [("provider/redaction.py", 'if b"\\\\" in content or b"%" in content:', "if False:")],
    ),
    Bug(
        "puts a manifest's text into the page as it is",
        "page",
        [("show/report/report.py", r'text.replace("<", "\\u003c")', "text")],
    ),
    Bug(
        "a row that --where leaves out takes a sample though it cannot be made",
        "intake",
        [
            (
                "manifest/expand.py",
                "                self.expansion_counts.put_back(depth)  # what is left out need not be right\n",
                "",
            )
        ],
    ),
    Bug(
        "a pattern takes a run's own results for photos",
        "intake",
        [("manifest/globs.py", " and not is_run(one):", ":")],
    ),
    Bug(
        "a photo that was copied by half passes the plan",
        "intake",
        [("hosting/inline.py", "        _check_whole(file, found)\n", "")],
    ),
    Bug(
        "an empty cell keeps `default` from filling it",
        "intake",
        [
            (
                "manifest/template_limits.py",
                "return default if value is EMPTY else plain(value, default, boolean)",
                "return plain(value, default, boolean)",
            )
        ],
    ),
    Bug(
        "chance is drawn by columns that are empty",
        "intake",
        [("manifest/template_limits.py", "in of_the_row(self._values).items()", "in self._values.items()")],
    ),
    Bug(
        "a title is carried down into another product",
        "intake",
        [
            (
                "manifest/survey.py",
                "        if row.get(handle) != last and not row.get(title):\n            return False\n",
                "",
            )
        ],
    ),
    Bug(
        "a narrowed run unlists what it could not look at",
        "narrowed",
        [
            (
                "ledger/import_jobs.py",
                "        if not choice.partly():\n            connection",
                "        if True:\n            connection",
            )
        ],
    ),
    Bug(
        "a photo is sent that was not decoded whole",
        "narrowed",
        [("hosting/inline.py", "                picture.load()\n", "                pass\n")],
    ),
    Bug(
        "a retry of many moves what has moved since it was told of",
        "requests",
        [
            (
                "ledger/retry.py",
                "for job in map(job_of, rows) if job.spec.id not in moved)",
                "for job in map(job_of, rows))",
            )
        ],
    ),
]


BUGS += [
    Bug(
        "adopts another run's request",
        "found",
        [
            (
                "engine/request_matching.py",
                "        if request.inputs.get(SEED) != self.job.seed:\n            return False\n",
                "",
            )
        ],
    ),
    Bug(
        "adopts by its inputs a request that another run was answered with",
        "found by inputs",
        [
            (
                "runs/lost_requests.py",
                "        known |= others\n",
                "",
            )
        ],
    ),
    Bug(
        "takes a request's absence from the list for a proof",
        "never listed",
        [
            (
                "runs/run.py",
                "        return engine.halted is None and await engine.resubmit()",
                "        for job in await lost.uncertain():\n"
                "            await self.directory.ledger.record(job, Move(State.PENDING, message='it is not listed'))\n"
                "        return True",
            ),
            (
                "runs/run.py",
                "from batcher.job import IN_FLIGHT, SETTLED, State",
                "from batcher.job import IN_FLIGHT, SETTLED, Move, State",
            ),
        ],
    ),
    Bug(
        "adopts what may have a twin that could not be read",
        "twins",
        [("engine/request_matching.py", "not (complete and len(own) == 1)", "not len(own) == 1")],
    ),
    Bug(
        "takes a server's trouble with 503 for a refusal",
        "gateways at fal",
        [("provider/fal.py", "case 503 if said.own and not _is_troubled(said, answer):", "case 503 if said.own:")],
    ),
    Bug(
        "the next attempt has the same seed",
        "seeds",
        [
            (
                "engine/submit.py",
                "return None if seeds is None else self._context.tools.chance.choice(seeds)",
                "return int(job.id[:7], 16)",
            )
        ],
    ),
    Bug(
        "sends the key wherever a URL leads",
        "followed",
        [("provider/calls.py", "    if call.follow and is_below(call.follow, base):", "    if call.follow:")],
    ),
    Bug(
        "takes the queue's words for the result's, which is only late",
        "fal's failures",
        [
            (
                "engine/rules.py",
                "        case Finished(()) | Completed() | Unknown() if queue.error:",
                "        case Finished(()) | Completed() | Unknown() | Unavailable(reached=True) if queue.error:",
            ),
            (
                "provider/fal.py",
                "return Completed(one_line(failed), _kind(said, answer)) if failed else Completed()",
                "return Completed(one_line(failed)) if failed else Completed()",
            ),
        ],
    ),
]


def plant(bug: Bug, folder: Path) -> None:
    """Copy the project into a folder, with the bug in it."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "batcher", folder / "batcher", ignore=ignored)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=ignored)
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, right, wrong in bug.changes:
        file = folder / "batcher" / name
        text = file.read_text()
        assert text.count(right) == 1, f"{bug.name}: {right!r} stands {text.count(right)} times in {name}"
        file.write_text(text.replace(right, wrong))


def caught(bug: Bug | None, proof: str) -> tuple[bool, str]:
    """Say whether a proof fails on a copy with the bug in it (or none), and what it said."""
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        folder = Path(name)
        plant(bug or Bug("none", proof, []), folder)
        environ = {**os.environ, "PYTHONPATH": str(folder)}
        try:
            done = subprocess.run(
                [sys.executable, *PROOFS[proof]],
                cwd=folder,
                env=environ,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return True, f"it did not end within {LIMIT} s"
        return done.returncode != 0, done.stdout[-600:] + done.stderr[-300:]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/planted", description="Demand that each planted bug is noticed.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--minutes", type=float, help="begin no more after these; another day begins with other bugs")
    said = parser.parse_args()
    wanted = [bug for bug in BUGS if not said.names or bug.name in said.names]
    begun = time.monotonic()
    until = begun + said.minutes * 60 if said.minutes is not None else float("inf")
    if said.minutes is not None:
        first = 5 * datetime.now(UTC).toordinal() % len(wanted)
        wanted = wanted[first:] + wanted[:first]

    def noticed(bug: Bug) -> bool | None:
        return caught(bug, bug.proof)[0] if time.monotonic() < until else None

    found: list[bool | None] = []
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:
        for bug, one in zip(wanted, pool.map(noticed, wanted), strict=True):
            found.append(one)
            words = {None: "not tried", True: f"caught by {bug.proof}", False: "NOT CAUGHT"}[one]
            print(f"{words:<20} {bug.name}", flush=True)
        sound = sorted({bug.proof for bug, one in zip(wanted, found, strict=True) if one is not None})
        false = [
            proof
            for proof, (fails, _) in zip(sound, pool.map(lambda one: caught(None, one), sound), strict=True)
            if fails
        ]
    for proof in false:
        print(f"{proof} fails without any bug: it proves nothing")
    tried = [one for one in found if one is not None]
    late = f", {len(found) - len(tried)} not tried for lack of time" if len(tried) < len(found) else ""
    print(f"planted bugs caught: {sum(tried)} of {len(tried)}{late}  ({time.monotonic() - begun:.0f} s)")
    return 0 if all(tried) and not false else 1


if __name__ == "__main__":
    sys.exit(main())
