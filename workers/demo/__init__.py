"""`ecs-worker demo`: broker, journal, cloud, worker and its users on one machine."""
