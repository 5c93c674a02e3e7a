"""A client of ecs-worker for publishers: needs kombu and pydantic, and no part of the worker."""
