"""Runs where others plant links, or listen for secrets."""
