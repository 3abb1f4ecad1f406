"""What may be asked of a server, and how much of it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from trit.errors import UsageError

HEADER_SECONDS = 10.0  # for a request's head, and between requests of a connection
BODY_SECONDS = 60.0
RETRY_SECONDS = 2  # what Retry-After says


@dataclass(frozen=True)
class Settings:
    """
    host, port           where it listens; port 0: any that is free
    api_keys             one of them is wanted of every request but /health; needed beyond loopback
    parallel             answers written at the same time
    queue                requests that may wait for their turn; one more is refused with 503
    n_predict            most tokens of an answer, and the number where a request names none;
                         None: what the context has room for
    body_bytes           of a request, at most
    timeout              seconds a request may take in all, waiting included
    sleep_idle_seconds   a model that was not used for so long is unloaded; None: never
    verbose              a line on stderr for every request; never a text of one
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: tuple[str, ...] = ()
    parallel: int = 8
    queue: int = 64
    n_predict: int | None = None
    body_bytes: int = 8 << 20
    timeout: float = 3600.0
    sleep_idle_seconds: float | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        checks = (
            ("port", 0 <= self.port < 1 << 16, "from 0 to 65535"),
            ("parallel", 1 <= self.parallel <= 256, "from 1 to 256"),
            ("queue", self.queue >= 0, "0 or more"),
            ("n_predict", self.n_predict is None or self.n_predict >= 1, "1 or more"),
            ("body_bytes", self.body_bytes >= 1, "1 or more"),
            ("timeout", self.timeout > 0, "above 0"),
            ("sleep_idle_seconds", self.sleep_idle_seconds is None or self.sleep_idle_seconds > 0,
             "above 0"),
        )  # fmt: skip
        for name, ok, expected in checks:
            if not ok:
                raise UsageError(f"{name} is {getattr(self, name)}; expected {expected}.")
        if not all(key.isascii() and key.isprintable() and key.strip() for key in self.api_keys):
            raise UsageError("an API key is empty, or has other characters than printable ASCII.")
        if not self.local and not self.api_keys:
            raise UsageError(
                f"--host {self.host} can be reached from other machines, and no key is set. Give "
                "--api-key KEY (or TRIT_API_KEY), or listen on 127.0.0.1."
            )

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a name or an address, without brackets, is this machine by definition."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
