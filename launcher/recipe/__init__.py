"""What an option means: the typed configuration, its messages, what is built from it."""
