"""Starts the command."""

import signal


def main() -> None:
    """Runs the command. A Ctrl-C while it is still being imported ends it at once, without a traceback."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # ignored, as behind `&` of a script, it stays so
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from batchrun.cli import main as command

    signal.signal(signal.SIGINT, before)
    command()


if __name__ == "__main__":
    main()
