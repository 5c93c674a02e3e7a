"""The wire contract as an AsyncAPI 3 document, made of the topology and the models that the worker
itself has.
"""

from workers.asyncapi.document import document

__all__ = ["document"]
