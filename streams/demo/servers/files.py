"""An MCP server over stdio whose tools can be told to misbehave, by a file: `python -m streams.demo.servers.files CONTROL`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError


def make_server(control: Path) -> MCPServer[Any]:
    """A server with two tools. `control` holds {"fail": bool, "delay": seconds} and is read at every call."""
    server = MCPServer("files")

    def told() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(control.read_text(encoding="utf-8"))
        return found

    @server.tool()
    def read_file(path: str) -> str:
        """The content of a file."""
        if told().get("fail"):
            raise ToolError("the disk does not answer")
        return f"content of {path}"

    @server.tool()
    async def search(query: str) -> str:
        """Where a text occurs."""
        await asyncio.sleep(told().get("delay", 0))
        return f"nothing found for {query}"

    return server


if __name__ == "__main__":
    make_server(Path(sys.argv[1])).run("stdio")
