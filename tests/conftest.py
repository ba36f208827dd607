"""Every test starts like a command typed at a terminal."""

import signal

# Started in the background by a shell, pytest inherits an ignored SIGINT and so would the commands
# that it runs; tests that interrupt them need it back.
signal.signal(signal.SIGINT, signal.default_int_handler)
