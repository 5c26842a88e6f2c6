import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from farthing.protocol.errors import Code, NextAction, Refusal, refuse
from farthing.protocol.messages.holds import Hold, PlaceHold
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.wire import Usage, document_of, money
from farthing.spec.generate import SCHEMAS, differing, generated

SHIPPED = Path(str(files("farthing.spec"))) / "schemas"
HAND_WRITTEN = {"listing.schema.json", "rate-card.schema.json", "terms.schema.json"}

PLACE_HOLD = document_of(
    PlaceHold(
        agreement_id="agr_01h455vb4pex5vsknk084sn02q",
        workload=(Usage(meter="page", quantity="3"),),
        args_sha256="a" * 64,
        idempotency_key="k" * 16,
    )
)
HOLD = document_of(
    Hold(
        hold_id="hld_01h455vb4pex5vsknk084sn02q",
        agreement_id="agr_01h455vb4pex5vsknk084sn02q",
        status="open",
        amount=money(6_000_000, "USD"),
        expires_at="2026-11-20T12:01:00.000000Z",
    )
)


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SHIPPED / name).read_bytes()))


def exchange(ask: object = PLACE_HOLD, answer: object = HOLD) -> dict[str, object]:
    return {"ask": ask, "answer": answer}


def test_the_schemas_are_those_of_the_code_byte_for_byte() -> None:
    assert differing(SCHEMAS, generated()) == []


def test_the_schemas_do_not_depend_on_the_order_of_sets() -> None:
    """In a process of its own: a hash seed is fixed at the start of one."""
    check = subprocess.run(
        [sys.executable, "-m", "farthing.spec.generate", "--check"],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        check=False,
        text=True,
    )

    assert (check.returncode, check.stdout) == (0, "")


def test_every_operation_has_a_schema_and_no_other_file_lies_beside_them() -> None:
    assert {path.name for path in (SHIPPED / "messages").iterdir()} == {
        f"{name}.schema.json" for name in OPERATIONS
    }


def test_a_changed_a_missing_and_a_leftover_file_are_each_named(tmp_path: Path) -> None:
    texts = generated()
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text)
    (tmp_path / "messages" / "place_hold.schema.json").write_bytes(b"{}")
    (tmp_path / "errors.schema.json").unlink()
    (tmp_path / "messages" / "of_old.schema.json").write_bytes(b"{}")

    assert differing(tmp_path, texts) == [
        "errors.schema.json",
        "messages/of_old.schema.json",
        "messages/place_hold.schema.json",
    ]


def test_hand_written_schemas_are_nobody_elses(tmp_path: Path) -> None:
    for name in HAND_WRITTEN:
        (tmp_path / name).write_bytes(b"{}")

    assert differing(tmp_path, {}) == []


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.json")), ids=lambda path: path.name)
def test_a_schema_is_a_schema(path: Path) -> None:
    Draft202012Validator.check_schema(json.loads(path.read_bytes()))


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_schema_of_a_message_knows_null(name: str) -> None:
    text = (SHIPPED / "messages" / f"{name}.schema.json").read_text()

    assert '"null"' not in text
    assert '"default": null' not in text


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.json")), ids=lambda path: path.name)
def test_who_fills_in_a_default_sends_what_the_same_schema_takes(path: Path) -> None:
    whole = json.loads(path.read_bytes())
    shared = {name: whole[name] for name in ("$defs", "components") if name in whole}

    for schema in declarations(whole):
        assert Draft202012Validator({**schema, **shared}).is_valid(schema["default"]), schema


def declarations(node: object) -> Iterator[dict[str, Any]]:
    """Every schema below a node that has a default."""
    if isinstance(node, dict):
        # A member may be called so: its declaration is an object.
        if "default" in node and not isinstance(node["default"], dict):
            yield node
        node = list(node.values())
    for each in node if isinstance(node, list) else ():
        yield from declarations(each)


def test_an_exchange_as_it_goes_over_the_wire_fits_its_schema() -> None:
    assert validator("messages/place_hold.schema.json").is_valid(exchange())


@pytest.mark.parametrize(
    "ask",
    [
        PLACE_HOLD | {"amount": "1"},
        PLACE_HOLD | {"expires_in_s": None},
        PLACE_HOLD | {"expires_in_s": "60"},
        PLACE_HOLD | {"idempotency_key": "short"},
        PLACE_HOLD | {"agreement_id": "hld_01h455vb4pex5vsknk084sn02q"},
        {name: value for name, value in PLACE_HOLD.items() if name != "workload"},
    ],
    ids=["unknown", "null", "coerced", "short_key", "other_noun", "missing"],
)
def test_an_ask_that_the_door_refuses_does_not_fit_the_schema(ask: object) -> None:
    assert not validator("messages/place_hold.schema.json").is_valid(exchange(ask=ask))


@pytest.mark.parametrize("code", Code)
def test_every_refusal_has_the_one_shape(code: Code) -> None:
    shape = refuse(code).document() | {"request_id": "req_01h455vb4pex5vsknk084sn02q"}

    assert validator("errors.schema.json").is_valid(shape)


def test_the_fullest_refusal_has_the_one_shape() -> None:
    refusal = Refusal(
        code=Code.BUDGET_EXCEEDED,
        message="Not today.",
        path="amount",
        required="2",
        remaining="1",
        asset="USD",
        next_action=NextAction.REQUEST_APPROVAL,
        retry_after_s=1,
        reasons=(Code.BUDGET_EXCEEDED, Code.INSUFFICIENT_FUNDS),
    )
    schema = json.loads((SHIPPED / "errors.schema.json").read_bytes())
    shape = refusal.document()

    assert Draft202012Validator(schema).is_valid(shape)
    assert shape.keys() | {"request_id"} == schema["properties"].keys()


def test_the_codes_of_the_schema_stand_in_order_of_precedence() -> None:
    schema = json.loads((SHIPPED / "errors.schema.json").read_bytes())

    assert schema["$defs"]["code"]["enum"] == [code.value for code in Code]
