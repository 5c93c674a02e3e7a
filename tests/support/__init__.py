"""Holds what tests stand on: workers, tenants, brokers, proxies, messages."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
