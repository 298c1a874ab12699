"""The profiles service: a second service, so that traces cross a network."""
