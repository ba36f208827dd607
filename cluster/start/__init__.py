"""How ranks find each other: their places, launchers' variables, and what is checked before."""
