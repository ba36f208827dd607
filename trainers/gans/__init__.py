"""One paper, one file: networks, losses and phases of a GAN. Its name in a recipe is the file's."""
