"""Which static address a new container gets."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from ipaddress import IPv4Network


def candidate_addresses(subnet: str, key: str, used: Collection[str]) -> Iterator[str]:
    """Given a subnet, return the free addresses of its lower half in the order in which `key` should try them.

    The start is a hash of `key` (the container's name), so two controllers that work on different services at once
    seldom want the same one. The network's own address and the first one (Docker's gateway) are never given out; the
    upper half belongs to dynamic addresses.
    """
    network = IPv4Network(subnet)
    first = int(network.network_address) + 2
    count = network.num_addresses // 2 - 2
    if count <= 0:
        return
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % count
    for step in range(count):
        address = str(network.network_address + (first - int(network.network_address)) + (start + step) % count)
        if address not in used:
            yield address


def dynamic_range(subnet: str) -> str:
    """Upper half of a subnet, where Docker takes dynamic addresses from."""
    return str(list(IPv4Network(subnet).subnets())[1])
