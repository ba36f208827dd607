"""GANs that make pictures from random numbers."""
