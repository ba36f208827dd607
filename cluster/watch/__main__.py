"""`python -m cluster.watch`, as job scripts call it."""

import sys

from cluster.watch.watch import main

sys.exit(main(sys.argv[1:]))
