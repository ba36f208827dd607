"""`python -m cluster.watch`, as job scripts call it."""

import sys

from cluster import standard_streams
from cluster.watch.watch import main

standard_streams.prepare()
sys.exit(main(sys.argv[1:]))
