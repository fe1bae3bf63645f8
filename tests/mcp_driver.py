"""The official MCP client on a leash: run in the SDK's environment, it takes a step per line and prints the outcome.

    mcp_driver.py MODE TARGET      MODE: legacy, auto, 2026-07-28; TARGET: a URL, or a command as a JSON list

The first line that it prints tells how the connection was made. A step is a JSON list: a name of STEPS, its arguments.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

Json = Any


def plain(result: Any) -> Json:
    """Give a result of the SDK as it was on the wire."""
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)


class Leash:
    """One client, and the call that it may be waiting for."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: asyncio.Task[Any] | None = None

    async def tools(self) -> Json:
        """List the tools."""
        return plain(await self._client.list_tools())

    async def prompts(self) -> Json:
        """List the prompts."""
        return plain(await self._client.list_prompts())

    async def prompt(self, name: str, arguments: dict[str, str]) -> Json:
        """Fetch a prompt."""
        return plain(await self._client.get_prompt(name, arguments))

    async def call(self, name: str, arguments: dict[str, Any]) -> Json:
        """Call a tool; with what it reported on its way."""
        reports: list[Json] = []

        async def note(done: float, total: float | None, words: str | None) -> None:
            reports.append([done, total, words])

        return plain(await self._client.call_tool(name, arguments, progress_callback=note)) | {"reports": reports}

    async def begin(self, name: str, arguments: dict[str, Any]) -> Json:
        """Call a tool and do not wait for it."""
        self._waiting = asyncio.create_task(self._client.call_tool(name, arguments))
        return "begun"

    async def cancel(self) -> Json:
        """Give up on what was begun."""
        assert self._waiting is not None
        self._waiting.cancel()
        await asyncio.wait([self._waiting])
        return {"cancelled": self._waiting.cancelled()}

    async def end(self) -> Json:
        """Wait for what was begun."""
        assert self._waiting is not None
        return plain(await self._waiting)


STEPS: dict[str, Callable[..., Awaitable[Json]]] = {
    "tools": Leash.tools,
    "prompts": Leash.prompts,
    "prompt": Leash.prompt,
    "call": Leash.call,
    "begin": Leash.begin,
    "cancel": Leash.cancel,
    "end": Leash.end,
}


async def main(mode: str, target: str) -> None:
    """Connect, then do what stdin says."""
    words = json.loads(target) if target.startswith("[") else None
    server = stdio_client(StdioServerParameters(command=words[0], args=words[1:])) if words else target
    async with Client(server, mode=mode) as client:
        about = client.server_info
        hello = {"version": client.protocol_version, "instructions": client.instructions}
        print(json.dumps(hello | {"server": about and plain(about)}), flush=True)
        leash, loop = Leash(client), asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            name, *arguments = json.loads(line)
            try:
                outcome = await STEPS[name](leash, *arguments)
            except Exception as error:  # noqa: BLE001 (whatever the SDK makes of an answer is what the test looks at)
                code = getattr(getattr(error, "error", None), "code", None)
                outcome = {"raised": type(error).__name__, "code": code, "message": str(error)}
            print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
