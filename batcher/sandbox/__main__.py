"""`python -m batcher.sandbox`: the sandbox as a process of its own."""

import argparse
import asyncio
import contextlib
import errno
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

from batcher.sandbox.faces import FACES
from batcher.sandbox.faults import FAULTS, checked
from batcher.sandbox.server import balance, serve
from batcher.sandbox.world import Conditions

_SHORT: Final = ("fail", "busy", "lose", "reset", "stumble", "tear")
_OUTAGE: Final = "nothing listens for so many seconds; can be repeated"
_FAULT: Final = "a fault, and how often it strikes, from 0 to 1; can be repeated; the names are below"


def share(text: str) -> tuple[str, float]:
    """Read `NAME=SHARE`."""
    name, _, number = text.partition("=")
    try:
        return next(iter(checked({name: float(number or 1)}).items()))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def outage(text: str) -> tuple[float, float]:
    """Read `AFTER:SECONDS`."""
    after, _, length = text.partition(":")
    with contextlib.suppress(ValueError):
        begins, lasts = float(after), float(length)
        if begins >= 0 and lasts >= 0 and math.isfinite(begins + lasts):
            return begins, begins + lasts
    raise argparse.ArgumentTypeError("write AFTER:SECONDS, as in 10:60")


def within(low: float, high: float = math.inf, kind: Callable[[str], float] = float) -> Callable[[str], float]:
    """Make a reader of numbers from `low` to `high`."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            number = kind(text)
            if low <= number <= high and math.isfinite(number):
                return number
        bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
        raise argparse.ArgumentTypeError(f"{text} is not a {'whole ' if kind is int else ''}number {bounds}")

    return read


class _Parser(argparse.ArgumentParser):
    """Ends as every command of the client does when its arguments are wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(64, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the options of the sandbox."""
    made = _Parser(
        prog="batcher sandbox",
        description="Serve a stand-in for the remote API on loopback.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="faults:\n"
        + "\n".join(f"  {one.name:<14} of a {one.strikes:<11} {one.does}" for one in FAULTS.values())
        + '\n\nAt run time: POST a JSON object of names and shares to /faults, or {"seconds": 60} to /outage.',
    )
    made.add_argument(
        "--port", type=within(0, 65_535, int), default=0, help="0: any free port; the first line printed says which"
    )
    made.add_argument("--protocol", choices=[*FACES], default="runcomfy", help="whose API it speaks")
    made.add_argument("--dir", type=Path, default=Path("sandbox"), help="where its state is kept")
    made.add_argument("--slots", type=within(1, 1e6, int), default=8, help="jobs it works on at once")
    made.add_argument("--latency", type=within(0), default=2.0, help="median seconds a job takes")
    made.add_argument("--sigma", type=within(0), default=0.5, help="spread of the latency, which is log-normal")
    made.add_argument("--speed", type=within(1e-6), default=1.0, help="divides the latency")
    made.add_argument(
        "--max-outstanding",
        type=within(0, kind=int),
        default=0,
        help="most requests in the queue; more get 429; 0: no limit",
    )
    made.add_argument(
        "--balance",
        type=balance,
        default=balance("none"),
        help="USD in the account: submissions get 402 when it is spent",
    )
    made.add_argument("--token", default="", help="the only token taken; empty: any")
    made.add_argument("--seed", type=within(-math.inf, kind=int), default=0, help="random seed")
    made.add_argument(
        "--list-lag", type=within(0), default=0.0, help="seconds after which the list of past requests shows one"
    )
    made.add_argument(
        "--rate", type=within(0), default=0.0, help="most submissions a second; more get 429; 0: no limit"
    )
    made.add_argument("--outage", type=outage, action="append", default=[], metavar="AFTER:SECONDS", help=_OUTAGE)
    made.add_argument("--fault", type=share, action="append", default=[], metavar="NAME=SHARE", help=_FAULT)
    for name in _SHORT:
        made.add_argument(
            f"--{name}", type=within(0, 1), default=0.0, metavar="SHARE", help=f"0 to 1: {FAULTS[name].does}"
        )
    made.add_argument("--until-stdin-ends", action="store_true", help="stop when standard input closes")
    return made


@contextlib.contextmanager
def _port_taken(port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        sys.exit(f"batcher sandbox: port {port} is taken: choose another with --port, or none")


def main(argv: list[str] | None = None) -> None:
    """Serve as the arguments say."""
    said = parser().parse_args(argv)
    shares = {name: getattr(said, name) for name in _SHORT if getattr(said, name)} | dict(said.fault)
    conditions = Conditions(
        seed=said.seed,
        slots=said.slots,
        latency=said.latency / said.speed,
        sigma=said.sigma,
        max_outstanding=said.max_outstanding,
        balance=said.balance,
        token=said.token,
        faults=shares,
        submissions_per_second=said.rate,
        list_lag=said.list_lag,
    )
    with contextlib.suppress(KeyboardInterrupt), _port_taken(said.port):
        asyncio.run(
            serve(
                conditions,
                said.dir,
                said.port,
                said.outage,
                until_stdin_ends=said.until_stdin_ends,
                protocol=said.protocol,
            )
        )


if __name__ == "__main__":
    main()
