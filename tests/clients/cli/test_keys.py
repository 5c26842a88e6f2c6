"""Keys from the terminal: metering keys, and those of the platform that a home pins."""

import json
from pathlib import Path

from farthing.clients.keys import load_key
from farthing.protocol.platform_keys import PURPOSE
from tests.clients.cli.running import answer, run, serving


def test_a_vendor_registers_lists_and_revokes_a_metering_key(tmp_path: Path) -> None:
    file = tmp_path / "machine.jwk"
    with serving(tmp_path / "data") as market:
        at = {"FARTHING_URL": market.url}
        selling = {**at, "FARTHING_HOME": str(tmp_path / "vendor")}
        enrolled = answer("enrol", "--kind", "vendor", "--name", "Pages", **selling)
        vendor_id = enrolled["principal_id"]
        pending = run("keys", "add-metering", str(file), **selling)
        answer("approve", vendor_id, "--key", market.admin_key, **at)
        added = answer("keys", "add-metering", str(file), **selling)
        again = answer("keys", "add-metering", str(file), **selling)
        machine = load_key(file)
        refused = run("balance", "--key", str(file), **selling)
        listed = run("keys", "list", **selling)
        answer("keys", "revoke", vendor_id, machine.thumbprint, **selling)
        (main, ended) = answer("keys", "list", **selling)["keys"]

    assert (pending.code, "registration_pending" in pending.err) == (1, True)
    assert added == again
    assert (added["key_thumbprint"], added["purpose"]) == (machine.thumbprint, "metering")
    assert (refused.code, "not_permitted" in refused.err) == (1, True)
    assert "metering" in listed.out
    assert "everything" in listed.out
    assert (main["purpose"], main["status"], main["until"]) == ("", "active", "")
    assert (ended["purpose"], ended["status"]) == ("metering", "revoked")


def test_a_home_whose_pins_say_no_purpose_is_pinned_anew_as_it_is_told(tmp_path: Path) -> None:
    home = tmp_path / "operator"
    profile = home / "profile.json"
    with serving(tmp_path / "data") as market:
        at = {"FARTHING_HOME": str(home), "FARTHING_URL": market.url}
        answer("enrol", "--kind", "operator", "--name", "Operator", **at)
        written = json.loads(profile.read_bytes())
        for jwk in written["platform_keys"]:
            del jwk[PURPOSE]
        profile.write_text(json.dumps(written))
        refused = run("whoami", **at)
        profile.rename(home / "profile.old")
        trust = ("--trust", market.journal_thumbprint)
        pinned = answer("keys", "pin", *trust, "--url", market.url, FARTHING_HOME=str(home))
        published = answer("keys", "platform", **at)
        (front,) = published.keys() - {market.journal_thumbprint}
        misled = run("keys", "pin", "--trust", front, **at)

    assert refused.code == 1
    told = f"then farthing keys pin --url {market.url} --trust THUMBPRINT"
    assert told in " ".join(refused.err.split())
    assert (pinned["principal_id"], pinned["role"]) == (written["principal_id"], "operator")
    assert published == {market.journal_thumbprint: "journal, pinned", front: "platform, pinned"}
    assert (misled.code, "and no receipt" in " ".join(misled.err.split())) == (1, True)
