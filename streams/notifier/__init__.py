"""The notifier: decides which transitions are dispatched to `mcp.alerts`, and carries those to channels."""
