"""cluster.watch with the patience of a test: seconds instead of minutes."""

from __future__ import annotations

import os
import sys

from cluster.watch import heartbeat, listener, notices, watch

heartbeat.INTERVAL = 0.2
listener.LEAST_SILENCE = 1.0
notices.LAST, notices.LAST_SHARE, notices.EARLY = 52.0, 0.9, 1.0
watch.TICK = 0.1
watch.LINGER = 1.0
watch.PATIENT_END = 10.0 if "SLURM_JOB_ID" in os.environ else 1.0
watch.STAY = 60.0
watch.ORPHANS = 3.0

if __name__ == "__main__":
    sys.exit(watch.main(sys.argv[1:]))
