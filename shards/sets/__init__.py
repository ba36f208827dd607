"""A packed set on disk: manifest, index, generations, domains, and its check."""
