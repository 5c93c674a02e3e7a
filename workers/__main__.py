"""`python -m workers` is `ecs-worker`."""

from workers.cli import main

if __name__ == "__main__":
    main()
