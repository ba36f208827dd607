"""`doctor`: what can be known to fail before it does."""
