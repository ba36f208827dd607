"""Tars of other programs, read where they are by an index of ours."""
