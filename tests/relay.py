"""The smallest relay on Tornado's RequestHandler: what tests/bench.py holds the hub against.

    python3 tests/relay.py --port 9000

It passes messages on and does nothing else: no limits, modes, channels, leases, checks or log, and an acknowledgement
is read and forgotten. What crosses the wire has the hub's shape, so that one load generator serves both.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tornado import escape, web


@dataclass
class Peer:
    """A registered name."""

    name: str
    mail: list[dict[str, Any]] = field(default_factory=list)  # not yet fetched
    poll: asyncio.Future[None] | None = None  # the waiting /receive; may be done

    def put(self, message: dict[str, Any]) -> None:
        """Keep `message`, and wake the poll that waits for one."""
        self.mail.append(message)
        if self.poll and not self.poll.done():
            self.poll.set_result(None)


class Relay:
    """What the three handlers share."""

    def __init__(self) -> None:
        self.peers: dict[str, Peer] = {}
        self.tokens: dict[str, Peer] = {}
        self.seqs = itertools.count(1)


class Handler(web.RequestHandler):
    """Common ground: the shared state."""

    def initialize(self, relay: Relay) -> None:
        """Take what the route table gives."""
        self.relay = relay


class Register(Handler):
    """POST /register."""

    def post(self) -> None:
        """Give a token for a name; a name that comes again replaces the peer."""
        name = escape.json_decode(self.request.body)["project"]
        token = f"token-of-{name}"
        self.relay.peers[name] = self.relay.tokens[token] = Peer(name)
        self.write({"token": token, "project": name})


class Send(Handler):
    """POST /send."""

    def post(self) -> None:
        """Pass a message on to one peer, or to all but its sender."""
        relay, body = self.relay, escape.json_decode(self.request.body)
        sender, to, seq = relay.tokens[body["token"]], body["to"], next(relay.seqs)
        message = {"id": f"{seq:012x}", "sender": sender.name, "recipient": to, "content": body["content"]}
        message |= {"kind": "message", "ts": time.time(), "seq": seq, "origin": "agent"}
        targets = [peer for peer in relay.peers.values() if peer is not sender] if to == "all" else [relay.peers[to]]
        for peer in targets:
            peer.put(message)
        self.write({"message_id": message["id"], "delivered_to": [peer.name for peer in targets]})


class Receive(Handler):
    """GET /receive."""

    async def get(self) -> None:
        """Answer with the mail, at once or when there is some or at the time-out."""
        peer = self.relay.tokens[self.request.headers["Authorization"].removeprefix("Bearer ")]
        if not peer.mail:
            peer.poll = asyncio.get_running_loop().create_future()
            with suppress(TimeoutError):
                await asyncio.wait_for(peer.poll, float(self.get_query_argument("timeout", "25")))
        mail, peer.mail = peer.mail, []
        self.write({"messages": mail, "mode": "running"})


async def serve(port: int) -> None:
    """Serve until the process is killed."""
    shared = {"relay": Relay()}
    routes = [("/register", Register, shared), ("/send", Send, shared), ("/receive", Receive, shared)]
    web.Application(routes).listen(port, "127.0.0.1", backlog=1024)
    await asyncio.Event().wait()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="The smallest Tornado relay; see tests/bench.py.")
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
