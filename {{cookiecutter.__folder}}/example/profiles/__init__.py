"""The profiles service, which makes a trace cross a network."""
