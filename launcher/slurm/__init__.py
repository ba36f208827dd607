"""`submit` and `join`: a run as a job, and its start on each node."""
