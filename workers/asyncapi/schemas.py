"""JSON schemas of models as `components.schemas` that code generators can name.

A generator makes a class of each object, enumeration and union. One that stands inside another
schema has no name of its own: it is moved out, under the name of its owner and its property.
"""

from collections.abc import Mapping

from messages.fields import Schema

#: Keywords whose value is a schema, a list of schemas, and schemas by name.
_ONE = ("items", "additionalProperties", "not", "contains")
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties")
_NULL: Schema = {"type": "null"}
#: Titles of fields repeat their names. OpenAPI's discriminator is not AsyncAPI's.
_DROPPED = ("title", "discriminator")


def reference(name: str) -> dict[str, str]:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def named(schemas: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return the schemas by name, and beside them those that were inside them."""
    found: dict[str, Schema] = {}
    for name, schema in schemas.items():
        _add(name, _flat(schema, name, found), found)
    return dict(sorted(found.items()))


def _add(name: str, schema: Schema, found: dict[str, Schema]) -> None:
    if found.setdefault(name, {"title": name} | schema) != {"title": name} | schema:
        raise ValueError(f"two schemas are named {name}")


def _flat(schema: Schema, name: str, found: dict[str, Schema]) -> Schema:
    """The schema, with references in place of what needs a name; `name` is its own."""
    made = _nullable(_told(schema))
    if isinstance(made.get("default"), list | dict):
        del made["default"]  # generators write it out as it is, which is not Java
    for key in _ONE:
        if isinstance(made.get(key), dict):
            made[key] = _moved(made[key], name.removesuffix("s"), found)
    for key in _SEVERAL:
        if key in made:
            options = enumerate(made[key], 1)
            made[key] = [_moved(one, f"{name}{number}", found) for number, one in options]
    for key in _NAMED:
        if key in made:
            fields = made[key].items()
            made[key] = {one: _moved(inner, name + _words(one), found) for one, inner in fields}
    return {key: value for key, value in made.items() if key not in _DROPPED}


def _moved(schema: Schema, name: str, found: dict[str, Schema]) -> Schema:
    """The schema, or a reference to it where it needs a name."""
    made = _flat(schema, name, found)
    options = [*made.get("anyOf", ()), *made.get("oneOf", ())]
    references = [one["$ref"].rpartition("/")[2] for one in options if "$ref" in one]
    if len(references) == 1 and _NULL in options and len(options) == 2:
        name = f"Nullable{references[0]}"
        description = {key: made.pop(key) for key in ("description",) if key in made}
        _add(name, made, found)
        return reference(name) | description
    if not references and "properties" not in made and len(made.get("enum", ())) < 2:
        return made
    _add(name, made, found)
    return reference(name)


def _told(schema: Schema) -> Schema:
    """Alternatives of an object that only say which fields must be there, told in its description.

    A generator would make a class of each.
    """
    made = dict(schema)
    for key, count in (("oneOf", "Exactly one"), ("anyOf", "At least one")):
        if "properties" in made and all("required" in one for one in made.get(key, [{}])):
            fields = ", ".join(f"`{'`, `'.join(one['required'])}`" for one in made.pop(key))
            text = f"{made.get('description', '')} {count} of {fields} must be there."
            made["description"] = text.strip()
    return made


def _nullable(schema: Schema) -> Schema:
    """`anyOf` of one type and null, written as that type or null; of a reference it stays."""
    options = [one for one in schema.get("anyOf", ()) if one != _NULL]
    if len(options) != 1 or not isinstance(options[0].get("type"), str) or "const" in options[0]:
        return schema
    (one,) = options
    enum = {"enum": [*one["enum"], None]} if "enum" in one else {}
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**one, **rest, "type": [one["type"], "null"], **enum}


def _words(field: str) -> str:
    """Return `os-stop`, `server_id` and `pageNo` as OsStop, ServerId and PageNo."""
    words = "".join(one if one.isalnum() else " " for one in field).split()
    return "".join(word[0].upper() + word[1:] for word in words)
