"""What the screens are put together from: a list or a detail with its frame, its keys, and its reading."""
