"""Keystone: versions, log-in by password, the catalogue, the projects one has a role in."""

import uuid
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.openstack.state import Project, Token, User, World
from sandbox.openstack.wire import ApiError, Caller, body_of, caller, root_of

_DOMAIN = {"id": "default", "name": "Default"}
_SERVICES = (
    ("identity", "keystone", "/identity/v3"),
    ("compute", "nova", "/compute/v2.1"),
    ("volumev3", "cinder", "/volume/v3"),
    ("image", "glance", "/image"),
    ("network", "neutron", "/network"),
)
#: What a token that was not scoped is for.
_NO_PROJECT = Project("", "")
_UNAUTHORIZED = "The request you have made requires authentication."


class Keystone:
    """The part of the API that is called."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: Answers to `/auth/projects` by user. Keystone caches them for ten minutes unless a role
        #: is given or taken: a project's new name does not show there.
        self._listed: dict[str, list[dict[str, Any]]] = {}

    def routes(self) -> list[Route]:
        """The handler of each call."""
        return [
            Route("/", self.versions),
            Route("/v3", self.version),
            Route("/v3/", self.version),
            Route("/v3/auth/tokens", self.log_in, methods=["POST"]),
            Route("/v3/auth/projects", self.projects),
            Route("/v3/projects", self.create_project, methods=["POST"]),
            Route("/v3/projects/{project_id}", self.rename_project, methods=["PATCH"]),
            Route(
                "/v3/projects/{project_id}/users/{user_id}/roles/{role_id}",
                self.grant,
                methods=["PUT"],
            ),
            Route("/v3/users", self.users),
            Route("/v3/users", self.create_user, methods=["POST"]),
            Route("/v3/users/{user_id}", self.delete_user, methods=["DELETE"]),
            Route("/v3/users/{user_id}", self.change_password, methods=["PATCH"]),
            Route(
                "/v3/users/{user_id}/application_credentials",
                self.create_credential,
                methods=["POST"],
            ),
            Route("/v3/roles", self.roles),
        ]

    async def versions(self, request: Request) -> Response:
        return JSONResponse({"versions": {"values": [_version(request)]}}, 300)

    async def version(self, request: Request) -> Response:
        return JSONResponse({"version": _version(request)})

    async def log_in(self, request: Request) -> Response:
        token = _token_for(self._world, (await body_of(request)).get("auth", {}))
        key = uuid.uuid4().hex
        self._world.tokens[key] = token
        return JSONResponse(
            _described(token, request, self._world.region), 201, {"X-Subject-Token": key}
        )

    async def projects(self, request: Request) -> Response:
        user = caller(request).user
        if user.id not in self._listed:
            self._listed[user.id] = [_project(self._world.projects[one]) for one in user.projects]
        listed = self._listed[user.id]
        return JSONResponse(
            {
                "projects": listed,
                "links": {"next": None, "self": str(request.url), "previous": None},
            }
        )

    async def create_project(self, request: Request) -> Response:
        _check_admin(request)
        wanted = (await body_of(request))["project"]
        self._check_free(wanted["name"])
        project = Project(uuid.uuid4().hex, wanted["name"])
        self._world.projects[project.id] = project
        return JSONResponse({"project": _project(project)}, 201)

    async def rename_project(self, request: Request) -> Response:
        _check_admin(request)
        project = self._found(request.path_params["project_id"])
        wanted = (await body_of(request))["project"]
        self._check_free(wanted["name"])
        project.name = wanted["name"]
        return JSONResponse({"project": _project(project)})

    async def grant(self, request: Request) -> Response:
        _check_admin(request)
        project = self._found(request.path_params["project_id"])
        user = self._user_of(request)
        self._listed.clear()
        if project.id not in user.projects:
            user.projects = (*user.projects, project.id)
        return Response(status_code=204)

    async def users(self, request: Request) -> Response:
        _check_admin(request)
        name = request.query_params.get("name")
        return JSONResponse(
            {
                "users": [
                    _user(one) for one in self._world.users.values() if name in (None, one.name)
                ]
            }
        )

    async def create_user(self, request: Request) -> Response:
        """Create a user, with the sandbox's password where none is given, and without a role."""
        _check_admin(request)
        wanted = (await body_of(request))["user"]
        name = wanted["name"]
        user = User(uuid.uuid4().hex, name, ())
        user.password = wanted.get("password", user.password)
        self._world.users[name] = user
        return JSONResponse({"user": _user(self._world.users[name])}, 201)

    async def delete_user(self, request: Request) -> Response:
        _check_admin(request)
        del self._world.users[self._user_of(request).name]
        return Response(status_code=204)

    async def change_password(self, request: Request) -> Response:
        """With the old password the tokens that it was given for are over, too."""
        _check_admin(request)
        user = self._user_of(request)
        user.password = (await body_of(request))["user"]["password"]
        for key, token in list(self._world.tokens.items()):
            if token.user is user:
                del self._world.tokens[key]
        return JSONResponse({"user": _user(user)})

    async def create_credential(self, request: Request) -> Response:
        """An application credential of the caller's, for the project that he is in."""
        found = caller(request)
        if found.user.id != request.path_params["user_id"]:
            raise ApiError(403, "You are not authorized to perform the requested action.")
        name = (await body_of(request))["application_credential"]["name"]
        key, secret = uuid.uuid4().hex, uuid.uuid4().hex
        self._world.credentials[key] = (secret, found.user, found.project)
        shown = {
            "id": key,
            "name": name,
            "secret": secret,
            "project_id": found.project.id,
            "unrestricted": False,
        }
        return JSONResponse({"application_credential": shown}, 201)

    async def roles(self, request: Request) -> Response:
        _check_admin(request)
        names = [
            name for name in ("member", "admin") if request.query_params.get("name") in (None, name)
        ]
        return JSONResponse({"roles": [{"id": name, "name": name} for name in names]})

    def _user_of(self, request: Request) -> User:
        wanted = request.path_params["user_id"]
        return next(one for one in self._world.users.values() if one.id == wanted)

    def _found(self, project_id: str) -> Project:
        project = self._world.projects.get(project_id)
        if project is None:
            raise ApiError(404, f"Could not find project: {project_id}.")
        return project

    def _check_free(self, name: str) -> None:
        if any(one.name == name for one in self._world.projects.values()):
            raise ApiError(
                409,
                "Conflict occurred attempting to store project - it is not permitted to have two "
                f"projects with the same name in the same domain : {name}.",
            )


def _check_admin(request: Request) -> None:
    if not caller(request).is_admin:
        raise ApiError(403, "You are not authorized to perform the requested action.")


def identify(world: World, token: str | None) -> Caller | None:
    """Return the user and the project of a token; None for one that is unknown or over."""
    found = world.tokens.get(token or "")
    if found is None or found.expires < datetime.now(UTC):
        return None
    return Caller(found.user, found.project)


def _token_for(world: World, auth: dict[str, Any]) -> Token:
    if "application_credential" in auth.get("identity", {}).get("methods", ()):
        return _token_by_credential(world, auth)
    given = auth.get("identity", {}).get("password", {}).get("user", {})
    user = world.users.get(given.get("name"))
    if user is None or given.get("password") != user.password:
        raise ApiError(401, _UNAUTHORIZED)
    if "scope" not in auth:
        return Token(user, _NO_PROJECT, datetime.now(UTC))
    wanted = auth.get("scope", {}).get("project", {})
    for project_id in user.projects:
        project = world.projects[project_id]
        if wanted.get("id") == project.id or wanted.get("name") == project.name:
            return Token(user, project, datetime.now(UTC))
    raise ApiError(401, _UNAUTHORIZED)


def _token_by_credential(world: World, auth: dict[str, Any]) -> Token:
    """Log in by an application credential, which is of one project and cannot ask for another:
    Keystone says no more of that than of a wrong password.
    """
    given = auth["identity"]["application_credential"]
    secret, user, project = world.credentials.get(given.get("id"), (None, None, None))
    if "scope" in auth or user is None or project is None or given.get("secret") != secret:
        raise ApiError(401, _UNAUTHORIZED)
    return Token(user, project, datetime.now(UTC))


def _described(token: Token, request: Request, region: str) -> dict[str, Any]:
    base = root_of(request).removesuffix("/identity")
    described: dict[str, Any] = {
        "methods": ["password"],
        "user": _user(token.user),
        "issued_at": _time(token.issued),
        "expires_at": _time(token.expires),
    }
    if token.project is not _NO_PROJECT:
        described |= {
            "is_domain": False,
            "project": {"id": token.project.id, "name": token.project.name, "domain": _DOMAIN},
            "roles": [{"id": uuid.uuid4().hex, "name": "admin" if token.user.admin else "member"}],
            "catalog": [
                _service(kind, name, base + path, region) for kind, name, path in _SERVICES
            ],
        }
    return {"token": described}


def _service(kind: str, name: str, url: str, region: str) -> dict[str, Any]:
    endpoints = [
        {
            "id": uuid.uuid4().hex,
            "interface": interface,
            "region": one,
            "region_id": one,
            "url": url,
        }
        for one in region.split(",")
        for interface in ("public", "internal", "admin")
    ]
    return {"id": uuid.uuid4().hex, "type": kind, "name": name, "endpoints": endpoints}


def _user(user: User) -> dict[str, Any]:
    return {"id": user.id, "name": user.name, "domain": _DOMAIN, "password_expires_at": None}


def _project(project: Project) -> dict[str, Any]:
    return {
        "id": project.id,
        "name": project.name,
        "domain_id": "default",
        "enabled": True,
        "is_domain": False,
    }


def _version(request: Request) -> dict[str, Any]:
    base = root_of(request)
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{base}/v3/"}],
        "media-types": [
            {"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}
        ],
    }


def _time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
