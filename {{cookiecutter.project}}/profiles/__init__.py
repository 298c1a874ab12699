"""The profiles service: small, and a network away, so that a trace crosses one."""
