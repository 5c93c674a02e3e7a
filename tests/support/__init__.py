"""Holds what tests stand on: workers, tenants, brokers, proxies, messages."""
