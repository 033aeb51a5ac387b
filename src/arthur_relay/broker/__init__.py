"""The broker: rows wait in NATS JetStream, between the gateways and the workers of a fleet.

`packets` says how rows travel, `topology` which streams and consumers there are, `provision` makes
them. `nats/` is the one place that knows the client library. A gateway has a `publisher`, a worker
an `inbox` with the `puller` that fills it.
"""
