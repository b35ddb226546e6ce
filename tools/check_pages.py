"""Look at every built page as a reader's browser does, with the network blocked.

First a scan of the files: nothing may load from another address, every picture has alternative text. Then
Chromium opens each page at phone and desktop width and reports requests that leave the machine, script
errors, formulas that MathJax could not set, and pages wider than the screen.

Usage: check_pages.py HTML_FOLDER [--screenshots FOLDER]
"""

import argparse
import asyncio
import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

WIDTHS = {"phone": 390, "desktop": 1280}
STAND_STILL = """
document.head.appendChild(document.createElement('style')).textContent = '* {transition: none !important}'
"""
# Elements that fetch, and the attribute that says from where; a link to click does not.
FETCHING = dict.fromkeys(("script", "img", "iframe", "source", "video", "audio", "embed"), "src")
FETCHING |= {"object": "data", "link": "href"}
PASSIVE_LINKS = {"canonical", "next", "prev", "search", "index", "author", "license"}
REMOTE = re.compile(r"(?:https?:)?//")
BROWSER_OPTIONS = [
    "--headless=new",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
]

# Evaluated in the page: what is wrong with it, as a list of sentences. A phone zooms out of a page that is
# too wide, and then calls the page's width its own; so the width is given.
INSPECT = """
(async (width) => {
  if (window.MathJax) await MathJax.startup.promise;
  await document.fonts.ready;
  const found = [];
  for (const node of document.querySelectorAll('mjx-merror, [data-mml-node="merror"]'))
    found.push('MathJax cannot set: ' + (node.dataset.mjxError || node.textContent));
  for (const node of document.querySelectorAll('[data-mml-node="mtext"][fill="red"]'))
    found.push('undefined macro in: ' + node.closest('mjx-container').textContent);
  for (const node of document.querySelectorAll('.math'))
    if (!node.querySelector('mjx-container'))
      found.push('formula was not set: ' + node.textContent.slice(0, 80));
  const wide = document.documentElement.scrollWidth - width;
  if (wide > 0) {
    const guilty = [...document.querySelectorAll('.bd-article *')]
      .filter(e => e.getBoundingClientRect().right > width + 1 && !e.closest('pre')).slice(0, 3)
      .map(e => e.tagName + '.' + e.className + ': ' + e.textContent.trim().slice(0, 50));
    found.push(`page is ${wide} px too wide: ${guilty.join(' | ')}`);
  }
  return found;
})(%d)
"""


def main() -> int:
    """Check the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("html", type=Path)
    parser.add_argument("--screenshots", type=Path, help="also save a picture of every page, in light and dark")
    options = parser.parse_args()
    # Under _static lie the theme's templates, which are not pages.
    pages = [page for page in sorted(options.html.rglob("*.html")) if "_static" not in page.parts]
    findings = [f"{page}: {finding}" for page in pages for finding in scan(page.read_text("utf8"))]
    for sheet in sorted(options.html.rglob("*.css")):
        if re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text("utf8")):
            findings.append(f"{sheet}: loads from another address")
    browser = shutil.which("chromium")
    if browser is None:
        print("SKIPPED: no chromium here, so the pages were scanned but not opened in a browser")
    else:
        findings += asyncio.run(open_pages(browser, pages, options.screenshots))
    print("\n".join(findings) or f"{len(pages)} pages: nothing found")
    return len(findings) > 0


class Scanner(HTMLParser):
    """Collects what a page would fetch from elsewhere, and pictures without alternative text."""

    def __init__(self) -> None:
        super().__init__()
        self.findings: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        values = dict(attrs)
        address = values.get(FETCHING.get(tag, "")) or ""
        passive = tag == "link" and set((values.get("rel") or "").split()) <= PASSIVE_LINKS
        if REMOTE.match(address) and not passive:
            self.findings.append(f"<{tag}> loads {address}")
        if tag == "img" and not (values.get("alt") or "").strip():
            self.findings.append(f"picture without alternative text: {address[:80]}")


def scan(html: str) -> list[str]:
    """Findings in the text of one page."""
    scanner = Scanner()
    scanner.feed(html)
    return scanner.findings


async def open_pages(browser: str, pages: list[Path], screenshots: Path | None) -> list[str]:
    """Open every page in a fresh headless browser; give the findings."""
    # The browser's helper processes may outlive it for a moment and still write into the profile.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, *BROWSER_OPTIONS, f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium refuses to run as root otherwise
        process = subprocess.Popen([*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            tab = await Tab.open(Path(profile))
            findings = [
                f"{page} ({name}, {width} px): {finding}"
                for page in pages
                for name, width in WIDTHS.items()
                for finding in await visit(tab, page, name, width, screenshots)
            ]
            tab.socket.close()
            return findings
        finally:
            process.terminate()
            process.wait()


async def visit(tab: "Tab", page: Path, name: str, width: int, screenshots: Path | None) -> list[str]:
    """Open one page at one width."""
    tab.events.clear()
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    await tab.call("Emulation.setDeviceMetricsOverride", size)
    await tab.call("Page.navigate", {"url": page.resolve().as_uri()})
    await tab.until("Page.loadEventFired")
    findings = [*await tab.evaluate(INSPECT % width), *bad_events(tab.events)]
    if screenshots:
        await take_screenshots(tab, f"{page.stem}-{name}", width, screenshots)
    return findings


async def take_screenshots(tab: "Tab", name: str, width: int, folder: Path) -> None:
    """Save the page as it looks in light and in dark, down to 8000 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    # Otherwise a sidebar may be caught while it slides in.
    await tab.evaluate(STAND_STILL)
    for theme in "light", "dark":
        await tab.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        height = min(await tab.evaluate("document.documentElement.scrollHeight"), 8000)
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = await tab.call("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        (folder / f"{name}-{theme}.png").write_bytes(base64.b64decode(shot["data"]))


def bad_events(events: list[dict[str, Any]]) -> Iterator[str]:
    """Requests that leave the machine, and errors of scripts."""
    for event in events:
        details = event["params"]
        if event["method"] == "Network.requestWillBeSent":
            url = details["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:", "about:")):
                yield f"requests {url}"
        elif event["method"] == "Runtime.exceptionThrown":
            exception = details["exceptionDetails"].get("exception", {})
            yield f"script error: {exception.get('description', details)}"
        elif event["method"] == "Log.entryAdded" and details["entry"]["level"] == "error":
            yield f"error: {details['entry']['text']} {details['entry'].get('url', '')}"


class Tab:
    """A browser tab, spoken to over Chromium's debugging protocol."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self.socket = socket
        self.numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    @classmethod
    async def open(cls, profile: Path) -> "Tab":
        """Wait for the browser to start, and open a tab that reports what happens in it."""
        port_file = profile / "DevToolsActivePort"
        for _ in range(300):
            if port_file.exists() and len(port_file.read_text().split()) == 2:
                break
            await asyncio.sleep(0.1)
        port, path = port_file.read_text().split()
        # Screenshots arrive as one message, larger than the default limit.
        root = cls(await websocket_connect(f"ws://127.0.0.1:{port}{path}", max_message_size=2**28))
        target = await root.call("Target.createTarget", {"url": "about:blank"})
        root.socket.close()
        address = f"ws://127.0.0.1:{port}/devtools/page/{target['targetId']}"
        tab = cls(await websocket_connect(address, max_message_size=2**28))
        for domain in "Page", "Network", "Runtime", "Log":
            await tab.call(f"{domain}.enable")
        return tab

    async def call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        number = next(self.numbers)
        await self.socket.write_message(json.dumps({"id": number, "method": method, "params": params or {}}))
        while True:
            message = await self._next()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])

    async def evaluate(self, expression: str) -> Any:
        """Run JavaScript in the page and give its value."""
        options = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = await self.call("Runtime.evaluate", options)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def until(self, method: str) -> None:
        """Wait for an event, which may have come already."""
        while not any(event["method"] == method for event in self.events):
            await self._next()

    async def _next(self) -> dict[str, Any]:
        text = await asyncio.wait_for(self.socket.read_message(), timeout=60)
        if text is None:
            raise RuntimeError("the browser closed the connection")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


if __name__ == "__main__":
    sys.exit(main())
