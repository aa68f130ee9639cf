"""An MCP server over streamable HTTP with bearer authorisation: `python -m streams.demo.servers.vault PORT TOKEN`."""

from __future__ import annotations

import os
import secrets
import sys
from typing import Any

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl

from streams.sources.asgi import RefusalMiddleware
from streams.sources.instrument import leave_on_sigterm
from streams.sources.middleware import Telemetry
from streams.sources.outlet import Outlet, source_settings

HOST = "127.0.0.1"
HEARTBEAT = 2.0


class OneToken:
    """Knows a single token."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def verify_token(self, token: str) -> AccessToken | None:
        """What the token allows; None if it is another."""
        if not secrets.compare_digest(token, self._token):
            return None
        return AccessToken(token=token, client_id="demo", scopes=["secrets"])


def make_app(server: MCPServer[Any], outlet: Outlet) -> RefusalMiddleware:
    """The server's application, its refusals watched from outside the authentication layer."""
    return RefusalMiddleware(server.streamable_http_app(), outlet, secret=os.urandom(32))


def main() -> None:
    """Serve on the loopback until told to end."""
    port, token = int(sys.argv[1]), sys.argv[2]
    outlet = Outlet(source_settings(os.environ), service="vault")
    telemetry = Telemetry(outlet, heartbeat=HEARTBEAT)
    url = AnyHttpUrl(f"http://{HOST}:{port}/mcp")
    server: MCPServer[Any] = MCPServer(
        "vault",
        token_verifier=OneToken(token),
        auth=AuthSettings(issuer_url=url, resource_server_url=url, required_scopes=["secrets"], validate_token_resource=False),
        middleware=[telemetry.middleware],
    )

    @server.tool()
    def get_secret(name: str) -> str:
        """A secret, starred out."""
        return "*" * len(name)

    leave_on_sigterm()  # uvicorn raises the signal again once it has ended
    try:
        uvicorn.run(make_app(server, outlet), host=HOST, port=port, log_level="warning")
    finally:
        telemetry.close()
        outlet.close()


if __name__ == "__main__":
    main()
