"""How runs are doing: `status`, `runs`, `logs`, `cancel`, `stop`."""
