"""Replay: what the monitor says of a recorded stream, with the settings of then or with others. It changes nothing."""
