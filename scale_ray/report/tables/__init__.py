"""From tidy frames to grids of averages, and grids as Markdown, CSV, LaTeX, HTML and terminal tables."""
