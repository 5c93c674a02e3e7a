"""The command line (contract 9)."""


def main() -> None:
    """The console script's entry."""
    from workers.cli.app import run_app  # noqa: PLC0415 - an embedded worker needs none

    run_app()
