"""Options that stand once: a second one would be dropped without a word."""

from collections import Counter
from typing import Any

from typer.core import TyperCommand

from batcher.errors import WrongUse


class StrictCommand(TyperCommand):
    """A command that refuses an option which is repeated, unless it can be."""

    def make_parser(self, ctx: Any) -> Any:  # noqa: ANN401 - click's own, whose module depends on typer's version
        """Return a parser that looks at what it has read."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_once(args: list[str]) -> Any:  # noqa: ANN401 - the same
            read = parse(args)
            options = (one for one in read[2] if one.param_type_name == "option" and not one.multiple)
            for option, count in Counter(options).items():
                if count > 1:
                    raise WrongUse(f"{option.opts[-1]} stands {count} times: only one of them would count")
            return read

        parser.parse_args = parse_once  # type: ignore[method-assign]
        return parser
