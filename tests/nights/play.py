"""Plays nights: a process that forks a life for each run, kills it at a chosen act, and lets the next one go on.

A life is a real process on a real ledger and real files; it dies by `_exit` in the middle of whatever it does. The
world it talks to is the sandbox's, in memory; what that accepted is kept in a file, as a server would keep it.
Usage: python -m tests.nights.play SCENARIO   (a JSON object; findings are printed as one JSON object)
"""

import asyncio
import gc
import hashlib
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from batcher.catalog import read_entry
from batcher.clock import Clock, chance
from batcher.hosting.inline import ImageFactsCache
from batcher.job import Spec, State
from batcher.ledger.database import InlineDatabase, T, Work
from batcher.ledger.import_jobs import Choice
from batcher.ledger.reader import Reader
from batcher.ledger.request_register import RequestRegister
from batcher.manifest.expand import Expansion, Options
from batcher.manifest.manifest import open_manifest
from batcher.runs.dependencies import Dependencies
from batcher.runs.opening import open_directory
from batcher.runs.run import Run
from batcher.sandbox.faults import FAULTS, MAYBE_ACCEPTED
from batcher.sandbox.server import load_models
from batcher.sandbox.world import Conditions, Submission, World
from batcher.settings import SANDBOX, Destination, Endpoint, Limits, Policy, Retry, Secret
from tests.nights.memory import MemoryWire, picture
from tests.nights.virtual import VirtualLoop

MODEL = "google/nano-banana/pro/text-to-image"
MODEL_OF = {"runcomfy": MODEL, "fal": "fal-ai/nano-banana-pro"}
COUNT_OF = {"runcomfy": "number_of_images", "fal": "num_images"}
"""The model that a night's jobs take at each provider, and its input for the number of images."""
OWN_SEED = 77
"""A seed that a manifest names, so that an attempt has none of its own."""
EPOCH = 1_700_000_000.0
BETWEEN_LIVES = 50_000.0
MODELS = load_models()
DIED = 9
PRICE = 0.15
"""USD that the server bills for one image."""
LID = 8 * 3600.0
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where nights are played: the death of a process loses nothing there that a disk would keep."""


@dataclass
class Scenario:
    """One night, or every night of a batch: `kills` are the acts at which lives die, one after the other."""

    protocol: str = "runcomfy"
    jobs: int = 6
    seed: int = 1
    images: int = 1
    slots: int = 3
    concurrency: int = 5
    kills: list[int] = field(default_factory=list)
    every_act: bool = False
    every_await: bool = False
    signals: list[float] = field(default_factory=list)
    """Seconds after which a SIGTERM reaches each life; 0: none."""
    stride: int = 1
    busy: float = 0.0
    """Seconds that each turn of the event loop takes."""
    timers_first: bool = False
    """Within a turn, what time has come for is called first, as by uvloop."""
    mishaps: dict[str, float] = field(default_factory=dict)
    mishaps_end: float | None = None
    """Seconds after a life's start at which all goes well again."""
    outages: list[tuple[float, float]] = field(default_factory=list)
    """Seconds after a life's start, from and until."""
    travel: float = 0.02
    """Median seconds of a message, one way."""
    latency: float = 3.0
    sigma: float = 0.9
    latencies: dict[str, float] = field(default_factory=dict)
    """Medians of models that jobs take in turns; none: all take one model."""
    max_outstanding: int = 0
    rate: float = 0.0
    """Submissions a second that the server takes; 0: any."""
    retry: dict[str, Any] = field(default_factory=dict)
    templates: bool = False
    """Jobs are expanded anew by each life, from a manifest whose prompts are drawn by chance."""
    max_cost: float | None = None
    """The cap on money, USD."""
    estimate: float = 1.0
    """What the manifest believes of each dollar that the server bills."""
    strangers: float = 0.0
    """Seconds between requests of another run on the same account, which asks for the same."""
    own_seed: bool = False
    """The manifest names a seed: lost requests are told by their inputs alone."""
    list_lag: float = 0.0
    """Seconds after which the list of past requests shows one, where there is one."""
    lid_shut_at: float | None = None
    """Seconds of the loop's clock at which the wall's goes on by eight hours: the machine slept."""


PROMPT = "{{ sku }}, {{ ['red', 'blue', 'green', 'black'] | random }}, {{ ['old', 'new', 'worn'] | random }}"


def templated(scenario: Scenario, folder: Path) -> list[Spec]:
    """Expand a manifest, as each start of a run does."""
    file = folder / "night.yaml"
    rows = [{"sku": f"night {scenario.seed}, job {number}"} for number in range(1, scenario.jobs + 1)]
    model, seed = MODEL_OF[scenario.protocol], {"seed": OWN_SEED} if scenario.own_seed else {}
    inputs = {"prompt": PROMPT, COUNT_OF[scenario.protocol]: scenario.images, **seed}
    file.write_text(
        json.dumps({"model": model, "inputs": inputs, "jobs": rows, "output": {"name": "{{ sku | slug }}"}})
    )
    jobs = Expansion(open_manifest(str(file)), read_entry(MODELS[model]), ImageFactsCache(), Options())
    return [spec._replace(estimated_usd=PRICE * scenario.images * scenario.estimate) for spec, _ in jobs]


def specs(scenario: Scenario) -> list[Spec]:
    found = []
    models = [*scenario.latencies] or [MODEL_OF[scenario.protocol]]
    for number in range(1, scenario.jobs + 1):
        inputs: dict[str, object] = {"prompt": f"night {scenario.seed}, job {number}"}
        model = models[number % len(models)]
        if model == MODEL_OF[scenario.protocol]:
            inputs[COUNT_OF[scenario.protocol]] = scenario.images
            inputs |= {"seed": OWN_SEED} if scenario.own_seed else {}
        else:
            inputs["image_urls"] = ["https://images.example/a.png"]
        job_id = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
        found.append(
            Spec(
                job_id,
                f"job-{number}",
                model,
                inputs,
                row=number,
                estimated_usd=PRICE * scenario.images * scenario.estimate,
            )
        )
    return found


class MortalDatabase(InlineDatabase):
    """The inline database, with an instant to die at before and after each commit."""

    act: Callable[[str], None]

    async def transact(self, work: Work[T], *, bound: bool = True) -> T:
        self.act("begins a transaction")
        result = await super().transact(work, bound=bound)
        self.act("has committed")
        return result


class Life:
    """One process's run of a night, from its start to its end or its death.

    `kill_at`: the act at which it dies; below zero, the suspension point.
    """

    def __init__(self, scenario: Scenario, folder: Path, number: int, kill_at: int | None) -> None:
        self.acts = 0
        self.awaits = 0
        self.calls: list[str] = []
        """What was asked of the server, in order."""
        self.loop = VirtualLoop(self._step, busy=scenario.busy, timers_first=scenario.timers_first)
        self._scenario = scenario
        self._number = number
        self._wire: MemoryWire | None = None
        self._strangers_to_come = 12
        self._register: RequestRegister | None = None
        self._quiet = False
        self._out = folder / "out"
        self._journal = folder / "journal"
        self._complaints = folder / "complaints"
        self.loop.set_exception_handler(self._complain)
        self._start = EPOCH + BETWEEN_LIVES * number
        self.before_work: Callable[[Run], object] = lambda _: None
        self._kill_at = kill_at

    def act(self, what: str) -> None:
        self.acts += 1
        if what.startswith("sends "):
            self.calls.append(what.removeprefix("sends "))
        if self.acts == self._kill_at:
            os._exit(DIED)

    def _step(self) -> None:
        self.awaits += 1
        if self._kill_at is not None and self.awaits == -self._kill_at:
            os._exit(DIED)

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What an event loop can only print: nobody waits for it."""
        loop.default_exception_handler(context)
        with self._complaints.open("a") as file:
            file.write(f"{context['message']}: {context.get('exception')!r}\n")

    def now(self) -> float:
        slept = self._scenario.lid_shut_at
        return self._start + self.loop.time() + (LID if slept is not None and self.loop.time() >= slept else 0.0)

    def wall(self) -> float:
        """What this machine's clock says; `now` is the time."""
        return self.now()

    def live(self) -> int:
        """Run to the end; give the exit code."""
        sys.addaudithook(self._hear)
        return self.loop.run_until_complete(asyncio.wait_for(self._run(), 40_000))

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        """Every change of the file system is an act too."""
        if self._quiet:
            return
        writes = event == "open" and isinstance(args[1], str) and args[1][:1] in {"w", "x", "a"}
        if writes or event in {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}:
            self.act(event)

    async def _run(self) -> int:
        async def database(file: Path) -> MortalDatabase:
            opened = MortalDatabase(file)
            opened.act = self.act
            return opened

        @asynccontextmanager
        async def sandbox(_: Path, vendor: str) -> AsyncIterator[Endpoint]:
            yield Endpoint("memory:", Secret(SANDBOX), SANDBOX, vendor)

        dependencies = Dependencies(
            database=database,
            wire=lambda _: self._connect(),
            sandbox=sandbox,
            state=lambda: self._out.parent / "state",
            detects_suspends=self._scenario.lid_shut_at is not None,
            asked_every=600.0,
            clock=Clock(self.wall),
            chance=chance(self._scenario.seed + 7919 * self._number),
        )
        self.world = self._world()
        if self._scenario.mishaps_end is not None:
            self.loop.call_later(self._scenario.mishaps_end, self.world.faults.clear)
        limits = Limits(concurrency=self._scenario.concurrency, max_cost_usd=self._scenario.max_cost)
        policy = Policy(limits, Retry(**{"max_uncertain": 10_000, "max_failures": 10_000, **self._scenario.retry}))
        async with open_directory(
            self._out, wanted=Destination(SANDBOX, self._scenario.protocol), make=True, dependencies=dependencies
        ) as directory:
            jobs = templated(self._scenario, self._out.parent) if self._scenario.templates else specs(self._scenario)
            run = Run(directory, policy)
            await directory.import_jobs(((spec, True) for spec in jobs), {}, Choice(), sure=True)
            await directory.note({"name": "night", "policy": policy.to_json()})
            self.before_work(run)
            self._register = directory.ledger.register
            if self._scenario.strangers:
                self._strange = [dict(spec.inputs) for spec in jobs]
                self.loop.call_later(self._scenario.strangers, self._submit_strangely)
            return (await run.work()).exit_code

    def _connect(self) -> MemoryWire:
        scenario = self._scenario
        self._wire = MemoryWire(
            self.world, self._journal, self.now, self.act, scenario.seed, scenario.travel, protocol=scenario.protocol
        )
        return self._wire

    def _submit_strangely(self) -> None:
        """Let another run of this machine, on the same account, submit what this one does."""
        if (left := self._strangers_to_come - 1) > 0:
            self._strangers_to_come = left
            self.loop.call_later(self._scenario.strangers, self._submit_strangely)
        model = MODEL_OF[self._scenario.protocol]
        inputs = {"seed": 4_000_000 + self.world.calls, **self._strange[self.world.calls % len(self._strange)]}
        came = self.world.submit(model, inputs, SANDBOX, self.now())
        if isinstance(came, Submission) and came.request and self._wire:
            self._quiet = True  # what others do is no act of this process
            with self._journal.with_name("strangers").open("a") as file:
                file.write(f"{came.request.id}\n")
            self._wire.keep()
            if self._scenario.own_seed:  # of this machine: without a seed of its own nothing else tells them apart
                assert self._register
                register = RequestRegister(self._register.folder, "another")
                register.note([came.request.id])
                register.close()
                os.utime(self._register.folder / "another.accepted", (self.now(), self.now()))
            self._quiet = False

    def _world(self) -> World:
        scenario = self._scenario
        conditions = Conditions(
            seed=scenario.seed,
            slots=scenario.slots,
            latency=scenario.latency,
            sigma=scenario.sigma,
            latencies=scenario.latencies,
            faults=scenario.mishaps,
            outages=tuple((self._start + begins, self._start + ends) for begins, ends in scenario.outages),
            max_outstanding=scenario.max_outstanding,
            submissions_per_second=scenario.rate,
            list_lag=scenario.list_lag,
        )
        world = World(conditions, MODELS)
        world.replay(entries(self._journal))
        return world


def entries(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def warm_up() -> None:
    """Live a life here that meets every fault, so that those who are forked need not import and compute it all anew."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        life = Life(Scenario(jobs=30, mishaps=dict.fromkeys(FAULTS, 0.05)), Path(folder), 0, None)
        life.loop.run_until_complete(life._run())
        life.loop.close()
    gc.collect()
    gc.freeze()


def fork_life(scenario: Scenario, folder: Path, number: int, kill_at: int | None) -> tuple[int, list[int]]:
    """Live a life in a process of its own; give its exit code and how many acts and suspension points it had."""
    counted = folder / "acts"
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            life = Life(scenario, folder, number, kill_at)
            if scenario.signals and number < len(scenario.signals) and scenario.signals[number]:
                life.before_work = lambda run: life.loop.call_later(scenario.signals[number], run.stop, 15)
            code = life.live()
            counted.write_text(f"{life.acts} {life.awaits}")
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code, [*map(int, counted.read_text().split())] if code != DIED and counted.exists() else [0, 0]


AMBIGUOUS = {
    "reset",
    "lose",
    "cut_early",
    "redirect",
    "html",
    "portal",
    "not_http",
    "same_id",
    "buried_id",
} | MAYBE_ACCEPTED
"""Faults of a submission after which nobody can tell whether it was accepted."""
FAILS = {
    "fail": "failed",
    "refuse": "refused",
    "stuck": "timeout",
    "gone": "gone",
    "no_output": "no_output",
    "file_gone": "expired",
    "file_wrong": "bad_output",
    "file_bomb": "bad_output",
    "file_short": "bad_output",
    "code_in_200": "invalid",
    "file_500": "unfetched",
    "file_loop": "unfetched",
    "file_scheme": "unfetched",
}
"""Faults that let a job fail, and of what kind."""


def findings(scenario: Scenario, folder: Path, *, killed: bool, code: int) -> list[str]:
    """Compare what the server accepted with what the ledger and the disk say."""
    accepted: dict[str, list[str]] = {}
    strangers = strangers_of(folder)
    for entry in entries(folder / "journal"):
        if "inputs" in entry and entry["id"] not in strangers:
            accepted.setdefault(entry["inputs"]["prompt"], []).append(entry["id"])
    struck = set(_strikes(folder))
    complaints = folder / "complaints"
    found = complaints.read_text().splitlines() if complaints.exists() else []
    with Reader(folder / "out") as reader:
        jobs = list(reader.jobs())
        if len(jobs) != scenario.jobs:
            found.append(f"{len(jobs)} jobs in the ledger, {scenario.jobs} in the manifest")
        for job, _ in jobs:
            attempts = reader._connection.execute(
                "SELECT request_id, outcome FROM attempts WHERE job_id = ?", [job.id]
            ).fetchall()
            ids = accepted.get(str(job.spec.inputs["prompt"]), [])
            adopted = strangers & {row["request_id"] for row in attempts} if "same_id" not in struck else set()
            found += [f"{job.id} adopted {one}, a request of another run" for one in sorted(adopted)]
            found += [f"{job.id} {one}" for one in _still_uncertain(job, ids, attempts, scenario, folder)]
            found += [f"{job.id} {one}" for one in _wrong_with(job, ids, attempts, struck, scenario, killed=killed)]
            if job.state is State.DONE:
                found.extend(_wrong_files(folder / "out", job, reader))
    left = [path.name for path in (folder / "out").iterdir() if path.name.startswith(".")]
    if left:
        found.append(f"left behind: {left}")
    if scenario.max_cost is not None:
        found.extend(_overspent(scenario, folder))
    if code not in ({0, 1} if scenario.max_cost is None else {0, 1, 75}):
        with Reader(folder / "out") as reader:
            found.append(f"the last life ended with {code}: {reader.stopped()}")
    return found


def _wrong_with(
    job: Any, ids: list[str], attempts: list[Any], struck: set[str], scenario: Scenario, *, killed: bool
) -> list[str]:
    """Say what promise one job's end breaks: lost, paid for twice, uncertain or failed for no reason, not settled."""
    found = []
    known = {row["request_id"] for row in attempts}
    unknown = [one for one in ids if one not in known]
    doubtful = sum(row["outcome"] == "uncertain" for row in attempts)
    if (
        len(unknown) > doubtful and "same_id" not in struck
    ):  # a server that gives ids of others: whose is whose, nobody can tell
        found.append(f"lost the request ids {unknown}")
    again = sum(row["outcome"] == "failed" for row in attempts) if int(scenario.retry.get("attempts", 1)) > 1 else 0
    if len(ids) > 1 + again:
        found.append(f"was paid for {len(ids)} times")
    if job.state is State.UNCERTAIN and not (killed or struck & AMBIGUOUS):
        found.append(f"is uncertain, and nothing was: {job.message}")
    if job.state is State.FAILED and job.kind not in {FAILS[one] for one in struck if one in FAILS}:
        found.append(f"failed for no reason: {job.kind} {job.message}")
    may_wait = scenario.max_cost is not None and job.state is State.PENDING
    if job.state not in {State.DONE, State.FAILED, State.UNCERTAIN} and not may_wait:
        found.append(f"is {job.state} at the end: {job.kind} {job.message}")
    return found


def strangers_of(folder: Path) -> set[str]:
    file = folder / "strangers"
    return set(file.read_text().split()) if file.exists() else set()


def _still_uncertain(job: Any, ids: list[str], attempts: list[Any], scenario: Scenario, folder: Path) -> list[str]:
    """Say that a job is uncertain whose request the vendor's list shows, with a seed that no other has."""
    told_apart = scenario.protocol != "runcomfy" and not scenario.own_seed and "same_id" not in scenario.mishaps
    if job.state is not State.UNCERTAIN or not told_apart or scenario.outages:  # the list may have been out of reach
        return []
    world = World(Conditions(seed=scenario.seed, slots=scenario.slots, faults=scenario.mishaps), MODELS)
    world.replay(entries(folder / "journal"))
    with Reader(folder / "out") as reader:  # at the end of its last life the list was read
        ended = reader._connection.execute("SELECT max(at) FROM events WHERE type = 'Ended'").fetchone()[0]
    shown = {one.id for one in world.past(MODEL_OF[scenario.protocol], 0.0, ended - scenario.list_lag - 1.0)}
    known = {row["request_id"] for row in attempts}
    listed = [one for one in ids if one not in known and one in shown]
    return [f"is uncertain, though its request {listed} is listed"] if listed else []


def _overspent(scenario: Scenario, folder: Path) -> list[str]:
    """Say by how much a cap was passed, by what the server bills: by more than one job that went alone."""
    conditions = Conditions(seed=scenario.seed, slots=scenario.slots, faults=scenario.mishaps)
    world = World(conditions, MODELS)
    strangers = strangers_of(folder)
    accepted = [entry for entry in entries(folder / "journal") if "inputs" in entry]
    world.replay(accepted)
    accepted = [entry for entry in accepted if entry["id"] not in strangers]
    bills = [job.price for entry in accepted if (job := world.request(entry["id"])) and not job.error]
    most = (scenario.max_cost or 0.0) + max(bills, default=0.0)
    return [f"${sum(bills):.2f} was billed under a cap of ${scenario.max_cost:.2f}"] if sum(bills) > most + 1e-6 else []


def _wrong_files(out: Path, job: Any, reader: Reader) -> list[str]:
    found = []
    for output in reader.outputs(job):
        file = out / str(output.file)
        if file.read_bytes() != picture(f"{job.request_id} {output.index}"):
            found.append(f"{output.file} is not what request {job.request_id} made")
        sidecar = json.loads(file.with_suffix(".json").read_text())
        if sidecar["request_id"] != job.request_id or sidecar["output"]["sha256"] != output.sha256:
            found.append(f"the sidecar of {output.file} is wrong")
    return found


def play(scenario: Scenario) -> dict[str, Any]:
    """Play one night with its kills, or one for every act that a night makes."""
    if not scenario.every_act and not scenario.every_await:
        return _one(scenario, scenario.kills)
    warm_up()
    total = _one(scenario, [])
    result = {**total, "nights": 1}
    acts, awaits = range(1, total["acts"] + 1, scenario.stride), range(-1, -total["awaits"] - 1, -scenario.stride)
    for kill in acts if scenario.every_act else awaits:
        one = _one(scenario, [kill])
        result["nights"] += 1
        result["deaths"] += one["deaths"]
        result["states"] = dict(Counter(result["states"]) + Counter(one["states"]))
        result["findings"] += [f"seed {scenario.seed}, killed at act {kill}: {text}" for text in one["findings"]]
    return result


def _one(scenario: Scenario, kills: list[int]) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="night-", dir=MEMORY))
    try:
        deaths, states = 0, Counter[str]()
        for number, kill in enumerate(kills):
            code, _ = fork_life(scenario, folder, number, kill)
            deaths += code == DIED
            if code == DIED and (folder / "out" / "ledger.sqlite").exists():
                states.update(_states(folder))
        code, (acts, awaits) = fork_life(scenario, folder, len(kills), None)
        return {
            "acts": acts,
            "awaits": awaits,
            "deaths": deaths,
            "states": dict(states),
            "findings": findings(scenario, folder, killed=deaths > 0, code=code),
            "trace": _trace(folder),
            "strikes": dict(_strikes(folder)),
        }
    finally:
        shutil.rmtree(folder)


def _states(folder: Path) -> Counter[str]:
    """Give the states that a death found jobs in."""
    try:
        with Reader(folder / "out") as reader:
            return Counter({row["state"]: 1 for row in reader.ask("states")})
    except Exception:
        return Counter()


def _strikes(folder: Path) -> Counter[str]:
    file = folder / "strikes"
    return Counter(file.read_text().split()) if file.exists() else Counter()


def _trace(folder: Path) -> str:
    with Reader(folder / "out") as reader:
        rows = reader._connection.execute("SELECT at, job_id, type, facts FROM events ORDER BY seq").fetchall()
    return hashlib.sha256(repr([tuple(row) for row in rows]).encode()).hexdigest()


def main() -> int:
    """Play what the command line says; under `strict` a finding is a failure."""
    said = json.loads(sys.argv[1])
    strict = said.pop("strict", False)
    found = play(Scenario(**said))
    print(json.dumps(found, default=asdict))
    return 1 if strict and found["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
