"""What several commands take."""

from typing import TYPE_CHECKING, Annotated

import typer

from workers.cli.exits import CommandFailed, Exit
from workers.cli.output import Format

if TYPE_CHECKING:
    from workers.settings import Settings

Output = Annotated[Format, typer.Option("--output", "-o", help="How data is printed to stdout.")]


def settings_or_fail() -> "Settings":
    """The configuration; what is wrong with it ends the command."""
    from workers.settings import ConfigurationError, load_settings  # noqa: PLC0415

    try:
        return load_settings()
    except ConfigurationError as error:
        raise CommandFailed(Exit.CONFIGURATION, str(error)) from error
