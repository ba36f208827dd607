"""Networks and losses of torch alone: they know no device, rank or precision."""
