"""`ecs-worker demo`: broker, journal, cloud, worker and their users on one machine, for half a
minute.
"""
