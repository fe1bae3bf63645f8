"""What the official SDK makes of our tools: its lowlevel server, with the names and schemas of our table.

It serves its stdio framing on a socket, so that a test need not start a process for each connection. Run in the SDK's
own environment; prints the port.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from jsonschema import Draft202012Validator
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import caucus

TOOLS = {tool.name: types.Tool.model_validate(tool.to_json()) for tool in caucus.TOOLS}
PROMPTS = {prompt.name: types.Prompt.model_validate(prompt.to_json()) for prompt in caucus.PROMPTS}


async def list_tools(ctx: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    """List them all."""
    return types.ListToolsResult(tools=list(TOOLS.values()))


async def call_tool(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    """Check the arguments with a full implementation of JSON Schema; do nothing else."""
    if params.name not in TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
    errors = list(Draft202012Validator(TOOLS[params.name].input_schema).iter_errors(params.arguments or {}))
    said = types.TextContent(type="text", text=errors[0].message if errors else "done")
    return types.CallToolResult(content=[said], is_error=bool(errors))


async def list_prompts(ctx: Any, params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
    """List them all."""
    return types.ListPromptsResult(prompts=list(PROMPTS.values()))


async def get_prompt(ctx: Any, params: types.GetPromptRequestParams) -> types.GetPromptResult:
    """Give an empty prompt."""
    if params.name not in PROMPTS:
        raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    return types.GetPromptResult(messages=[])


async def serve(connection: socket.socket) -> None:
    """Speak to one client."""
    server = Server("reference", on_list_tools=list_tools, on_call_tool=call_tool,
                    on_list_prompts=list_prompts, on_get_prompt=get_prompt)
    source = anyio.wrap_file(connection.makefile("r", encoding="utf-8", errors="replace"))
    sink = anyio.wrap_file(connection.makefile("w", encoding="utf-8"))
    try:
        async with stdio_server(source, sink) as (read, write):
            await server.run(read, write, server.create_initialization_options())
    finally:
        connection.close()


async def main() -> None:
    """Serve until killed."""
    loop, tasks = asyncio.get_running_loop(), set()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = await loop.run_in_executor(None, listener.accept)
            tasks.add(asyncio.create_task(serve(connection)))


if __name__ == "__main__":
    asyncio.run(main())
