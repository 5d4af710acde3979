"""The terminal explorer: screens and widgets over the store's own queries."""
