"""The loop, and what runs networks: compilation, transfer, tracing, translation."""
