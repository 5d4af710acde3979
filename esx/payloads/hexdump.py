"""Bytes as hexadecimal digits, for people."""

MOST = 4096
"""How many bytes are shown."""
_WIDTHS = (16, 8, 4)


def hex_lines(raw: bytes, width: int = 80) -> list[str]:
    """Return the first `MOST` bytes, 16 on a line, or fewer in a narrow `width`; then how many bytes more there are.

    A line has the place of its first byte, the bytes, and the characters of ASCII among them.
    """
    shown = raw[:MOST]
    row = next((count for count in _WIDTHS if 7 * count // 2 + 7 <= width), _WIDTHS[-1])
    lines = []
    for at in range(0, len(shown), row):
        piece = shown[at : at + row]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in piece)
        lines.append(f"{at:04x}  {piece.hex(' ', -2).ljust(5 * row // 2 - 1)}  {text}")
    if len(raw) > MOST:
        lines.append(f"… {len(raw) - MOST:,} bytes more")
    return lines
