"""GANs that make pictures from pictures."""
