"""The times that parties must agree on, all from one number: the lease.

A worker renews its heartbeat every `heartbeat` seconds, and stops its jobs by itself when it has had
no confirmed heartbeat for `give_up`. The server takes a claim back when it has seen no change for
`lease`. Each counts on its own clock, so what must hold is only the order of these spans; `holds`
is that expression, and the other end of it is in `server.leases` and `worker.heart`.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_LEASE = 120.0
SHORTEST_LEASE = 1.0


@dataclass(frozen=True)
class Times:
    lease: float = DEFAULT_LEASE  # seconds

    @property
    def heartbeat(self) -> float:
        return self.lease / 6

    @property
    def give_up(self) -> float:
        return self.lease * 3 / 4

    @property
    def server_gap(self) -> float:
        """A pause of the server after which its own observations no longer count."""
        return self.lease / 3

    @property
    def watch(self) -> float:
        """How often the server looks at heartbeats."""
        return self.lease / 12

    def holds(self) -> bool:
        """A worker may miss three heartbeats, and stops well before the server takes over."""
        return 3 * self.heartbeat < self.give_up <= self.lease - self.lease / 4 < self.lease


def patience(idle: float, longest: float, shortest: float = 0.002) -> float:
    """How long to wait before the next poll after `idle` seconds without news.

    A tenth of the time already waited: a poll then delays news by at most a tenth of how long the
    news took anyway, and a party that waits for hours polls seldom.
    """
    return min(longest, max(shortest, idle / 10))
