"""Reports as HTML pages and SVG: they need no other files, and all values are escaped."""
