"""Take the pictures of the console from a real run: docs/console-light.png, -dark.png and -phone.png.

    python tests/screenshot.py                          starts the demo, and waits until it has a stick and a form
    python tests/screenshot.py http://127.0.0.1:8765    of the hub that runs there, at such a moment

Needs the dev extra and chromium, as the browser tests do.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator

from browsers import FLAGS
from hubs import ROOT, START, HubProcess
from playwright.sync_api import sync_playwright

WIDE, PHONE = {"width": 1360, "height": 850}, {"width": 390, "height": 844}
PICTURES = {"light": (WIDE, "light"), "dark": (WIDE, "dark"), "phone": (PHONE, "light")}  # name: size and theme
WAIT_MS = 180_000  # the demo goes at reading speed; this is more than one of its rounds
BYTES_MAX = 250_000  # a picture in a README should not keep its reader waiting


@contextlib.contextmanager
def conversation(arguments: list[str]) -> Iterator[str]:
    """Give the address of a console where something goes on."""
    if arguments:
        yield arguments[0]
        return
    demo = HubProcess(command=(sys.executable, START, "demo"))
    try:
        yield demo.url
    finally:
        demo.stop()


def main() -> int:
    """Take all pictures at one moment; give the exit code."""
    path = shutil.which("chromium")
    if path is None:
        print("no chromium: apt-get install --no-install-recommends chromium", file=sys.stderr)
        return 1
    with conversation(sys.argv[1:]) as url, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=[*FLAGS])
        pages = [browser.new_page(viewport=size, color_scheme=theme) for size, theme in PICTURES.values()]
        for page in pages:
            page.goto(url)
        for page in pages:
            page.locator("body:has(.form):has(.floor)").wait_for(timeout=WAIT_MS, state="attached")
        for page, name in zip(pages, PICTURES, strict=True):
            target = ROOT / "docs" / f"console-{name}.png"
            page.screenshot(path=target, animations="disabled", caret="hide")
            size = target.stat().st_size
            print(f"{target.relative_to(ROOT)}: {size:,} bytes")
            assert size < BYTES_MAX
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
