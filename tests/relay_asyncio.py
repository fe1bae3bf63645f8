"""The smallest relay on asyncio.Protocol: the limit of Python, which tests/bench.py holds the hub against.

    python3 tests/relay_asyncio.py --port 9000

It passes messages on and does nothing else, as tests/relay.py, but without a framework: a request is read by a few
`find`s and trusted to be one of the load generator's, a parked poll is a reference to its transport, and JSON is
written from a template. A poll without mail stays parked until there is some.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from json.encoder import encode_basestring_ascii as quote

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
MESSAGE = (
    '{"id":"%012x","sender":%s,"recipient":%s,"content":%s,"kind":"message","ts":%.6f,"seq":%d,"origin":"agent"}'
)


def reply(body: bytes) -> bytes:
    """Word a whole response."""
    return HEAD % (len(body), body)


def batch(messages: list[bytes]) -> bytes:
    """Word the response to a poll."""
    return reply(b'{"messages":[%b],"mode":"running"}' % b",".join(messages))


class Peer:
    """A registered name."""

    __slots__ = ("mail", "name", "parked")

    def __init__(self, name: str) -> None:
        self.name = name
        self.mail: list[bytes] = []  # not yet fetched
        self.parked: asyncio.Transport | None = None  # the connection of the waiting /receive

    def put(self, message: bytes, response: bytes) -> None:
        """Answer the parked poll with `response`, or keep `message` for the next."""
        transport, self.parked = self.parked, None
        if transport is None or transport.is_closing():
            self.mail.append(message)
        else:
            transport.write(response)


class Relay:
    """What all connections share, and the three routes."""

    def __init__(self) -> None:
        self.peers: dict[str, Peer] = {}
        self.tokens: dict[str, Peer] = {}
        self.seqs = itertools.count(1)

    def register(self, body: str) -> bytes:
        """Give a token for a name; a name that comes again replaces the peer."""
        name = json.loads(body)["project"]
        token = f"token-of-{name}"
        self.peers[name] = self.tokens[token] = Peer(name)
        return reply(b'{"token":%b,"project":%b}' % (quote(token).encode(), quote(name).encode()))

    def send(self, body: str) -> bytes:
        """Pass a message on to one peer, or to all but its sender."""
        said = json.loads(body)
        sender, to, seq = self.tokens[said["token"]], said["to"], next(self.seqs)
        words = (seq, quote(sender.name), quote(to), quote(said["content"]), time.time(), seq)
        message = (MESSAGE % words).encode()
        response = batch([message])
        targets = [peer for peer in self.peers.values() if peer is not sender] if to == "all" else [self.peers[to]]
        for peer in targets:
            peer.put(message, response)
        names = ",".join([quote(peer.name) for peer in targets])
        return reply(b'{"message_id":"%012x","delivered_to":[%b]}' % (seq, names.encode()))

    def receive(self, token: str, transport: asyncio.Transport) -> None:
        """Answer with the mail, or park the poll."""
        peer = self.tokens[token]
        if peer.mail:
            transport.write(batch(peer.mail))
            peer.mail = []
        else:
            peer.parked = transport


class Connection(asyncio.Protocol):
    """One keep-alive connection of the load generator, whose spelling of the headers is the only one understood."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        if self._data:
            data = self._data + data
        while (head_end := data.find(b"\r\n\r\n")) >= 0:
            if data.startswith(b"GET /receive?"):
                end = head_end + 4
                token_from = data.find(b"\r\nAuthorization: Bearer ") + 24
                token = data[token_from : data.find(b"\r\n", token_from)].decode()
                self._relay.receive(token, self._transport)
            else:
                length_from = data.find(b"\r\nContent-Length: ") + 18
                end = head_end + 4 + int(data[length_from : data.find(b"\r\n", length_from)])
                if end > len(data):
                    break
                route = self._relay.send if data.startswith(b"POST /send ") else self._relay.register
                self._transport.write(route(data[head_end + 4 : end].decode()))
            data = data[end:]
        self._data = data


async def serve(port: int) -> None:
    """Serve until the process is killed."""
    relay = Relay()
    await asyncio.get_running_loop().create_server(lambda: Connection(relay), "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="The smallest asyncio relay; see tests/bench.py.")
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
