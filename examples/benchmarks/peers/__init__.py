"""This package and its peers behind one contract; `base` has it, `PEERS` lists them."""

from functools import partial

from named import named
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


by_name = partial(named, PEERS)
