"""The command line: each command parses its options, calls the Python API and prints.

Not here: what a command does (``studies``, ``reporting``, ``paper``, ``points``, ``speed``).
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from bench.cli import output
from bench.cli.output import echo
from bench.errors import FAILED, Stopped, exit_code, one_line
from bench.execution import allocator, waiting

COMMANDS = {
    "run": "run:run",
    "train-robust": "train_robust:train_robust",
    "plan": "plan:plan",
    "search": "search:search",
    "points": "points:points",
    "attack-eval": "attack_eval:attack_eval",
    "judge": "judge:judge",
    "leaderboard": "leaderboard:leaderboard",
    "tables": "tables:tables",
    "occlusion": "occlusion:occlusion",
    "figures": "figures:figures",
    "report": "report:report",
    "speed": "speed:speed",
    "list": "listing:listing",
    "status": "status:status",
    "track": "status:track",
    "export": "status:export",
}
"""Module and function of each command, in workflow order."""

SOME_FAILED, INTERRUPTED = FAILED, 130
STORED = "finished results are stored; the same command continues"


class Commands(click.Group):
    """The group of all commands: imports each on demand, and prints each error as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands in workflow order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(f"bench.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that was typed; suggest one for an unknown name."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **named: Any) -> Any:
        """Run the command line; the exit code says whether the output could be written."""
        output.open_missing_streams()
        output.use_plain_warnings()
        try:
            return super().main(*args, **named)
        except SystemExit as ended:
            raise SystemExit(output.finish(ended.code)) from None
        except OSError as error:  # of a help text, which click prints itself
            raise SystemExit(output.failed(error)) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error that the user can fix is one line without a traceback."""
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except BrokenPipeError:
            output.drop_output()
            ctx.exit(output.CUT_OFF)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "bench"
            text = " ".join(error.format_message().split())  # choices are one a line
            echo(f"Error: {text} (see {command} --help)", err=True)
            ctx.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort, Stopped) as stopped:
            echo(f"{str(stopped) or 'interrupted'}; {STORED}", err=True)
            ctx.exit(INTERRUPTED)
        except (ValueError, OSError, LookupError, MemoryError, RuntimeError, SystemExit) as error:
            known = not isinstance(error, RuntimeError) or exit_code(error) == SOME_FAILED
            if os.environ.get("BENCH_TRACEBACK") or not known:
                raise
            echo(f"Error: {one_line(error)}", err=True)
            ctx.exit(exit_code(error))


def beside() -> None:
    """Check that the packages of methods are the ones that belong to this one.

    Python looks for packages in the current folder first when it runs a module, and in
    ``PYTHONPATH``.

    Raises:
        ValueError: Others are in the way.
    """
    home = Path(__file__).resolve().parents[2]
    for name in ("augmentations", "attacks"):
        spec = importlib.util.find_spec(name)
        place = Path(spec.origin) if spec is not None and spec.origin else None
        if place is not None and home not in place.resolve().parents:
            found = place.parent if place.name == "__init__.py" else place
            raise ValueError(
                f"{found} is in the way of bench's own package {name!r}: type bench instead of "
                "python -m bench, start it in another folder, or rename yours"
            )


def leave() -> NoReturn:
    """End the process as an interrupted command ends, without any further work."""
    echo(f"interrupted; {STORED}", err=True)
    os._exit(INTERRUPTED)


def print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the version and exit."""
    if wanted and not ctx.resilient_parsing:
        from bench.execution.machine import version

        echo(f"bench, version {version()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Show the version and exit.",
)
def main(ctx: click.Context) -> None:
    """Compare deletion-based image augmentations fairly, and the sparse attacks behind them.

    \b
    Example: bench run --aug none --aug cutout --model resnet8 --seeds 3
    Exit codes: 0 done, 2 bad usage, 3 some seeds or workers failed, 4 data missing, 130
    interrupted.
    Completion: eval "$(_BENCH_COMPLETE=bash_source bench)"
    """
    from bench.execution import signals

    ctx.with_resource(signals.interrupts(leave))
    # some dependencies send usage data unless told not to
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    waiting.choose(os.environ)
    allocator.keep(os.environ)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    beside()
