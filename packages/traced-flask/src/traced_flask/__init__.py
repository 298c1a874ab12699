"""OpenTelemetry for Flask, with the parts that production needs."""
