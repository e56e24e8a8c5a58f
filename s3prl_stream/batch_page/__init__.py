"""A page that plays one batch: each clip as it was read and as each stage left it, in one HTML file."""
