"""The one-file verifier, as an outsider runs it: alone, with nothing of ours on its path."""

import base64
import hashlib
import json
import subprocess
import sys
import sysconfig
from importlib.resources import files
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from farthing.protocol.calls import proof_of, reported_calls, session_of
from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.ledger import AccountKind
from farthing.protocol.platform_keys import PURPOSE
from farthing.protocol.records import line_of, parse_record
from farthing.protocol.wire import document_of
from farthing.spec import farthing_verify
from tests.papers import signing_key
from tests.protocol.bundling import bundled, traded, treasured, ungraced
from tests.protocol.evidence_market import JOURNAL_KEY, Sealed

TOLD = traded()
RECORDS = TOLD.trade.room.journal
LINES = bundled(RECORDS)
SEQ = TOLD.trade.room.state.charges[TOLD.charge_id].seq
SOURCE = files("farthing.spec") / "farthing_verify.py"
TRUST = ("--trust", JOURNAL_KEY.thumbprint)
BELOW_ZERO = canonical_bytes([kind.value for kind in AccountKind if kind.may_go_negative]).decode()
# What an outsider has installed, and nothing else: no editable install, no working directory.
STARTER = (
    "import sys, runpy\n"
    "sys.path[:] = [each for each in sys.path if each.endswith('.zip') or 'python3' in each]\n"
    "class Ours:\n"
    "    def find_spec(self, name, *_):\n"
    "        if name.split('.')[0] == 'farthing': raise ImportError('nothing of ours is here')\n"
    "sys.meta_path.insert(0, Ours())\n"
    "sys.argv = sys.argv[1:]\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what was downloaded."""
    folder = tmp_path_factory.mktemp("outsider")
    (folder / "farthing_verify.py").write_bytes(SOURCE.read_bytes())
    (folder / "bundle").write_bytes(b"".join(LINES))
    receipt = Sealed(RECORDS).receipt(SEQ)
    (folder / "receipt").write_bytes(canonical_bytes(document_of(receipt)) + b"\n")
    older = Sealed(RECORDS[:-2]).receipt(SEQ)
    (folder / "older").write_bytes(canonical_bytes(document_of(older)) + b"\n")
    (folder / "jwks").write_bytes(key_set({PURPOSE: "journal"}))
    return folder


def key_set(says: dict[str, Json]) -> bytes:
    """A key set of the key that signed the journal, and what it says of it."""
    return canonical_bytes({"keys": [{**JOURNAL_KEY.public.jwk(), **says}]})


def ran(place: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", STARTER, "farthing_verify.py", *words],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": sysconfig.get_path("scripts")},
    )
    assert done.stderr == "" or done.returncode == 2, done.stderr
    return done.returncode, done.stdout


def test_it_is_one_short_file_that_needs_nothing_of_ours() -> None:
    text = SOURCE.read_text()
    imports = [line.split()[1] for line in text.splitlines() if line.startswith(("import", "from"))]

    assert len(text.splitlines()) < 400
    foreign = {name.split(".")[0] for name in imports} - set(sys.stdlib_module_names)
    assert foreign == {"cryptography"}


def test_a_bundle_verifies_under_a_pinned_key(place: Path) -> None:
    code, out = ran(place, "bundle", *TRUST)

    assert code == 0
    assert out.startswith("VERIFIED (pinned)\n")
    assert f"{len(RECORDS)} records of" in out
    assert f"signed by {JOURNAL_KEY.thumbprint}" in out
    assert "this does not show:" in out


@pytest.mark.parametrize("name", ["receipt", "older"])
def test_a_receipt_is_checked_against_a_bundle(place: Path, name: str) -> None:
    code, out = ran(place, "bundle", *TRUST, "--receipt", name)

    assert code == 0
    assert f"record {SEQ} is the one in the bundle, in the same tree" in out


def test_a_receipt_is_checked_by_itself(place: Path) -> None:
    code, out = ran(place, "--receipt", "receipt", "--keys", "jwks", *TRUST)

    assert code == 0
    assert f"record {SEQ} is in the journal of" in out


@pytest.mark.parametrize("says", [{}, {PURPOSE: "platform"}, {PURPOSE: "payer"}])
def test_a_receipt_proves_nothing_by_a_key_that_is_not_published_for_the_journal(
    place: Path, tmp_path: Path, says: dict[str, Json]
) -> None:
    (tmp_path / "jwks").write_bytes(key_set(says))

    for trust in ((), TRUST):
        code, out = ran(place, "--receipt", "receipt", "--keys", str(tmp_path / "jwks"), *trust)
        assert code == 1
        assert "jwks has no key for the journal" in out


def call_receipt(fault: str = "") -> tuple[dict[str, Json], int]:
    """The receipt of a call that was reported, taken or rejected for a fault."""
    seq, record = next(
        (seq, record)
        for seq, (record, _) in enumerate(map(parse_record, RECORDS), 1)
        if session_of(record)
    )
    call = next(each for each in reported_calls(record) if each.fault == fault)
    event, path = proof_of(record, call.place)
    receipt = document_of(Sealed([*map(line_of, RECORDS)]).receipt(seq))
    given: dict[str, Json] = {
        "event": event,
        "path": list(path),
        "place": call.place,
        "receipt": receipt,
    }
    return given, call.amount_units


def test_a_receipt_of_one_call_tells_what_it_was_billed(place: Path, tmp_path: Path) -> None:
    given, units = call_receipt()
    (tmp_path / "call").write_bytes(canonical_bytes(given))

    alone = ran(place, "--receipt", str(tmp_path / "call"), "--keys", "jwks", *TRUST)
    beside = ran(place, "bundle", *TRUST, "--receipt", str(tmp_path / "call"))

    assert units > 0
    for code, out in (alone, beside):
        assert code == 0
        assert "(call 1 of urn:farthing:ses_" in out
        assert f": {units} units) is in the journal of" in out


def test_a_receipt_of_a_call_that_was_not_taken_says_why(place: Path, tmp_path: Path) -> None:
    (tmp_path / "call").write_bytes(canonical_bytes(call_receipt("duplicate")[0]))

    _, out = ran(place, "--receipt", str(tmp_path / "call"), "--keys", "jwks", *TRUST)

    assert ": 0 units, duplicate) is in the journal of" in out


def test_a_receipt_of_one_call_fits_no_other_event_place_or_record(
    place: Path, tmp_path: Path
) -> None:
    given, _ = call_receipt()
    event = str(given["event"])
    wrongs: list[dict[str, Json]] = [
        {"event": event.replace('"page":"', '"page":"1')},
        {"place": 2},
        {"place": -1},
        {"place": False},
        {"path": []},
        {"receipt": document_of(Sealed(RECORDS).receipt(SEQ))},
        {"cost": "0"},
    ]
    for wrong in wrongs:
        (tmp_path / "call").write_bytes(canonical_bytes({**given, **wrong}))
        code, out = ran(place, "--receipt", str(tmp_path / "call"), "--keys", "jwks", *TRUST)
        assert (code, out.startswith("REJECTED: ")) == (1, True), wrong


def test_a_receipt_in_a_bundle_s_place_is_told_how_it_is_given(place: Path) -> None:
    code, out = ran(place, "receipt", *TRUST)

    assert code == 1
    assert out.startswith("REJECTED: no bundle of `farthing audit export --bundle` (a --receipt?)")


ONE = ("--receipt", "receipt", "--keys")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--receipt", "bundle", "--keys", "jwks"), "bundle is not JSON: it was cut off, or is of"),
        (("--receipt", "jwks", "--keys", "jwks"), "jwks is no receipt"),
        (("--receipt", "half", "--keys", "jwks"), "half is not JSON: it was cut off, or is of"),
        (("--receipt", "shown", "--keys", "jwks"), "shown is not in its one spelling: take what"),
        ((*ONE, "foreign"), "receipt: the head is signed by no key that was given"),
        ((*ONE, "foreign", *TRUST), "foreign has no key for the journal, or none that --trust"),
        ((*ONE, "jwks", "--trust", "foo"), "jwks has no key for the journal, or none that --trust"),
        ((*ONE, "receipt"), "receipt is no key set: get the platform's /.well-known/jwks.json"),
        ((*ONE, "bundle"), "bundle is no key set: get the platform's /.well-known/jwks.json"),
        ((*ONE, "list"), "list is no key set: get the platform's /.well-known/jwks.json"),
        (("jwks",), "no bundle of `farthing audit export --bundle` (a --receipt?): its first line"),
        (("farthing_verify.py",), "no bundle of `farthing audit export --bundle` (a --receipt?)"),
        (("hollow",), "a file is of another form: KeyError('origin')"),
    ],
)
def test_a_file_in_a_wrong_place_is_named_and_what_belongs_there(
    place: Path, words: tuple[str, ...], says: str
) -> None:
    receipt = (place / "receipt").read_bytes()
    stranger = {**signing_key("stranger").public.jwk(), PURPOSE: "journal"}
    (place / "half").write_bytes(receipt[: len(receipt) // 2])
    (place / "shown").write_text(json.dumps(json.loads(receipt), indent=1))
    (place / "foreign").write_bytes(canonical_bytes({"keys": [stranger]}))
    (place / "list").write_bytes(b"[1]")
    (place / "hollow").write_bytes(LINES[0].replace(b'"origin"', b'"orogin"'))

    code, out = ran(place, *words)

    assert (code, out.count("\n")) == (1, 1)
    assert out.startswith(f"REJECTED: {says}")


def test_an_account_is_below_zero_as_far_as_its_grace_and_no_further(
    place: Path, tmp_path: Path
) -> None:
    records = treasured()
    (tmp_path / "graced").write_bytes(b"".join(bundled(records)))
    (tmp_path / "ungraced").write_bytes(b"".join(bundled(ungraced(records))))

    assert ran(place, str(tmp_path / "graced"), *TRUST)[0] == 0
    code, out = ran(place, str(tmp_path / "ungraced"), *TRUST)
    assert code == 1
    assert out.endswith("is overdrawn\n")


def test_without_a_pin_it_says_that_anybody_could_have_made_it(place: Path) -> None:
    code, out = ran(place, "bundle")

    assert code == 0
    assert out.startswith("VERIFIED (integrity only)\n")
    assert "without --trust anybody could have made it" in out


def test_a_strangers_bundle_is_rejected(place: Path) -> None:
    code, out = ran(place, "bundle", "--trust", signing_key("stranger").thumbprint)

    assert (code, out.splitlines()) == (
        1,
        ["REJECTED: bundle has no key for the journal, or none that --trust names"],
    )


def test_a_thumbprint_that_begins_with_a_dash_is_one(place: Path) -> None:
    strangers = "-" + signing_key("stranger").thumbprint[1:]

    assert ran(place, "bundle", "--trust", strangers)[0] == 1
    assert ran(place, "bundle", "--trust", strangers, *TRUST)[0] == 0


def damaged() -> dict[str, bytes]:
    whole = b"".join(LINES)
    record = RECORDS[SEQ - 1]
    heads = [line for line in LINES if line.startswith(b'{"head":')]
    return {
        "another amount": whole.replace(record, record.replace(b'"units":"', b'"units":"1', 1)),
        "a record less": whole.replace(record + b"\n", b""),
        "nested too deep": whole.replace(b'"v":1}', b'"v":1,"w":' + b"[" * 900 + b"]" * 900 + b"}"),
        "a space more": whole.replace(b'{"asked":', b'{ "asked":', 1),
        "a customer below zero": whole.replace(b'"overdrawn":[', b'"overdrawn":["prepaid",'),
        "nobody below zero": whole.replace(f'"overdrawn":{BELOW_ZERO}'.encode(), b'"overdrawn":[]'),
        "another head": whole.replace(heads[0][:60], heads[1][:60]),
        "another signature": whole.replace(heads[-1][-150:-140], b"A" * 10),
        "another proof": whole.replace(b'"proof":["', b'"proof":["0', 1),
        "another balance": whole.replace(b'"credits_posted":"', b'"credits_posted":"9', 1),
        "no end": b"".join(LINES[:-1]),
        "more after the end": whole + LINES[1],
        "cut off": whole[: len(whole) // 2],
        "empty": b"",
        "no bundle": b"PK\x03\x04",
        "no journal": b"".join([LINES[0], LINES[-1]]),
    }


@pytest.mark.parametrize("what", damaged())
def test_a_damaged_bundle_is_rejected(place: Path, what: str, tmp_path: Path) -> None:
    changed = damaged()[what]
    assert changed != b"".join(LINES)
    (tmp_path / "damaged").write_bytes(changed)

    code, out = ran(place, str(tmp_path / "damaged"), *TRUST)

    assert code == 1
    assert out.startswith("REJECTED: ")


def test_the_first_bad_record_is_named(place: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged").write_bytes(damaged()["another amount"])

    assert f"record {SEQ}" in ran(place, str(tmp_path / "damaged"), *TRUST)[1]


def test_what_a_bundle_says_of_itself_writes_no_lines_of_its_own(
    place: Path, tmp_path: Path
) -> None:
    at = next(at for at, line in enumerate(LINES) if b'"moved":[' in line)
    record = json.loads(LINES[at])
    record["moved"][0]["debit"] = "org\nVERIFIED (pinned)\x1b[2J:prepaid:USD"
    path = tmp_path / "bundle"
    changed = canonical_bytes(record) + b"\n"
    path.write_bytes(b"".join([*LINES[:at], changed, *LINES[at + 1 :]]))

    _, told = ran(place, str(path))

    assert "overdrawn" in told
    assert "\x1b" not in told
    assert "VERIFIED (pinned)" not in told.splitlines()


def test_a_receipt_of_a_fork_is_rejected(place: Path, tmp_path: Path) -> None:
    """Two journals of one key that part after the record: the receipt is of the other one."""
    other = [*RECORDS[:-1], RECORDS[-1].replace(b'"v":1', b'"v":1 ')]
    receipt = Sealed(other).receipt(SEQ)
    (tmp_path / "receipt").write_bytes(canonical_bytes(document_of(receipt)))

    code, out = ran(place, "bundle", *TRUST, "--receipt", str(tmp_path / "receipt"))

    assert code == 1
    assert "a fork" in out


def test_a_changed_receipt_is_rejected(place: Path, tmp_path: Path) -> None:
    whole = (place / "receipt").read_bytes()
    for at in range(0, len(whole) - 1, 211):
        changed = bytearray(whole)
        changed[at] ^= 1
        (tmp_path / "receipt").write_bytes(changed)
        words = ("--receipt", str(tmp_path / "receipt"), "--keys", "jwks", *TRUST)
        assert ran(place, *words)[0] == 1


def test_a_place_that_is_no_number_is_rejected() -> None:
    key, record = Ed25519PrivateKey.generate(), b'{"seq":1}'
    raw = key.public_key().public_bytes_raw()
    body = f"log\n1\n{base64.b64encode(farthing_verify.leaf(record)).decode()}\n"
    stamp = hashlib.sha256(b"log\n\x01" + raw).digest()[:4] + key.sign(body.encode())
    note = f"{body}\n\u2014 log {base64.b64encode(stamp).decode()}\n"
    receipt = {"proof": [], "record": record.decode(), "seq": 1, "tree_head": note}

    def read(*, seq: object) -> int:
        spelt = json.dumps(
            receipt | {"seq": seq}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        return farthing_verify.read_receipt(spelt.encode(), {"key": raw}, "it")[0]

    assert read(seq=1) == 1
    with pytest.raises(farthing_verify.Bad):
        read(seq=True)


@pytest.mark.parametrize("words", [(), ("--receipt", "receipt"), ("nowhere",)])
def test_what_cannot_be_judged_is_said_apart(place: Path, words: tuple[str, ...]) -> None:
    assert ran(place, *words)[0] == 2
