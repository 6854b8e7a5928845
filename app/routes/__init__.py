"""The HTTP routes that are not in `app.application`."""
