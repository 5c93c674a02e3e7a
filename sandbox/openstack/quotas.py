"""Quotas and usage of each project, and the words in which a service refuses what exceeds them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from sandbox.openstack.state import Image, Project, World
from sandbox.openstack.wire import ApiError, body_of, caller

_COMPUTE = {"instances": 2000, "cores": 20000, "ram": 40_000_000, "metadata_items": 128}
#: Properties of an image, and tags: Glance's `image_property_quota` and `image_tag_quota`.
_IMAGE_ITEMS = 128
TOO_LARGE = 413
_ALWAYS = {"per_volume_gigabytes", "volumes", "gigabytes"}


def limit_of(world: World, project: Project, name: str) -> int:
    """The most of something; -1 where there is no limit."""
    return world.quotas.get((project.id, name), _COMPUTE.get(name, -1))


def compute_usage(world: World, project: Project) -> dict[str, int]:
    """Return a project's usage of Nova's quotas."""
    mine = [one for one in world.servers.values() if one.project is project and not one.deleted]
    return {
        "instances": len(mine),
        "cores": sum(one.flavor.vcpus for one in mine),
        "ram": sum(one.flavor.ram for one in mine),
    }


def check_compute(world: World, project: Project, more: Mapping[str, int]) -> None:
    """`ApiError` where more is asked for than may be had; in Nova's words."""
    used = compute_usage(world, project)
    for what, asked in more.items():
        most = limit_of(world, project, what)
        if asked > 0 and 0 <= most < used[what] + asked:
            raise ApiError(
                403,
                f"Quota exceeded for {what}: Requested {asked}, but already used {used[what]} of {most} {what}",
            )


def check_metadata(world: World, project: Project, items: Mapping[str, str]) -> None:
    """`ApiError` where a server may not have so many items of metadata; in Nova's words."""
    most = limit_of(world, project, "metadata_items")
    if items and 0 <= most < len(items):
        raise ApiError(403, f"Maximum number of metadata items exceeds {most}")


def check_image(image: Image) -> None:
    """`ApiError` where an image has too many properties or tags; in Glance's words."""
    if len(image.properties) > _IMAGE_ITEMS:
        raise ApiError(TOO_LARGE, _limit("properties", len(image.properties)))
    if len(image.tags) > _IMAGE_ITEMS:
        told = f"Image tag limit exceeded for image {image.id}: "
        raise ApiError(TOO_LARGE, f"{told}{_limit('tags', len(image.tags))}:")


def _limit(what: str, attempted: int) -> str:
    told = f"The limit has been exceeded on the number of allowed image {what}."
    return f"{told} Attempted: {attempted}, Maximum: {_IMAGE_ITEMS}"


def volume_usage(world: World, project: Project) -> dict[str, int]:
    """Return a project's usage of Cinder's quotas, in all and by type."""
    used = {"per_volume_gigabytes": 0, "volumes": 0, "gigabytes": 0}
    used |= {f"{what}_{name}": 0 for name in world.types for what in ("volumes", "gigabytes")}
    for volume in world.volumes.values():
        if volume.project is project:
            for suffix in ("", f"_{volume.type}"):
                used[f"volumes{suffix}"] += 1
                used[f"gigabytes{suffix}"] += volume.size
    return used


def check_volumes(
    world: World, project: Project, kind: str, gigabytes: int, size: int, *, new: bool
) -> None:
    """`ApiError` where a volume of this type may not become so large; in Cinder's words, which
    never say to wait.

    Of an extension it always names the total, also where the type's is exceeded.
    """
    largest = limit_of(world, project, "per_volume_gigabytes")
    used = Counter(volume_usage(world, project)) + _reserved(world, project)
    if 0 <= largest < size:
        raise _over_limit(
            f"VolumeSizeExceedsLimit: Requested volume size {size}G is larger than maximum allowed limit {largest}G."
        )
    for suffix in ("", f"_{kind}"):
        most = limit_of(world, project, f"gigabytes{suffix}")
        if 0 <= most < used[f"gigabytes{suffix}"] + gigabytes:
            name = f"gigabytes{suffix}" if new else "gigabytes"
            raise _over_limit(
                f"VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed {name} "
                f"quota. Requested {gigabytes}G, quota is {limit_of(world, project, name)}G and {used[name]}G has been "
                "consumed."
            )
        most = limit_of(world, project, f"volumes{suffix}")
        if new and 0 <= most < used[f"volumes{suffix}"] + 1:
            raise _over_limit(
                f"VolumeLimitExceeded: Maximum number of volumes allowed ({most}) exceeded for quota 'volumes{suffix}'."
            )


def _over_limit(message: str) -> ApiError:
    return ApiError(413, message, retry_after="0")


def volume_quotas(world: World, project: Project) -> dict[str, Any]:
    """Cinder's quota set with what is used, and reserved for what is growing."""
    reserved = _reserved(world, project)
    return {
        name: {
            "limit": limit_of(world, project, name),
            "in_use": used,
            "reserved": reserved.get(name, 0),
        }
        for name, used in volume_usage(world, project).items()
    }


def _reserved(world: World, project: Project) -> Counter[str]:
    """Return what Cinder reserves for volumes that are being grown."""
    reserved: Counter[str] = Counter()
    for volume in world.volumes.values():
        if volume.project is project:
            reserved["gigabytes"] += volume.growing
            reserved[f"gigabytes_{volume.type}"] += volume.growing
    return reserved


def port_quota(world: World, project: Project) -> dict[str, int]:
    """Neutron's quota of ports."""
    used = sum(one["project_id"] == project.id for one in world.nets.ports.values())
    return {"limit": limit_of(world, project, "port"), "used": used, "reserved": 0}


def check_port(world: World, project: Project) -> None:
    """`ApiError` where no port may be added; in Neutron's words."""
    quota = port_quota(world, project)
    if 0 <= quota["limit"] <= quota["used"]:
        raise ApiError(409, "Quota exceeded for resources: ['port'].", kind="OverQuota")


async def change(world: World, request: Request, name: str, refusal: str) -> dict[str, int]:
    """Set the quotas in the body's object of this name, as an admin. Others get the service's
    refusal.
    """
    if not caller(request).is_admin:
        raise ApiError(403, refusal, kind="PolicyNotAuthorized")
    wanted: dict[str, int] = (await body_of(request))[name]
    wanted.pop("force", None)
    world.quotas |= {
        (request.path_params["project_id"], what): most for what, most in wanted.items()
    }
    return wanted
