"""`make bench`: what a message costs in this worker and, in the same run, in Celery."""
