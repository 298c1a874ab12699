"""The project's own trace viewer, for development: `python -m viewer`."""
