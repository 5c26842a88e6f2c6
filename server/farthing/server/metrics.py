"""What this process counts of itself, in the form that Prometheus reads.

Boundary: numbers only. Labels are the front end's number and names of operations and codes, all
closed lists, so that what callers send never makes a new series.
Source: spec/transport-http.md#metrics.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from farthing.protocol.errors import Refused
from farthing.protocol.messages.operations import OPERATIONS
from farthing.settlement.reports.usage import UNATTRIBUTED

__all__ = ["OK", "Metrics"]

OK: Final = "ok"
_UNKNOWN: Final = "unknown"
_FRONT_END: Final = "front_end"
_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(slots=True)
class Metrics:
    """The figures of one front end, in a registry of its own; every sample names it."""

    front_end: int = 1
    _registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    _calls: Counter = field(init=False)
    _refused: Counter = field(init=False)
    _took_s: Histogram = field(init=False)
    _in_flight: Gauge = field(init=False)
    _seq: Gauge = field(init=False)
    _healthy: Gauge = field(init=False)
    _services: Counter = field(init=False)
    _services_in_flight: Gauge = field(init=False)
    _usage_events: Counter = field(init=False)
    _unattributed_ratio: Gauge = field(init=False)
    _events: int = 0
    _unattributed: int = 0

    def __post_init__(self) -> None:
        registry = self._registry
        self._calls = Counter(
            "farthing_calls",
            "Calls of operations through every door, by how they ended.",
            (_FRONT_END, "operation", "code"),
            registry=registry,
        )
        self._refused = Counter(
            "farthing_refused_requests",
            "Requests that were refused at the door, before any operation, by HTTP status.",
            (_FRONT_END, "status"),
            registry=registry,
        )
        self._took_s = Histogram(
            "farthing_call_duration_seconds",
            "How long calls of operations took.",
            (_FRONT_END, "operation"),
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._in_flight = Gauge(
            "farthing_calls_in_flight",
            "Calls that are being answered, waiting for the engine included.",
            (_FRONT_END,),
            registry=registry,
        ).labels(self.front_end)
        self._seq = Gauge(
            "farthing_journal_seq",
            "The newest record of the journal.",
            (_FRONT_END,),
            registry=registry,
        ).labels(self.front_end)
        self._healthy = Gauge(
            "farthing_engine_healthy",
            "1 while the engine takes commands and answers.",
            (_FRONT_END,),
            registry=registry,
        ).labels(self.front_end)
        self._services = Counter(
            "farthing_service_calls",
            "Calls of vendors' tools that were asked for, by what was answered.",
            (_FRONT_END, "ending"),
            registry=registry,
        )
        self._services_in_flight = Gauge(
            "farthing_service_calls_in_flight",
            "Vendors' tools that are being called.",
            (_FRONT_END,),
            registry=registry,
        ).labels(self.front_end)

        self._usage_events = Counter(
            "farthing_usage_events",
            "Usage events that were reported, by what became of them.",
            (_FRONT_END, "verdict"),
            registry=registry,
        )
        self._unattributed_ratio = Gauge(
            "farthing_usage_attribution_failure_ratio",
            "Of all usage events reported since the start, those of no session of their sender's.",
            (_FRONT_END,),
            registry=registry,
        ).labels(self.front_end)

    def usage(self, verdict: str, events: int) -> None:
        """Count events of a report: billed, unbilled, or why they were not taken."""
        if events:
            self._usage_events.labels(self.front_end, verdict).inc(events)
            self._events += events
            self._unattributed += events if verdict == UNATTRIBUTED else 0
            self._unattributed_ratio.set(self._unattributed / self._events)

    def refused_at_the_door(self, status: int) -> None:
        """Count one request that never reached an operation."""
        self._refused.labels(self.front_end, str(status)).inc()

    @contextmanager
    def service_call(self) -> Iterator[Callable[[str], None]]:
        """Count one asking for a vendor's call: as what it is told to be, or by its refusal."""
        told = ["gone"]
        try:
            yield lambda ending: told.insert(0, ending)
        except Refused as refused:
            told.insert(0, refused.code.value)
            raise
        finally:
            self._services.labels(self.front_end, told[0]).inc()

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Count one call of an operation, however it ends."""
        operation = name if name in OPERATIONS else _UNKNOWN
        started = time.perf_counter()
        code = "gone"
        self._in_flight.inc()
        try:
            yield
            code = OK
        except Refused as refused:
            code = refused.code.value
            raise
        finally:
            self._in_flight.dec()
            self._calls.labels(self.front_end, operation, code).inc()
            self._took_s.labels(self.front_end, operation).observe(time.perf_counter() - started)

    def page(self, *, seq: int | None, healthy: bool, services_in_flight: int = 0) -> bytes:
        """This front end's figures; `seq` is None where the engine does not say."""
        self._services_in_flight.set(services_in_flight)
        if seq is not None:
            self._seq.set(seq)
        self._healthy.set(healthy)
        return generate_latest(self._registry)
