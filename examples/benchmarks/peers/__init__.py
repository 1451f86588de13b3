"""This package and its peers behind one contract; `base` has it, `PEERS` lists them."""

from peers import (
    blackjax_nested,
    blackjax_smc,
    host_nested,
    nutpie_nuts,
    nuts,
    onestep,
    pocomc_smc,
    svi,
)
from peers.base import Peer

PEERS: tuple[Peer, ...] = (
    *onestep.PEERS,
    *nuts.PEERS,
    *nutpie_nuts.PEERS,
    *svi.PEERS,
    *blackjax_smc.PEERS,
    *blackjax_nested.PEERS,
    *host_nested.PEERS,
    *pocomc_smc.PEERS,
)


def by_name(name: str) -> Peer:
    """The peer called `name`.

    Raises:
        ValueError: there is none.
    """
    for peer in PEERS:
        if peer.name == name:
            return peer
    raise ValueError(f"expected one of {', '.join(peer.name for peer in PEERS)}; got {name!r}")
