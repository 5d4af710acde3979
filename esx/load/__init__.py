"""Load tests: what one is asked to do, running it, judging what it left in the store, and telling the result."""
