"""One paper, one file: networks, losses and phases of a GAN."""
