"""The outside world behind the ports. Each module owns one SDK or program; its exceptions never leave it."""
