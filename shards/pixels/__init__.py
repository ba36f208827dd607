"""Images: decoding, what is refused, augmentation, and how they are stored."""
