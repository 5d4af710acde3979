"""The explorer in a browser, and who may use esx's web servers."""
