"""An issuer of tokens, as Keycloak would be: keys, tokens, and the key set as a file or over HTTP."""

import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

from sandbox.processes import PrivateServer

USER = "f679eb23-f74d-477a-a31f-a656d71604ed"
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256")


class Issuer:
    """Keys and what is signed with them."""

    def __init__(self, name: str = "https://iam.example/auth/realms/picp") -> None:
        self.name = name
        self.keys: dict[str, RSAKey | ECKey] = {}
        self.kid = self.rotate()

    def rotate(self, kind: str = "RSA", *, forget: bool = False) -> str:
        """Begin to sign with a new key, whose id is returned; `forget` takes the others out of the
        set.
        """
        if forget:
            self.keys.clear()
        self.kid = uuid.uuid4().hex
        self.keys[self.kid] = (
            RSAKey.generate_key(2048) if kind == "RSA" else ECKey.generate_key("P-256")
        )
        return self.kid

    def claims(self, **claims: Any) -> dict[str, Any]:
        """The claims of a token of Keycloak's for the API document's user; None takes a claim away."""
        now = int(time.time())
        usual = {
            "jti": str(uuid.uuid4()),
            "exp": now + 300,
            "nbf": 0,
            "iat": now,
            "iss": self.name,
            "aud": [
                "insight",
                "realm-management",
                "iot-hub",
                "client-gaoss",
                "db-service",
                "account",
                "rds-mysql-api",
            ],
            "sub": USER,
            "typ": "Bearer",
            "azp": "console",
            "nonce": str(uuid.uuid4()),
            "auth_time": now,
            "session_state": str(uuid.uuid4()),
            "acr": "1",
            "allowed-origins": ["*"],
            "realm_access": {"roles": ["ACCOUNT_ADMIN", "offline_access", "uma_authorization"]},
            "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
            "scope": "openid",
            "project": "gaoss",
            "groups": ["/group-gaoss"],
            "preferred_username": "gaoss",
        }
        return {name: value for name, value in (usual | claims).items() if value is not None}

    def token(
        self, *, kid: str | None = None, header: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        """A token signed with the newest key, or that of this id."""
        kid = kid or self.kid
        key = self.keys[kid]
        protected = {"alg": _algorithm(key), "typ": "JWT", "kid": kid} | (header or {})
        # A parameter that is None is left out; whatever else is asked for is signed, sensible or
        # not.
        protected = {name: value for name, value in protected.items() if value is not None}
        registry = JWSRegistry(algorithms=_ALGORITHMS, strict_check_header=False)
        return jws.serialize_compact(
            protected, json.dumps(self.claims(**claims)), key, registry=registry
        )

    def sign(self, signed: bytes) -> bytes:
        """A signature of anything, with the newest key (RS256)."""
        key = self.keys[self.kid]
        private = key.private_key
        assert isinstance(private, RSAPrivateKey)
        return private.sign(signed, padding.PKCS1v15(), hashes.SHA256())

    def key_set(self) -> bytes:
        """The public keys, with one to encrypt with as Keycloak has it besides."""
        listed = [
            {**key.as_dict(private=False), "kid": kid, "use": "sig", "alg": _algorithm(key)}
            for kid, key in self.keys.items()
        ]
        unlike = {
            **RSAKey.generate_key(2048).as_dict(private=False),
            "kid": "enc",
            "use": "enc",
            "alg": "RSA-OAEP",
        }
        return json.dumps({"keys": [*listed, unlike]}).encode()

    def write(self, path: Path) -> Path:
        """The key set as a file."""
        path.write_bytes(self.key_set())
        return path


def _algorithm(key: RSAKey | ECKey) -> str:
    return "RS256" if isinstance(key, RSAKey) else "ES256"


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing on stderr: a client that is gone before its answer is no error of the server."""


class KeySetServer(PrivateServer):
    """The issuer's key set over HTTP on 127.0.0.1; a context manager. `asked` are the paths that
    were asked for.
    """

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self.asked: list[str] = []
        #: What is answered instead of the key set: a status, headers and a body.
        self.instead: tuple[int, dict[str, str], bytes] | None = None
        #: Seconds before anything is answered.
        self.delay = 0.0
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The URL of the key set."""
        return f"http://127.0.0.1:{self._port}/certs"

    def start(self) -> Self:
        """Begin to answer; after `stop`, on the same port as before."""
        self._server = _Server(("127.0.0.1", self._port), self._handler())
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                time.sleep(server.delay)
                usual = (200, {"Content-Type": "application/json"}, server._issuer.key_set())
                status, headers, body = server.instead or usual
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        return Handler
