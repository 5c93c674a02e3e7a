"""The configuration: environment variables, and `.env` in the working directory."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from handlers.openstack.keystone import TenantIs
from messages.fields import MAX_NAME
from workers.amqp.broker import Broker, BrokerUnusable, check_files, read_secret, read_urls
from workers.amqp.names import DEFAULT_NAMESPACE, Names, check_namespace
from workers.amqp.topology import DEFAULT_RETRY_DELAYS
from workers.identity.jwks_source import is_url
from workers.tracing import Traces, TracingMisconfigured
from workers.tracing import wanted as traces_wanted

#: Requests of a queue that are begun at once.
DEFAULT_CONCURRENCY = 500
Seconds = Annotated[float, Field(gt=0, le=86400 * 30)]


_Kind = TypeVar("_Kind", bound=BaseSettings)


class ConfigurationError(Exception):
    """The configuration is wrong; `problems` has a line for each value."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class TopologySettings(BaseSettings):
    """Settings that name exchanges and queues: all that is needed to show the topology."""

    model_config = SettingsConfigDict(
        env_prefix="ECS_",
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over `.env`; an empty variable counts as not set, and hides the
        one in `.env`.
        """
        assert isinstance(env_settings, EnvSettingsSource)
        assert isinstance(dotenv_settings, EnvSettingsSource)
        given = {**dotenv_settings.env_vars, **env_settings.env_vars}
        env_settings.env_vars = {
            name: value.strip()
            for name, value in given.items()
            if value is not None and value.strip()
        }
        return init_settings, env_settings

    namespace: str = DEFAULT_NAMESPACE
    reply_queues: re.Pattern[str] | None = None
    retry_delays: Annotated[tuple[int, ...], NoDecode] = DEFAULT_RETRY_DELAYS

    @property
    def names(self) -> Names:
        """Return the names of exchanges and queues."""
        return Names(self.namespace, self.reply_queues)

    @field_validator("namespace")
    @classmethod
    def _namespace(cls, value: str) -> str:
        return check_namespace(value)

    @field_validator("retry_delays", mode="before")
    @classmethod
    def _listed_delays(cls, value: object) -> object:
        return _parts(value)

    @field_validator("retry_delays")
    @classmethod
    def _delays(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or any(not 1 <= delay <= 86400 for delay in value):
            raise ValueError("needs seconds from 1 to 86400, separated by commas")
        return value


class PublisherSettings(TopologySettings):
    """Settings of whatever connects to the broker. URLs are secrets: they hold passwords."""

    broker_url_file: str | None = None
    broker_url: SecretStr = Field(
        SecretStr("amqp://guest:guest@127.0.0.1:5672//"), validate_default=True
    )
    broker_ca_file: str | None = None
    broker_cert_file: str | None = None
    # Checked together with the other two files, so that all wrong values are reported at once.
    broker_key_file: str | None = Field(None, validate_default=True)
    command_timeout: Seconds = 30.0

    @field_validator("broker_url_file", "journal_url_file", check_fields=False)
    @classmethod
    def _secret_file(cls, value: str | None) -> str | None:
        if value is not None:
            _ = read_secret(value)  # raises ValueError
        return value

    @field_validator("broker_url", "journal_url", mode="before", check_fields=False)
    @classmethod
    def _from_file(cls, value: object, others: ValidationInfo) -> object:
        file = others.data.get(f"{others.field_name}_file")
        if file is None:
            return value
        is_default = isinstance(value, SecretStr)
        if not is_default:
            name = f"ECS_{str(others.field_name).upper()}"
            raise ValueError(f"both {name} and {name}_FILE are set: give just one of them")
        return SecretStr(read_secret(file))

    @field_validator("broker_url")
    @classmethod
    def _amqp(cls, value: SecretStr) -> SecretStr:
        try:
            read_urls(value.get_secret_value())
        except BrokerUnusable as error:
            raise ValueError(error.problem) from None
        return value

    @field_validator("broker_key_file")
    @classmethod
    def _tls_files(cls, value: str | None, others: ValidationInfo) -> str | None:
        url = others.data.get("broker_url")
        if url is not None:  # otherwise the URL is reported
            files = others.data.get("broker_ca_file"), others.data.get("broker_cert_file"), value
            if problems := check_files(Broker(url.get_secret_value(), *files)):
                raise _Unusable(problems)
        return value

    @property
    def broker(self) -> Broker:
        """Return the broker with its TLS files."""
        url = self.broker_url.get_secret_value()
        files = self.broker_ca_file, self.broker_cert_file, self.broker_key_file
        return Broker(url, *files, url_file=self.broker_url_file)


class BrokerSettings(PublisherSettings):
    """Settings of whatever authenticates senders, too: of worker and gateway."""

    os_cloud: str | None = Field(None, validation_alias=AliasChoices("OS_CLOUD", "os_cloud"))
    os_client_config_file: str | None = Field(
        None, validation_alias=AliasChoices("OS_CLIENT_CONFIG_FILE", "os_client_config_file")
    )
    project_domain: str = "default"
    region: str | None = None
    jwt_jwks: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_tenant_claim: str = "project"
    jwt_tenant_is: TenantIs | None = None
    token_grace: float = Field(86400.0, ge=0, le=86400 * 30)
    trust_publishers: bool = Field(False, validate_default=True)
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("region")
    @classmethod
    def _word(cls, value: str | None) -> str | None:
        if value is not None and (len(value) > MAX_NAME or not value.isprintable()):
            raise ValueError(f"must be a word of at most {MAX_NAME} printable characters")
        return value

    @field_validator("jwt_jwks")
    @classmethod
    def _key_set(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not is_url(value):
            if "://" in value or not Path(value).is_file():
                raise ValueError(
                    "names no file, and is no URL that begins with https:// or http://"
                )
            return value
        parts = urlsplit(value)
        is_odd = (
            parts.username is not None or parts.fragment or not value.isprintable() or " " in value
        )
        if not parts.hostname or is_odd:
            raise ValueError(
                "must be a URL like https://host/path, without user, password, fragment and blanks"
            )
        _ = parts.port  # raises ValueError where it is no number
        return value

    # A validator of a field, not of the model, so that all wrong values are reported at once.
    @field_validator("trust_publishers")
    @classmethod
    def _one_authentication(cls, value: bool, others: ValidationInfo) -> bool:
        # A wrong key set is missing in `others.data`; it was set nevertheless.
        if value == bool(others.data.get("jwt_jwks", "wrong")):
            raise ValueError(
                "just one of ECS_TRUST_PUBLISHERS=true and ECS_JWT_JWKS must be set: senders are authenticated by it"
            )
        return value


class Settings(BrokerSettings):
    """All of the worker's variables with their defaults."""

    journal_url_file: str | None = None
    journal_url: SecretStr = Field(SecretStr("sqlite:///ecs-journal.db"), validate_default=True)
    admin_cloud: str | None = None
    tokenless_publishers: Annotated[tuple[str, ...], NoDecode] = ()
    prefetch: int = Field(10_000, ge=1, le=65535)
    concurrency: int = Field(DEFAULT_CONCURRENCY, ge=1, le=65535)
    openstack_threads: int = Field(32, ge=1, le=1000)
    order_timeout: Seconds = 1500.0
    max_age: Seconds = 86400.0
    orders_kept: int | None = Field(None, ge=1, le=36500)
    billing_timezone: str = "Asia/Shanghai"
    require_fee_data: bool = True
    http_host: str = "127.0.0.1"
    http_port: int = Field(8080, ge=0, le=65535)

    @field_validator("tokenless_publishers", mode="before")
    @classmethod
    def _listed_publishers(cls, value: object) -> object:
        return _parts(value)

    @field_validator("journal_url")
    @classmethod
    def _database(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(
            ("sqlite:", "postgresql:", "postgresql+psycopg:")
        ):
            raise ValueError("must begin with sqlite: or postgresql:")
        from workers.journal import JournalError  # noqa: PLC0415 - comes with SQLAlchemy
        from workers.journal.database import read_url as read_database_url  # noqa: PLC0415

        try:
            read_database_url(value.get_secret_value())
        except JournalError as error:
            raise ValueError(str(error).removeprefix("ECS_JOURNAL_URL ")) from None
        return value

    @field_validator("billing_timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("there is no such time zone") from None
        return value


class GatewaySettings(BrokerSettings):
    """The gateway's variables: it asks the cloud for the ids of projects alone, and has a journal
    only for the operations console, which needs the worker's variables, too.
    """

    #: Set where a journal is configured, well or not: the console says what is wrong with it.
    console_journal: SecretStr | None = Field(
        None, validation_alias=AliasChoices("ECS_JOURNAL_URL", "ECS_JOURNAL_URL_FILE")
    )
    operator_role: str = "OPERATE_ADMIN"
    gateway_listen: str = "127.0.0.1:8081"
    gateway_max_in_flight: int = Field(1000, ge=1, le=100_000)

    @field_validator("gateway_listen")
    @classmethod
    def _address(cls, value: str) -> str:
        _ = split_address(value)
        return value

    @property
    def listen(self) -> tuple[str, int]:
        """Return host and port."""
        return split_address(self.gateway_listen)

    @property
    def has_cloud(self) -> bool:
        """Tell whether a cloud is configured that can be asked for projects."""
        return bool(self.os_cloud or self.os_client_config_file or os.environ.get("OS_AUTH_URL"))


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`, `[::1]:port` too. Raises `ValueError`."""
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if is_bracketed else host
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535
    if not colon or not bare or not is_port or (":" in bare) != is_bracketed:
        raise ValueError(
            "must be host:port, as 127.0.0.1:8081 or [::1]:8081, with a port of 1..65535"
        )
    return bare, int(port)


def load_settings() -> Settings:
    """Return the configuration. Raises `ConfigurationError`, which names every wrong variable and
    shows no value.
    """
    return _load(Settings)


def load_gateway_settings() -> GatewaySettings:
    """Return the gateway's configuration; variables of the worker alone may be missing or wrong."""
    return _load(GatewaySettings)


def load_publisher_settings() -> PublisherSettings:
    """Return the settings of the broker; all others may be missing or wrong."""
    return _load(PublisherSettings)


def load_topology_settings() -> TopologySettings:
    """Return the settings of the topology; all others may be missing or wrong."""
    return _load(TopologySettings)


def _load(kind: type[_Kind]) -> _Kind:
    try:
        return kind()
    except ValidationError as error:
        found = [problem for one in error.errors(include_url=False) for problem in _problems(one)]
        raise ConfigurationError(found) from None


def _parts(value: object) -> object:
    """Return the parts of a text that are separated by commas."""
    return (
        tuple(part.strip() for part in value.split(",") if part.strip())
        if isinstance(value, str)
        else value
    )


class _Unusable(ValueError):
    """Several files are wrong, or do not match each other."""

    def __init__(self, problems: list[BrokerUnusable]) -> None:
        self.problems = problems
        super().__init__("files are wrong")


def _problems(error: ErrorDetails) -> list[str]:
    """Return the lines that report one error of pydantic's."""
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, _Unusable):
        return [str(one) for one in cause.problems]
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return [message]
    name = str(error["loc"][0]).upper()
    variable = name if name.startswith(("ECS_", "OS_")) else f"ECS_{name}"
    return [f"{variable}: {message}"]


def traces_of(service: str) -> Traces | None:
    """Return what makes traces of this process, where OpenTelemetry's own variables ask for them.
    Raises `ConfigurationError`.
    """
    try:
        return Traces(service) if traces_wanted() else None
    except TracingMisconfigured as error:
        raise ConfigurationError([str(error)]) from None
