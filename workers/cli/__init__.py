"""The command line (contract 9)."""


def main() -> None:
    """The console script's entry."""
    from workers.cli.app import run_app  # noqa: PLC0415 - a worker that is embedded needs no command line

    run_app()
