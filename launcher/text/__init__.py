"""Tables, progress bars and names, as people read them."""
