"""Docker's HEALTHCHECK: exit 0 when this replica is ready. Needs nothing but the socket module."""

import os
import socket
import sys

port = int(os.environ.get("STOREFRONT_PORT") or 8000)
try:
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(b"GET /health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n")
        sys.exit(b" 200 " not in connection.recv(64))
except OSError:
    sys.exit(1)
