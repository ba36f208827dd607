"""Networks that make images, or features of them."""
