"""Real parts for a demo and for tests on one machine: a private broker, a simulated OpenStack."""
