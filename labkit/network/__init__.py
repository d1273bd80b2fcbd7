"""Bridges, endpoints, published ports and names of containers."""

from labkit.network.network import ANSWER_SECONDS, Endpoint, Network, Publish

__all__ = ["ANSWER_SECONDS", "Endpoint", "Network", "Publish"]
