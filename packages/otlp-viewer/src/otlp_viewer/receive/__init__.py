"""OTLP over HTTP: bytes in, protobuf messages to the store, OTLP's answers out."""
