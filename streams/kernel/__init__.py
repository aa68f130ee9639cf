"""The kernel: a pure fold of the log. It reads no clock, no network and no random source."""
