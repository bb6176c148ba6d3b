"""uvicorn's server, which answers the connections that wait in the kernel when it receives the order to stop."""

import asyncio
from contextlib import suppress
from socket import socket

import uvicorn


class Server(uvicorn.Server):
    """Closing a listener resets the connections that the process has not accepted yet."""

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Accepts them, of each listener as many as may wait there, and then drains all connections."""
        for listener in sockets or []:
            for _ in range(self.config.backlog):
                if not await self._accept(listener):
                    break
        for server in self.servers:
            server.close()
        # Connections that the loop has accepted meanwhile are made in its next round: the drain must know them.
        await asyncio.sleep(0)
        await super().shutdown(sockets)

    async def _accept(self, listener: socket) -> bool:
        """False where no connection waits, or none can be accepted."""
        try:
            connection, _ = listener.accept()
        except OSError:
            return False
        connection.settimeout(0)
        # The client may be gone by now.
        with suppress(OSError):
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        return True

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn calls it
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol
