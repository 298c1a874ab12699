"""An OTLP receiver and viewer for development, for any language's SDK."""
