"""viser's server as all viewers want it."""

from __future__ import annotations

import logging
import socket
from contextlib import redirect_stdout
from io import StringIO

import viser

from fields.errors import ConfigError


class Server(viser.ViserServer):
    """Says nothing by itself, and listens where it is told to; if the port is taken, at the next that is free.

    Raises:
        ConfigError: no address to listen on.
    """

    def __init__(self, name: str, host: str, port: int) -> None:
        _require_address(host, port)
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)  # strangers' messages are no news
        with redirect_stdout(StringIO()):  # viser's own notice of its address
            super().__init__(host=host, port=port, label=f"fields: {name}", verbose=False)
        self.gui.configure_theme(
            control_layout="collapsible", control_width="medium", show_logo=False, show_share_button=False
        )

    @property
    def url(self) -> str:
        host = self.get_host()
        return f"http://{host if host not in ('0.0.0.0', '::') else 'localhost'}:{self.get_port()}"

    def stop(self) -> None:
        with redirect_stdout(StringIO()):
            super().stop()


def _require_address(host: str, port: int) -> None:
    """Raises ConfigError for what viser would wait on for ever."""
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port is {port}; it can be 1 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        raise ConfigError(f"--host {host}: cannot listen there ({error.strerror}). Use 127.0.0.1 or 0.0.0.0.") from None
