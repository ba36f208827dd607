"""The command `organza`: it alone knows all other floors, and puts them together."""

__version__ = "0.1.0"
