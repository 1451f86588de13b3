"""Exploration: the separate modes of a posterior, before anything is trained."""

from numpyro_onestep.exploration.between import bhattacharyya
from numpyro_onestep.exploration.centring import Centring, choose_centring
from numpyro_onestep.exploration.conditional import choose_conditional
from numpyro_onestep.exploration.modes import MIN_WITNESSES, Exploration, explore
from numpyro_onestep.exploration.partition import Component, Partition
from numpyro_onestep.exploration.tempering import Particles, temper

__all__ = [
    "MIN_WITNESSES",
    "Centring",
    "Component",
    "Exploration",
    "Particles",
    "Partition",
    "bhattacharyya",
    "choose_centring",
    "choose_conditional",
    "explore",
    "temper",
]
