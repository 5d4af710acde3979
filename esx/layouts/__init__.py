"""What a store's tables look like: finding them, making the own ones, and whether their owner is trusted."""
