"""What is told to those who keep the server running: ready or not, and figures."""

import asyncio
import os
import re
import signal
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from farthing.protocol.errors import Code, Refused
from farthing.protocol.messages.operations import OPERATIONS
from farthing.server.metrics import OK, Metrics
from farthing.server.siblings import Siblings, on_one_page
from farthing.settlement.journal.sockets import owners_socket
from tests.patience import PATIENCE_S
from tests.processes import ServerProcess, free_port
from tests.serving import Serving, Shop, serving

# A connection of its own for each scrape, so that any front end may get it.
ONE_EACH = httpx2.Limits(max_keepalive_connections=0)
NAMED = {"operation", "code", "status"}
CHAPTER = Path(__file__).resolve().parents[2] / "spec" / "transport-http.md"


async def get(server: Serving, path: str, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await server.http.get(f"{server.service.issuer}{path}", headers=named)


def samples(page: str) -> dict[tuple[str, ...], float]:
    """What the first front end counted, by its name and labels."""
    return {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name in NAMED)): (
            sample.value
        )
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.labels["front_end"] == "1"
    }


def front_ends(page: str) -> set[tuple[str, str]]:
    """Whose samples a page has, by metric."""
    return {
        (family.name, sample.labels["front_end"])
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


async def test_calls_of_every_door_are_counted_by_how_they_ended(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await Shop.opened(server)
        before = samples((await get(server, "/metrics")).text)
        for path in ("/v1/get_tree_head", "/v1/tree-head", "/v1/get_listing"):
            await get(server, path)
        page = await get(server, "/metrics")
        found = samples(page.text)

        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        calls = "farthing_calls_total"
        head, refused = (calls, OK, "get_tree_head"), (calls, "invalid_argument", "get_listing")
        assert found[head] - before.get(head, 0) == 2
        assert found[refused] == 1
        assert found["farthing_call_duration_seconds_count", "get_tree_head"] == found[head]
        assert found["farthing_journal_seq",] > 1
        assert found["farthing_engine_healthy",] == 1
        assert found["farthing_calls_in_flight",] == 0


async def test_what_is_refused_at_the_door_is_counted_by_status(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        refused = "farthing_refused_requests_total"
        before = samples((await get(server, "/metrics")).text)
        for path in ("/v1/get_balance", "/v1/get_balance", "/v1/get%5Fbalance"):
            await get(server, path)
        found = samples((await get(server, "/metrics")).text)

    assert found[refused, "401"] - before.get((refused, "401"), 0) == 2
    assert found[refused, "404"] - before.get((refused, "404"), 0) == 1


async def test_nothing_that_callers_send_makes_a_series(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for name in ("no_such_operation", "bad%22%7D%0Aname"):
            await get(server, f"/v1/{name}")
            with pytest.raises(Refused):
                await server.admin.connection.send_raw(name, {}, repeatable=False)
        found = samples((await get(server, "/metrics")).text)

    assert found["farthing_calls_total", "unknown_operation", "unknown"] == 2
    closed = {*OPERATIONS, "unknown"}
    codes = {OK, "gone", *(code.value for code in Code)}
    for name, *labels in found:
        if name == "farthing_calls_total":
            assert labels[0] in codes
            assert labels[1] in closed


@pytest.mark.parametrize(
    ("headers", "peer", "status"),
    [
        ({}, "10.0.0.9", 200),
        ({"host": "10.0.0.5:8321"}, "127.0.0.1", 200),
        ({"host": "[::1]"}, "::1", 200),
        ({"host": "localhost:9000"}, "127.0.0.1", 200),
        ({}, "93.184.216.34", 421),
        ({"host": "market.example"}, "127.0.0.1", 404),
        ({"host": "elsewhere.example"}, "127.0.0.1", 421),
        ({"x_forwarded_for": "192.0.2.1", "host": "market.example"}, "127.0.0.1", 404),
        ({"via": "1.1 proxy", "host": "127.0.0.1:8321"}, "127.0.0.1", 421),
    ],
)
async def test_figures_are_for_those_who_reach_the_server_itself(
    tmp_path: Path, headers: dict[str, str], peer: str, status: int
) -> None:
    public = "https://market.example"
    async with serving(tmp_path, public_url=public, anonymous_per_minute=1) as server:
        transport = httpx2.ASGITransport(app=server.service.app, client=(peer, 1))
        async with httpx2.AsyncClient(transport=transport) as http:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            url = "http://127.0.0.1:8321/metrics"
            response = await http.get(url, headers=named)
            # However often they look.
            again = await http.get(url, headers=named)

        assert response.status_code == status
        assert status != 200 or again.status_code == 200


async def test_ready_is_told_under_any_name_and_only_while_it_is_true(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        ready = await get(server, "/readyz", host="elsewhere")
        await server.service.market.engine.close()  # type: ignore[attr-defined]
        stopped = await get(server, "/readyz")
        page = await get(server, "/metrics")

    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert (stopped.status_code, stopped.json()) == (503, {"status": "not_ready"})
    assert samples(page.text)["farthing_engine_healthy",] == 0


async def test_an_engine_that_hangs_is_neither_ready_nor_healthy(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, free_port())
    facts = await server.start()
    try:
        async with httpx2.AsyncClient(timeout=PATIENCE_S) as http:
            # As one does whose disk does not answer: it is connected, and says nothing.
            os.kill(server.engine_pid, signal.SIGSTOP)
            ready = await http.get(f"{facts['issuer']}/readyz")
            page = await http.get(f"{facts['issuer']}/metrics")
            os.kill(server.engine_pid, signal.SIGCONT)
            again = await http.get(f"{facts['issuer']}/readyz")
    finally:
        os.kill(server.engine_pid, signal.SIGCONT)
        server.stop()

    assert (ready.status_code, again.status_code) == (503, 200)
    assert samples(page.text)["farthing_engine_healthy",] == 0


def counted(number: int) -> bytes:
    metrics = Metrics(number)
    for _ in range(number):
        with metrics.call("get_tree_head"):
            pass
    return metrics.page(seq=number, healthy=True)


async def test_whichever_front_end_is_asked_tells_the_figures_of_all(tmp_path: Path) -> None:
    address = tmp_path / "engine.sock"
    first, second, third = (
        Siblings(number=number, count=3, address=address) for number in (1, 2, 3)
    )

    async def page() -> bytes:
        return counted(2)

    async with second.telling(page):
        # A socket that a killed process left behind is nobody's.
        owners_socket(address.with_name(f"{address.name}.3")).close()
        by_first, by_third = await first.pages(), await third.pages()
        mode = address.with_name(f"{address.name}.2").stat().st_mode & 0o777
    ended = await first.pages()

    assert [len(by_first), len(by_third), ended] == [1, 1, []]
    whole = on_one_page((counted(1), *by_first)).decode()
    families = list(text_string_to_metric_families(whole))
    assert len(families) == len({family.name for family in families})
    calls = {
        sample.labels["front_end"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "farthing_calls_total"
    }
    assert calls == {"1": 1, "2": 2}
    assert mode == 0o600


async def test_a_page_alone_stays_as_it_is() -> None:
    assert on_one_page((page := counted(1),)) == page


async def test_every_scrape_of_a_server_with_workers_has_the_same_series(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, free_port(), workers=2)
    facts = await server.start()
    try:
        async with httpx2.AsyncClient(limits=ONE_EACH) as http:
            url = f"{facts['issuer']}/metrics"
            before = [front_ends((await http.get(url)).text) for _ in range(6)]
            pids = server.front_end_pids
            os.kill(pids[1], signal.SIGKILL)
            await asyncio.to_thread(server.replaced, pids[1])
            after = [front_ends((await http.get(url)).text) for _ in range(6)]
    finally:
        server.stop()

    healthy = "farthing_engine_healthy"
    assert {(healthy, "1"), (healthy, "2")} <= before[0]
    assert [*before, *after] == [before[0]] * 12
    assert list(tmp_path.glob("*.sock*")) == []


def test_the_share_of_events_that_are_nobody_s_is_told() -> None:
    metrics = Metrics()
    ratio = "farthing_usage_attribution_failure_ratio"
    before = samples(metrics.page(seq=1, healthy=True).decode())[ratio,]
    for verdict, events in (("billed", 5), ("duplicate", 1), ("unattributed", 2), ("billed", 0)):
        metrics.usage(verdict, events)
    after = samples(metrics.page(seq=1, healthy=True).decode())[ratio,]

    assert (before, after) == (0, 0.25)


def test_the_chapter_names_every_metric() -> None:
    metrics = Metrics()
    with metrics.call("get_tree_head"):
        pass
    page = metrics.page(seq=1, healthy=True).decode()
    told = re.findall(r"^# TYPE (\w+) \w+$", page, re.MULTILINE)
    named = {name for name in told if not name.endswith("_created")}

    rows = set(re.findall(r"^\| `(farthing_\w+)` \|", CHAPTER.read_text(), re.MULTILINE))
    assert rows == named
