"""A small server that takes pushes, and answers them as it is told: slowly, with a failure, never."""

from __future__ import annotations

import json
import re
import socket
import threading
from queue import Queue
from typing import Any

from hubs import eventually


class Taken:
    """One request that the server got."""

    def __init__(self, head: str, body: bytes) -> None:
        self.line, *lines = head.split("\r\n")
        self.headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in lines)}
        self.body = body

    @property
    def json(self) -> Any:
        """Decode the body."""
        return json.loads(self.body)


class Post:
    """Takes pushes, and answers each as the next of its orders says; without one, with 200."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.taken: list[Taken] = []
        self.gone: Queue[bool] = Queue()  # of connections that were held: the other side has closed
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take nothing any more."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65_536)
            head, _, body = data.partition(b"\r\n\r\n")
            size = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
            while len(body) < size:
                body += connection.recv(65_536)
            order = self.orders.pop(0) if self.orders else "200 OK"
            self.taken.append(Taken(head.decode(), body))
            if order == "never":
                self.gone.put(connection.recv(1) == b"")
            elif order == "drip":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx")
                self.gone.put(connection.recv(1) == b"")
            elif order == "nonsense":
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            elif order != "close":
                connection.sendall(f"HTTP/1.1 {order}\r\nContent-Length: 0\r\n\r\n".encode())

    def next(self, count: int = 1) -> Taken:
        """Give the last of so many requests, when they are there."""
        eventually(lambda: len(self.taken) >= count, f"{count} pushes, not {len(self.taken)}")
        return self.taken[count - 1]
