"""What several GANs are made of."""
