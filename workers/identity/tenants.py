"""From what a tenant is called to its project."""

from handlers.openstack.cloud import Cloud
from handlers.openstack.keystone import TenantIs
from messages.errors import Refused
from workers.identity.requester import NotProven


async def project_of(
    cloud: Cloud, proven: str, said: str | None, proven_as: TenantIs | None = None
) -> str:
    """Return the id of the project that is proven, or raise `NotProven` where the message itself
    says another.

    `proven` is an id or a name, as `proven_as` says; None: either. Projects are compared, not
    words: one may say the id and the other the name.
    """
    project = await _find(cloud, proven, proven_as, "the project that is proven")
    if said is not None and (said != proven or proven_as is not None):
        other = await _find(cloud, said, None, "the tenant_id's project")
        if other != project:
            raise NotProven("the tenant_id is not the project that is proven")
    return project


async def _find(cloud: Cloud, tenant: str, written: TenantIs | None, which: str) -> str:
    try:
        return (await cloud.find_project(tenant, written)).id
    except Refused as refused:
        raise NotProven(f"{which}: {refused.detail}") from None
