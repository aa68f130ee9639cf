"""Faults injected into real processes, and a verdict by an oracle that shares no code with the kernel: `make faults`."""
