"""The application: it registers the commands, and says how a run of it ends."""

import os
from typing import Annotated

import typer

import maskdpo
from maskdpo import console
from maskdpo.commands import COMMANDS
from maskdpo.commands.signature import register
from maskdpo.errors import Interrupted, UserError
from maskdpo.extras import install_command

app = typer.Typer(
    name="maskdpo",
    help="Make a language model more factual: sample answers, label every sentence, build preference pairs, and train "
    "with Mask-DPO, which leaves the wrong sentences of the better answer and the right ones of the worse answer out "
    "of the loss.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
)
for name, command in COMMANDS.items():
    register(app, name, command)


def _version(wanted: bool) -> None:
    if wanted:
        console.out.print(f"maskdpo {maskdpo.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def run() -> None:
    """Run a command; what the user can put right is one line on stderr and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except UserError as error:
        console.fail(str(error))
        raise SystemExit(error.exit_code if isinstance(error, Interrupted) else 2) from None
    except ModuleNotFoundError as error:
        advice = install_command(error)
        if advice is None:
            raise
        console.fail(str(advice))
        raise SystemExit(2) from None
    except BrokenPipeError:
        raise SystemExit(141) from None
    except OSError as error:  # a full disk, a folder without rights: nothing that a traceback would explain better
        console.fail(f"{error.filename or 'input/output'}: {error.strerror or error}")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        console.fail("interrupted; repeat the same command to go on")
        raise SystemExit(130) from None
