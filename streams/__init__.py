"""The stream: event contracts, topics, settings, the join, its state in Redis, the monitor, metrics."""
