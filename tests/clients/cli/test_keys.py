"""Metering keys from the terminal: registered, listed, revoked."""

from pathlib import Path

from farthing.clients.keys import load_key
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
