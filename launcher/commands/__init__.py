"""The command line: what there is to call, help, and how a command ends."""
