"""Runs as pages: self-contained HTML and SVG, with nothing loaded from anywhere and everything escaped."""
