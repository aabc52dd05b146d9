"""The real command, in this process."""

from fields.apps import cli


def run(*arguments) -> int:
    """Its exit code."""
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
