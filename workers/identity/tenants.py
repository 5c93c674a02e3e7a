"""From what a tenant is called to its project."""

from handlers.cloud import Cloud
from messages.errors import Refused
from workers.identity.requester import NotProven


async def project_of(cloud: Cloud, proven: str, said: str | None) -> str:
    """The id of the project that is proven (its id or name), or `NotProven` where the message itself says another.

    Projects are compared, not words: one may say the id and the other the name.
    """
    project = await _find(cloud, proven, "the service account has no role in the project that is proven")
    if said is not None and said != proven:
        other = await _find(cloud, said, "the service account has no role in the tenant_id's project")
        if other != project:
            raise NotProven("the tenant_id is not the project that is proven")
    return project


async def _find(cloud: Cloud, name: str, otherwise: str) -> str:
    try:
        return (await cloud.find_project(name)).id
    except Refused:
        raise NotProven(otherwise) from None
