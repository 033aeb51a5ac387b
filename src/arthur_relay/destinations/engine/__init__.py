"""Arthur Engine: OpenTelemetry spans, one request of whole traces' parts at a time."""
