"""The engine, which trains any GAN, and the GANs."""
