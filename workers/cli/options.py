"""What several commands take."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from workers.cli.exits import CommandFailed, Exit
from workers.cli.output import Format

if TYPE_CHECKING:
    from handlers.context import Policy
    from workers.settings import Settings, TopologySettings

T = TypeVar("T")

Output = Annotated[Format, typer.Option("--output", "-o", help="How data is printed to stdout.")]


def settings_or_fail() -> "Settings":
    """The configuration; what is wrong with it ends the command."""
    from workers.settings import load_settings  # noqa: PLC0415

    return _loaded(load_settings)


def topology_settings_or_fail() -> "TopologySettings":
    """What names exchanges and queues; all else may be missing: whoever looks at them need not have
    configured it.
    """
    from workers.settings import load_topology_settings  # noqa: PLC0415

    return _loaded(load_topology_settings)


def policy_or_fail(settings: "Settings") -> "Policy":
    """What the operator decided about the business; that the region is not known ends the command."""
    from workers.bootstrap import policy_of  # noqa: PLC0415 - looks into clouds.yaml

    return _loaded(lambda: policy_of(settings))


def _loaded(load: Callable[[], T]) -> T:
    from workers.settings import ConfigurationError  # noqa: PLC0415

    try:
        return load()
    except ConfigurationError as error:
        raise CommandFailed(Exit.CONFIGURATION, str(error)) from error
