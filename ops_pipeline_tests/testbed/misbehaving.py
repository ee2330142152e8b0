"""A raw upstream that ends its answers in every way a server can: runs inside a container, standard library only.

`/health/ready` and any path not named in `ANSWERS`: 200. A number as path (`/404`): that status.
"""

import socket
import struct
import threading
import time

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = {
    # path: bytes to send, seconds to wait before the connection is closed (None: it stays open)
    "/dies-before-answering": (b"", 0.0),
    "/dies-in-the-headers": (b"HTTP/1.1 200 OK\r\nContent-Le", 0.0),
    "/answers-nonsense": (b"nonsense\r\n\r\n", 0.0),
    "/dies-in-the-body": (CUT, 0.1),
    "/dies-in-a-chunk": (CHUNKED + b"3\r\nabc\r\n", 0.1),
    "/ends-by-closing": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc", 0.1),
    "/stops-in-the-body": (CUT, 30.0),
    "/never-answers": (b"", 30.0),
    "/breaks-off-a-404": (b"HTTP/1.1 404 X\r\nContent-Length: 1000\r\n\r\nabc", 0.1),
    "/breaks-off-a-500": (b"HTTP/1.1 500 X\r\nContent-Length: 1000\r\n\r\nabc", 0.1),
}
UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello"
)


def answer(connection, path, length, body):
    """Answer one request; return whether the connection goes on."""
    if path == "/refuses-an-upload":
        connection.sendall(b"HTTP/1.1 413 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        time.sleep(0.1)
        return False
    if path == "/dies-in-an-upload":
        return False
    body.read(length)
    if path in ANSWERS:
        data, seconds = ANSWERS[path]
        connection.sendall(data)
        time.sleep(seconds)
        return False
    if path == "/resets":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    if path == "/takes-a-second":
        time.sleep(1.2)
    if path == "/large":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(50):
            connection.sendall(b"x" * 1_000_000)
        return True
    if path == "/events":
        connection.sendall(CHUNKED)
        for _ in range(4):
            connection.sendall(b"9\r\ndata: 1\n\n\r\n")
            time.sleep(0.05)
        connection.sendall(b"0\r\n\r\n")
        return True
    if path == "/websocket":
        connection.sendall(UPGRADED)
        connection.recv(1000)
        return False
    if path == "/websocket-closed-by-server":
        connection.sendall(UPGRADED)
        time.sleep(0.1)
        return False
    if path[1:].isdigit():
        connection.sendall(b"HTTP/1.1 %s X\r\n%s\r\n" % (path[1:].encode(), b"Content-Length: 0\r\n"))
        return True
    connection.sendall(OK)
    return True


def serve(connection):
    """Requests of one connection."""
    with connection, connection.makefile("rb") as body:
        while line := body.readline():
            path = line.decode().split(" ")[1]
            length = 0
            while (header := body.readline()) not in (b"\r\n", b""):
                name, _, value = header.decode().partition(":")
                if name.lower() == "content-length":
                    length = int(value)
            try:
                if not answer(connection, path, length, body):
                    return
            except OSError:
                return


if __name__ == "__main__":
    listener = socket.create_server(("", 8080))
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
