"""The commands, one file each; `command` is what streams.cli calls."""
