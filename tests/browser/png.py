"""Looks into a PNG."""

import base64
import struct

from playwright.sync_api import Page

_COLORS = """async text => {
  const bytes = Uint8Array.from(atob(text), each => each.charCodeAt());
  const image = await createImageBitmap(new Blob([bytes]));
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  return new Set(new Uint32Array(data.buffer)).size;
}"""


def size_of(png: bytes) -> tuple[int, int]:
    """Return the width and the height, in pixels."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def colors_in(page: Page, png: bytes) -> int:
    """Return how many colors a picture has. The page that is open in the browser decodes it."""
    colors: int = page.evaluate(_COLORS, base64.b64encode(png).decode())
    return colors
