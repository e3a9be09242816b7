"""The command tree: which command is in which file."""

import os
from importlib import import_module
from typing import Annotated

import typer

GROUPS = ("run", "up", "jobs", "tasks", "models", "services", "db", "doctor")
"""Files of this folder, in the order of `textmill --help`; each adds its commands in `add_to(app)`."""

EPILOG = "Settings: TEXTMILL_* variables or textmill.toml; `textmill doctor` shows those in force."


def build() -> typer.Typer:
    """The whole command, ready to be called."""
    # Plain help: rich's would double the time `textmill --help` takes.
    app = typer.Typer(
        name="textmill",
        help="Bulk NLP jobs on your own machines. Begin with: textmill run classify texts.txt --model fake",
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_everywhere)
    for group in GROUPS:
        import_module(f"jobs.cli.{group}").add_to(app)
    return app


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"textmill {version('textmill')}")
        raise typer.Exit


def _everywhere(
    home: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Where the embedded database, broker and logs live [~/.textmill]."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    if home is not None:
        os.environ["TEXTMILL_HOME"] = home
