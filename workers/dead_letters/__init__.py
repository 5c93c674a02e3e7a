"""Parked messages in an operator's hand: read, judged, put in again, thrown away."""
