"""`python -m otlp_viewer` is `otlp-viewer`."""

from otlp_viewer.cli import command

command()
