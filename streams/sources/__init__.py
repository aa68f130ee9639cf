"""Where events come from: telemetry of MCP servers, taken where it arises."""
