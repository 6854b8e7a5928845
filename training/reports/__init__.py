"""Reports as pages: Markdown and pictures in one HTML file."""
