"""One message's way through the worker, as it really goes: traced in a worker's process, counted
and shown.
"""
