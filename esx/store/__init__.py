"""What a store does, a folder each: append, read, search, follow, consume, and so on. `esx.EventStore` offers it."""
