"""`plan`: what a recipe will need on GPUs that nobody has yet."""
