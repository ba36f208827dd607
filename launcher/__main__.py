"""`python -m launcher COMMAND` and `organza COMMAND`, also as the entry of accelerate, torchrun and
deepspeed."""

import sys

from cluster import signals, standard_streams

WORKERS = {"train", "join"}
"""Commands that save before they leave when they are told to."""


def main() -> None:
    # Before anything else is imported: that takes seconds, in which a warning may come. Launchers
    # put an option of theirs in front of the command.
    signals.hold()
    standard_streams.prepare()
    from launcher.commands import cli

    if not WORKERS & set(sys.argv[1:3]):
        signals.release()
    cli.main()


if __name__ == "__main__":
    main()
