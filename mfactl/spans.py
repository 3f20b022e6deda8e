"""How people write times and lists in options: ``15m``, ``24h``; ``sshd,sudo``."""

from __future__ import annotations

from mfa_core.errors import InvalidInput


def seconds(text: str, *, option: str, shortest: str, longest: str) -> float:
    """A time with its unit, within bounds. Raises: InvalidInput."""
    from mfa_runtime.config.notation import Unfit, duration

    try:
        read: int = duration(shortest, longest).func(text)
    except Unfit as err:
        cure = err.cure or "write 90s, 15m, 8h or 7d"
        raise InvalidInput(f"{option} {text[:32]!a}: expected {err.expected}", cure=cure) from None
    return float(read)


def span(length_s: float) -> str:
    """A length of time for people, in its two largest units."""
    left = int(abs(length_s))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
