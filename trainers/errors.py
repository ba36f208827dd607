"""What a training run tells its user instead of a traceback."""


class TrainingError(Exception):
    """One sentence: what happened, where, and what to do about it."""
