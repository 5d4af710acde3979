"""The commands of capsules."""
