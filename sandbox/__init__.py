"""Private servers for the demo and the tests, on free ports of 127.0.0.1, stopped by the id they
were started with.
"""
