"""OTLP over HTTP: parses requests, stores their records, and builds OTLP responses."""
