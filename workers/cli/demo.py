"""The command `demo`."""

from sandbox.processes import SandboxError
from sandbox.requester import Requester
from workers.cli.exits import CommandFailed, Exit
from workers.demo.scenes import Play
from workers.demo.screen import Screen
from workers.demo.stage import staged


def run_demo(openstack: str) -> int:
    """Run it; the exit code tells whether all that was promised was seen."""
    screen = Screen()
    try:
        with (
            staged(openstack, screen) as stage,
            Requester(stage.broker.url, on_heard=screen.heard) as requester,
        ):
            play = Play(stage, requester, screen)
            play.perform()
            screen.verdict(play.checks)
    except SandboxError as error:
        raise CommandFailed(Exit.UNREACHABLE, str(error)) from error
    except TimeoutError as error:
        raise CommandFailed(
            Exit.CHECK_FAILED, f"the demo did not see what it should: {error}"
        ) from error
    return Exit.OK if all(held for _, held in play.checks) else Exit.CHECK_FAILED
