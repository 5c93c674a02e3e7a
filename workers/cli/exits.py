"""Exit codes, and what ends a command with one of them."""

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from handlers.context import Policy
    from workers.settings import GatewaySettings, PublisherSettings, Settings, TopologySettings

T = TypeVar("T")


class Exit(IntEnum):
    """The exit codes of contract 9."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    CONFIGURATION = 3
    UNREACHABLE = 4
    CHECK_FAILED = 5
    PARTLY = 6
    REFUSED = 7


class CommandFailed(Exception):
    """Ends a command; the text is one line that says what is wrong and what to do."""

    def __init__(self, code: Exit, text: str) -> None:
        self.code = code
        super().__init__(text)


def settings_or_fail() -> "Settings":
    """Return the configuration. Raises `CommandFailed` where it is wrong."""
    from workers.settings import load_settings  # noqa: PLC0415 - each command imports what it needs

    return _loaded(load_settings)


def gateway_settings_or_fail() -> "GatewaySettings":
    """Return the gateway's configuration. Raises `CommandFailed` where it is wrong."""
    from workers.settings import load_gateway_settings  # noqa: PLC0415

    return _loaded(load_gateway_settings)


def publisher_settings_or_fail() -> "PublisherSettings":
    """Return the settings of the broker; the rest need not be configured to publish."""
    from workers.settings import load_publisher_settings  # noqa: PLC0415

    return _loaded(load_publisher_settings)


def topology_settings_or_fail() -> "TopologySettings":
    """Return the settings that name exchanges and queues; the rest need not be configured to look
    at them.
    """
    from workers.settings import load_topology_settings  # noqa: PLC0415

    return _loaded(load_topology_settings)


def policy_or_fail(settings: "Settings") -> "Policy":
    """Return the policy of orders. Raises `CommandFailed` where the region is unknown."""
    from workers.bootstrap import policy_of  # noqa: PLC0415 - reads clouds.yaml

    return _loaded(lambda: policy_of(settings))


def need_sandbox() -> None:
    """Raise `CommandFailed` where the demo and the servers that it starts are not installed."""
    from importlib.util import find_spec  # noqa: PLC0415

    if find_spec("sandbox") is None or find_spec("workers.demo") is None:
        raise CommandFailed(
            Exit.CONFIGURATION,
            "the demo and the simulated OpenStack are not installed: they have a wheel of their own, "
            "ecs_worker_sandbox (`make dist` in a clone), for `pip install`",
        )


def _loaded(load: Callable[[], T]) -> T:
    from workers.settings import ConfigurationError  # noqa: PLC0415

    try:
        return load()
    except ConfigurationError as error:
        raise CommandFailed(Exit.CONFIGURATION, str(error)) from error
