"""`python -m batcher.sandbox`: the sandbox as a process of its own."""

import argparse
import asyncio
import contextlib
from pathlib import Path

from batcher.sandbox.server import balance, serve
from batcher.sandbox.world import Conditions, Mishaps


def parser() -> argparse.ArgumentParser:
    """Give the options of the sandbox."""
    made = argparse.ArgumentParser(
        prog="batcher sandbox", description="Serve a stand-in for the remote API on loopback."
    )
    made.add_argument("--port", type=int, default=0, help="0: any free port; the first line printed says which")
    made.add_argument("--dir", type=Path, default=Path("sandbox"), help="where its state is kept")
    made.add_argument("--slots", type=int, default=8, help="jobs it works on at once")
    made.add_argument("--latency", type=float, default=2.0, help="median seconds a job takes")
    made.add_argument("--sigma", type=float, default=0.5, help="spread of that: log-normal")
    made.add_argument("--speed", type=float, default=1.0, help="divides the latency")
    made.add_argument("--max-outstanding", type=int, default=0, help="above this many: 429; 0: no limit")
    made.add_argument("--balance", type=balance, default=balance("none"), help="USD until 402")
    made.add_argument("--token", default="", help="the only token taken; empty: any")
    made.add_argument("--seed", type=int, default=0, help="of everything drawn by chance")
    for mishap, meaning in (
        ("fail", "generations fail"),
        ("busy", "submissions are answered 429"),
        ("lose", "submissions are accepted, and the answer is lost"),
        ("reset", "submissions break off, not accepted"),
        ("stumble", "polls are answered 502"),
        ("tear", "downloads break off"),
    ):
        made.add_argument(f"--{mishap}", type=float, default=0.0, metavar="SHARE", help=f"0 to 1: {meaning}")
    made.add_argument("--until-stdin-ends", action="store_true", help="stop when standard input closes")
    return made


def main(argv: list[str] | None = None) -> None:
    """Serve as the arguments say."""
    said = parser().parse_args(argv)
    mishaps = Mishaps(said.fail, said.busy, said.lose, said.reset, said.stumble, said.tear)
    conditions = Conditions(
        seed=said.seed,
        slots=said.slots,
        latency=said.latency / said.speed,
        sigma=said.sigma,
        max_outstanding=said.max_outstanding,
        balance=said.balance,
        token=said.token,
        mishaps=mishaps,
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(conditions, said.dir, said.port, until_stdin_ends=said.until_stdin_ends))


if __name__ == "__main__":
    main()
