"""Runs inside an original's venv: calls of its HubConnector, one JSON line each, from stdin to stdout.

A call may be started before the last one has returned, as a bot does that speaks while it listens; the answers come
in the order of the calls. In: {"id", "call", "args", "kwargs"}.
Out: {"id", "returned"}, or {"id", "raised", "text", "status"} where status is that of the HTTP answer, if any.
"""

import asyncio
import dataclasses
import enum
import json
import sys


def plain(value: object) -> object:
    """What JSON cannot carry, as what it can."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError(type(value))


async def answer(connector, request):
    """Make one call, and describe its end."""
    try:
        returned = await getattr(connector, request["call"])(*request["args"], **request["kwargs"])
    except Exception as error:  # noqa: BLE001 - whatever it raises is the answer that the test asked for
        status = getattr(getattr(error, "response", None), "status_code", None)
        return {"id": request["id"], "raised": type(error).__name__, "text": str(error), "status": status}
    return {"id": request["id"], "returned": returned}


async def main() -> None:
    from caucus.hub_connector import HubConnector  # the library under test, as its README tells its users

    loop = asyncio.get_running_loop()
    ends = asyncio.Queue()

    async def write() -> None:
        while (end := await ends.get()) is not None:
            print(json.dumps(await end, default=plain), flush=True)

    async with HubConnector(sys.argv[1], **json.loads(sys.argv[2])) as connector:
        writer = asyncio.create_task(write())
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            ends.put_nowait(asyncio.create_task(answer(connector, json.loads(line))))
        ends.put_nowait(None)
        await writer


if __name__ == "__main__":
    asyncio.run(main())
