"""What the user of a cluster has to set right."""


class ClusterError(Exception):
    """One sentence: what does not fit, the values, and the remedy."""
