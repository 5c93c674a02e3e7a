"""A simulated cloud as JSON, so that another process goes on with it.

An object is written where it is met first, with a number, and by that number wherever else it is
met. What runs, tokens and the log of calls are not kept; the log of executed calls is.
"""

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sandbox.openstack import faults, state

_CLASSES = {
    one.__name__: one
    for one in (
        *(state.Project, state.User, state.Flavor, state.Image, state.Volume, state.Snapshot),
        *(state.Event, state.Action, state.Server, faults.Rule),
    )
}
#: Attributes of `World` that are kept.
_KEPT = (
    *("without", "newest", "executed", "projects", "users", "credentials", "flavors", "images"),
    *("types", "shared_types", "zones", "volume_zones", "keys", "volumes", "snapshots"),
    *("servers", "quotas", "reclaim_interval"),
)
#: Fields that are no data.
_BEGIN_ANEW = ("on_its_host",)
_NETS = ("networks", "subnets", "ports", "routers", "floating_ips", "security_groups")


def save(world: state.World) -> dict[str, Any]:
    """Return the world as JSON values; nothing may be under way in it."""
    numbers: dict[int, int] = {}

    def encode_object(value: Any) -> Any:
        if id(value) in numbers:
            return {"$ref": numbers[id(value)]}
        number = numbers[id(value)] = len(numbers)
        names = [one.name for one in dataclasses.fields(value) if one.name not in _BEGIN_ANEW]
        fields = {name: encode(getattr(value, name)) for name in names}
        return {"$is": type(value).__name__, "$number": number, **fields}

    def encode_mapping(value: dict[Any, Any]) -> Any:
        if all(isinstance(key, str) for key in value):
            return {key: encode(one) for key, one in value.items()}
        return {"$pairs": [[encode(key), encode(one)] for key, one in value.items()]}

    def encode(value: Any) -> Any:
        for kind, function in encoders.items():
            if isinstance(value, kind):
                return function(value)
        return encode_object(value) if dataclasses.is_dataclass(value) else value

    encoders: dict[type, Callable[[Any], Any]] = {
        datetime: lambda time: {"$time": time.isoformat()},
        tuple: lambda listed: {"$tuple": [encode(one) for one in listed]},
        set: lambda members: {"$set": [encode(one) for one in sorted(members)]},
        list: lambda listed: [encode(one) for one in listed],
        dict: encode_mapping,
    }
    kept = {name: encode(getattr(world, name)) for name in _KEPT}
    kept["nets"] = {name: encode(getattr(world.nets, name)) for name in _NETS}
    kept["rules"] = encode(world.faults.rules)
    return kept


def load(world: state.World, saved: Mapping[str, Any], later: float) -> None:
    """Make the world what was saved; all of its times are `later` seconds later."""
    objects: dict[int, Any] = {}

    def decode(value: Any) -> Any:
        if isinstance(value, list):
            return [decode(one) for one in value]
        if not isinstance(value, dict):
            return value
        for key, make in special.items():
            if key in value:
                return make(value[key])
        if "$is" not in value:
            return {key: decode(one) for key, one in value.items()}
        fields = {key: decode(one) for key, one in value.items() if not key.startswith("$")}
        made = objects[value["$number"]] = _CLASSES[value["$is"]](**fields)
        return made

    special: dict[str, Callable[[Any], Any]] = {
        "$ref": lambda number: objects[number],
        "$time": lambda text: datetime.fromisoformat(text) + timedelta(seconds=later),
        "$tuple": lambda listed: tuple(decode(one) for one in listed),
        "$set": lambda listed: {decode(one) for one in listed},
        "$pairs": lambda pairs: {decode(key): decode(one) for key, one in pairs},
    }
    for name in _KEPT:
        setattr(world, name, decode(saved[name]))
    world.nets.restore({name: decode(saved["nets"][name]) for name in _NETS})
    world.faults.rules[:] = decode(saved["rules"])
