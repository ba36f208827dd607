"""From a folder or list of images to a packed set, whole or not at all."""
