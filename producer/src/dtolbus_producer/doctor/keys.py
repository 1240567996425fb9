"""Who can reach the gateway, and with which keys."""

from pathlib import Path

from dtolbus.errors import CannotStartError
from dtolbus.keyring import AllowedKeys, KeyRing
from dtolbus_producer.addresses import insecure
from dtolbus_producer.config import GatewayConfig
from dtolbus_producer.doctor.finding import Finding


def examine_keys(data: Path, gateway: GatewayConfig) -> Finding:
    """Tell how the gateway that is configured keeps strangers out."""
    try:
        guarded = gateway.protection()
        if guarded == "none":
            return Finding("keys", "warning", insecure(gateway.host), "leave --insecure-lan out, and make keys")
        if guarded == "loopback":
            return Finding(
                "keys",
                "ok",
                f"not asked for: only this machine ({gateway.host}) is served",
                "for other machines: `dtolbus keys new NAME`, and --host 0.0.0.0",
            )
        ring = KeyRing(data)
        if ring.server() is None:
            return Finding("keys", "ok", "none yet: `dtolbus up` makes those of its sinks, `dtolbus keys new` others")
        return Finding("keys", "ok", f"{len(AllowedKeys(ring.allowed_folder).read())} allowed: `dtolbus keys list`")
    except (CannotStartError, OSError) as error:
        return Finding("keys", "problem", str(error), "mend that, or make them anew with `dtolbus keys`")
