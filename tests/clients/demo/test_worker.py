"""Hostile input in a process of its own: done, refused with a reason, or stopped."""

import asyncio
import base64
import struct
import sys
from pathlib import Path

import orjson
import pytest

from farthing.clients.demo.outcomes import Reason, Unworkable
from farthing.clients.demo.sample import sample_jpeg
from farthing.clients.demo.worker import Members, Worker
from tests.patience import PATIENCE_S
from tests.pdfs import encrypted_pdf, numbered_pdf


def pdf(content: bytes) -> Members:
    return {"pdf": base64.b64encode(content).decode()}


async def refusal(worker: Worker, job: str, members: Members) -> Reason:
    with pytest.raises(Unworkable) as caught:
        await worker.perform(job, members)
    return caught.value.reason


async def test_work_is_done_in_another_process_and_its_beginning_is_told() -> None:
    begun: list[str] = []
    worker = Worker(deadline_s=30, begun=begun.append)

    result = await worker.perform("extract_text", pdf(numbered_pdf(2)))

    assert [page.strip() for page in result["pages"]] == ["Page 1 of 2.", "Page 2 of 2."]
    assert begun == ["extract_text"]


async def test_the_reason_of_work_that_cannot_be_done_comes_through(tmp_path: Path) -> None:
    path = tmp_path / "file.pdf"
    path.write_bytes(encrypted_pdf("secret"))
    worker = Worker(deadline_s=30)

    assert await refusal(worker, "count_pages", {"path": str(path)}) is Reason.ENCRYPTED
    assert await refusal(worker, "extract_text", {"pdf": "no base64"}) is Reason.BROKEN
    assert await refusal(worker, "analyse_text", {"text": " "}) is Reason.NO_TEXT


async def test_input_that_brings_the_process_down_is_broken_input() -> None:
    assert await refusal(Worker(deadline_s=30), "extract_text", {"pdf": 1}) is Reason.BROKEN


async def test_work_past_its_deadline_is_stopped() -> None:
    photo = base64.b64encode(sample_jpeg(3000, 2000)).decode()
    members = {"image": photo, "width": 8000, "height": 6000, "format": "webp"}

    assert await refusal(Worker(deadline_s=0.2), "resize_image", members) is Reason.TOO_SLOW


async def test_a_worker_that_nobody_waits_for_ends_by_itself() -> None:
    photo = base64.b64encode(sample_jpeg(3000, 2000)).decode()
    ask = orjson.dumps({"image": photo, "width": 8000, "height": 6000, "format": "webp"})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "farthing.clients.demo.worker",
        "resize_image",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(struct.pack(">Q", len(ask)) + ask)
    await process.stdin.drain()
    process.stdin.close()

    output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)

    assert (process.returncode, output) == (1, b"")
