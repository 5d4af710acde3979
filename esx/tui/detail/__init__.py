"""What an event in full is put together from: foldable JSON, search in it, differences, and states."""
