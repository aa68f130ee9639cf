"""The demo's own MCP servers, on the official SDK."""
