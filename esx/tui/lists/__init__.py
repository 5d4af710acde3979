"""Long lists: where their rows come from, and the widgets that show them."""
