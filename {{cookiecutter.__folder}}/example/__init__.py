"""The example. README.md says how to remove it."""
