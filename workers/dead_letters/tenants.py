"""Looking up the tenants that a selection names: a message may name its project by id or by name."""

from dataclasses import replace

from handlers.openstack.cloud import Cloud
from handlers.openstack.errors import CloudRefusal
from messages.errors import Refused, Transient
from workers.bootstrap import cloud_settings
from workers.dead_letters.selection import Selection
from workers.settings import Settings


class CannotBeFound(Exception):
    """A project cannot be looked up; the text says why."""


async def project_id(settings: Settings, tenant: str) -> str:
    """Return the id of the project with this id or name. Raises `CannotBeFound`."""
    cloud = Cloud(replace(cloud_settings(settings), read_only=True))
    try:
        return (await cloud.find_project(tenant)).id
    except (Refused, Transient, CloudRefusal) as error:
        raise CannotBeFound(str(error)) from error
    finally:
        await cloud.close()


async def resolve_tenants(settings: Settings, selection: Selection) -> tuple[Selection, list[str]]:
    """Return the selection with id and name of each tenant, and a line for each that could not be
    looked up: of those only messages are selected that name it by the same word.
    """
    tenants, unknown = list(selection.tenants), []
    cloud = Cloud(replace(cloud_settings(settings), read_only=True))
    try:
        for tenant in selection.tenants:
            try:
                project = await cloud.find_project(tenant)
            except (Refused, Transient, CloudRefusal) as error:
                unknown.append(f"{tenant}: {error}")
            else:
                tenants += [one for one in (project.id, project.name) if one not in tenants]
    finally:
        await cloud.close()
    return replace(selection, tenants=tuple(tenants)), unknown
