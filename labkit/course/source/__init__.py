"""A lab's source: one Markdown file, read into cells."""
