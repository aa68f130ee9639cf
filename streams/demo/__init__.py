"""The demo: real MCP servers and clients, faults injected one after another, and the alerts they bring about."""

from streams.demo.run import run_demo

__all__ = ["run_demo"]
