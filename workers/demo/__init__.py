"""`ecs-worker demo`: broker, journal, cloud, worker and their users on one machine, for a minute."""
