"""The kernel, the checkpoint protocol, recovery and the notifier in a simulated world: a seed tells all that happens."""
