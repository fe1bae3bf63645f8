"""A hub whose /mcp offers, besides ours, the tool and the prompts that the official conformance suite calls by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import caucus


async def answer(seat: caucus.Seat, given: dict[str, Any], report: caucus.Report) -> caucus.Json:
    """Give what the suite expects to read."""
    return "This is a simple text response for testing."


caucus.TOOLS += (caucus.Tool("test_simple_text", "For the suite.", {}, True, answer),)
caucus.PROMPTS += (
    caucus.Prompt("test_simple_prompt", "For the suite.", {}, lambda given: "This is a simple prompt for testing."),
    caucus.Prompt(
        "test_prompt_with_arguments",
        "For the suite.",
        {"arg1": "the first", "arg2": "the second"},
        lambda given: f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'",
    ),
)

if __name__ == "__main__":
    sys.exit(caucus.main())
