"""The configuration: all that is wrong at once, nothing of it shown."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices
from sqlalchemy import create_engine

from handlers.openstack.sessions import CloudSettings, region_name
from messages.errors import Transient
from workers.amqp.topology import DEFAULT_RETRY_DELAYS, topology
from workers.journal.database import read_url as read_database_url
from workers.journal.database import url_without_password
from workers.settings import ConfigurationError, Settings, load_settings, load_topology_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os  # noqa: PLC0415

    for name in list(os.environ):
        if name.startswith(("ECS_", "OS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_the_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECS_TRUST_PUBLISHERS", "true")
    settings = load_settings()
    assert settings.broker_url.get_secret_value() == "amqp://guest:guest@127.0.0.1:5672//"
    assert settings.journal_url.get_secret_value() == "sqlite:///ecs-journal.db"
    assert (settings.prefetch, settings.concurrency) == (10_000, 500)
    assert (settings.openstack_threads, settings.http_port) == (32, 8080)
    assert (settings.command_timeout, settings.order_timeout, settings.max_age) == (30, 1500, 86400)
    assert settings.retry_delays == DEFAULT_RETRY_DELAYS == (5, 30, 120, 600, 1800)
    assert (settings.billing_timezone, settings.require_fee_data) == ("Asia/Shanghai", True)
    assert (settings.namespace, settings.region) == ("ecs", None)


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(
        "ECS_TRUST_PUBLISHERS=true\nECS_PREFETCH=7\nECS_HTTP_PORT=9\nOS_CLOUD=filed\n"
    )
    monkeypatch.setenv("ECS_PREFETCH", "8")
    settings = load_settings()
    assert (settings.prefetch, settings.http_port, settings.os_cloud) == (8, 9, "filed")


def variables(kind: type[Settings] = Settings) -> dict[str, str]:
    """Every variable, and the field that it sets."""
    found = {}
    for name, field in kind.model_fields.items():
        alias = field.validation_alias
        found[
            str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"ECS_{name.upper()}"
        ] = name
    return found


@pytest.mark.parametrize("empty", ["", "  ", "\t"])
@pytest.mark.parametrize("variable", sorted(variables()))
def test_a_variable_that_is_set_but_empty_counts_as_not_set_and_hides_the_file(
    monkeypatch: pytest.MonkeyPatch, variable: str, empty: str
) -> None:
    """`ECS_ADMIN_CLOUD=` was a cloud named ""; a wrong value in `.env` shows that it is not looked
    at.
    """
    monkeypatch.setenv("ECS_TRUST_PUBLISHERS", "true")
    expected = load_settings()
    Path(".env").write_text(f"{variable}=\x1bwrong[\n")
    monkeypatch.setenv(variable, empty)
    if variable == "ECS_TRUST_PUBLISHERS":
        with pytest.raises(ConfigurationError, match="just one of"):
            load_settings()
    else:
        assert load_settings() == expected
    Path(".env").write_text(f"{variable}={empty}\n")
    monkeypatch.delenv(variable)
    if variable != "ECS_TRUST_PUBLISHERS":
        assert load_settings() == expected


def test_blanks_around_a_value_are_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "ECS_TRUST_PUBLISHERS": " true ",
        "ECS_REGION": " cn-north-3\t",
        "ECS_NAMESPACE": " north ",
        "OS_CLOUD": " x ",
        "ECS_BROKER_URL": " amqp://h// ",
        "ECS_PREFETCH": " 7 ",
        "ECS_LOG_LEVEL": " Warning ",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.region, settings.names.commands_exchange, settings.os_cloud) == (
        "cn-north-3",
        "north.commands",
        "x",
    )
    assert (settings.broker_url.get_secret_value(), settings.prefetch, settings.log_level) == (
        "amqp://h//",
        7,
        "warning",
    )


@pytest.mark.parametrize("namespace", ["a", "ecs", "Ecs_2", "north-3", "x" * 40])
def test_a_namespace_is_one_plain_word(monkeypatch: pytest.MonkeyPatch, namespace: str) -> None:
    monkeypatch.setenv("ECS_NAMESPACE", namespace)
    names = load_topology_settings().names
    declared = topology(names=names)
    assert {one.name.partition(".")[0] for one in (*declared.exchanges, *declared.queues)} == {
        namespace
    }
    assert all(names.is_own_queue(queue.name) for queue in declared.queues)
    assert not names.is_own_queue(f"{namespace}2.orders")


@pytest.mark.parametrize(
    "namespace",
    [
        "ecs.retry",
        "ecs.",
        ".",
        "-x",
        "1a",
        "a b",
        "a\x01b",
        "*",
        "#",
        "é",
        "x" * 41,
        "amq",
        "AMQ",
        "a/b",
    ],
)
def test_another_namespace_is_refused(monkeypatch: pytest.MonkeyPatch, namespace: str) -> None:
    monkeypatch.setenv("ECS_NAMESPACE", namespace)
    with pytest.raises(ConfigurationError, match=r"^ECS_NAMESPACE: must be one word"):
        load_topology_settings()


@pytest.mark.parametrize("region", ["x" * 256, "a\x1b[2J"])
def test_a_region_is_a_printable_word(monkeypatch: pytest.MonkeyPatch, region: str) -> None:
    monkeypatch.setenv("ECS_TRUST_PUBLISHERS", "true")
    monkeypatch.setenv("ECS_REGION", region)
    with pytest.raises(ConfigurationError, match=r"^ECS_REGION: "):
        load_settings()


# Secrets in files.

SECRETS = {
    "ECS_BROKER_URL": "amqp://ecs:geheim@broker//",
    "ECS_JOURNAL_URL": "postgresql+psycopg://ecs:geheim@db/ecs",
}


@pytest.mark.parametrize("variable", sorted(SECRETS))
def test_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("ECS_TRUST_PUBLISHERS", "true")
    name = variable.removeprefix("ECS_").lower()
    for ending in ("", "\n", "\r\n"):
        Path("secret").write_bytes((SECRETS[variable] + ending).encode())
        monkeypatch.setenv(f"{variable}_FILE", str(Path("secret").absolute()))
        settings = load_settings()
        assert getattr(settings, name).get_secret_value() == SECRETS[variable]
        assert "geheim" not in repr(settings)
    # Also where .env names it; an empty variable beside it counts as not set.
    monkeypatch.delenv(f"{variable}_FILE")
    Path(".env").write_text(f"{variable}_FILE=secret\n")
    monkeypatch.setenv(variable, "")
    assert getattr(load_settings(), name).get_secret_value() == SECRETS[variable]


@pytest.mark.parametrize("variable", sorted(SECRETS))
@pytest.mark.parametrize("in_env_file", [False, True])
def test_a_secret_that_is_given_twice_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, in_env_file: bool
) -> None:
    monkeypatch.setenv("ECS_TRUST_PUBLISHERS", "true")
    Path("secret").write_text(SECRETS[variable])
    monkeypatch.setenv(f"{variable}_FILE", "secret")
    if in_env_file:
        Path(".env").write_text(f"{variable}={SECRETS[variable]}\n")
    else:
        monkeypatch.setenv(variable, SECRETS[variable])
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert caught.value.problems == [
        f"{variable}: both {variable} and {variable}_FILE are set: give just one of them"
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        (b"", "empty"),
        (b"\n", "empty"),
        (b"amqp://u:geheim@h//\nmore\n", "one line"),
        (b"geheim" * 10_000, "one line"),
        (b"amqp://u:geheim\xff@h//", "UTF-8"),
        ("folder", "Is a directory"),
    ],
)
def test_a_secret_that_cannot_be_read_from_its_file_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, content: bytes | str | None, told: str
) -> None:
    monkeypatch.setenv("ECS_TRUST_PUBLISHERS", "true")
    if content == "folder":
        Path("secret").mkdir()
    elif isinstance(content, bytes):
        Path("secret").write_bytes(content)
    for variable in SECRETS:
        monkeypatch.setenv(f"{variable}_FILE", "secret")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        f"{one}_FILE" for one in SECRETS
    ]
    assert all(told in problem and "\n" not in problem for problem in caught.value.problems)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geheim",
        "postgresql:geheim",
        "postgresql://u:a@geheim@h/db",
        "postgresql://u:p@h1:geheim/db",
        "postgresql://u:geheim@[::1/db",
        "postgresql://u:geheim@h1,,h2/db",
        "postgresql://u:geheim@h1:x,h2/db",
        "postgresql://u:geheim@h1,h2:70000/db",
        "postgresql://u:a@geheim@h1,h2/db",
        "postgresql://u:geheim@/db?host=h1,h2&port=1,2,3",
        "postgresql://u:a@geheim/b@h/db",
        "postgresql://u:a@geheim?b@h/db",
        "postgresql://u:1,geheim/b@c@h/db",
    ],
)
def test_a_journal_url_that_cannot_be_told_apart_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("ECS_TRUST_PUBLISHERS", "true")
    monkeypatch.setenv("ECS_JOURNAL_URL", url)
    with pytest.raises(ConfigurationError, match=r"^ECS_JOURNAL_URL: is no database URL") as caught:
        load_settings()
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "hosts", "ports", "wanted"),
    [
        (
            "//u:p,1@h1:5432,h2:5433/db?target_session_attrs=primary",
            "h1,h2",
            "5432,5433",
            "primary",
        ),
        ("//u:p@h1,h2/db", "h1,h2", "5432,5432", "read-write"),
        ("//u:p@[::1]:77,h2/db", "::1,h2", "77,5432", "read-write"),
        ("//u:p@/db?host=h1:5432&host=h2:5433", "h1,h2", "5432,5433", "read-write"),
        ("//u:p@/db?host=[::1]:77&host=h2", "::1,h2", "77,5432", "read-write"),
        ("//u:p@/db?host=h1,h2&port=5432,5433", "h1,h2", "5432,5433", "read-write"),
        ("//u:p@/db?host=h1,h2&port=77", "h1,h2", "77,77", "read-write"),
        ("//u:p@/db?host=h1:77", "h1", "77", None),
        ("//u:p@/db?host=::1", "::1", "5432", None),
        ("//u:p@/db?host=h1&host=h2&port=77", "h1,h2", "77,77", "read-write"),
        ("//u:p/w@h1:77,h2/db", "h1,h2", "77,5432", "read-write"),
        ("//u:p@h1:77/db", None, None, None),
    ],
)
def test_a_journal_url_may_name_several_hosts(
    url: str, hosts: str | None, ports: str | None, wanted: str | None
) -> None:
    found = read_database_url(f"postgresql:{url}").set(drivername="postgresql+psycopg")
    arguments = create_engine(found).dialect.create_connect_args(found)[1]
    assert (
        found.query.get("host"),
        found.query.get("port"),
        arguments.get("target_session_attrs"),
    ) == (hosts, ports, wanted)
    if hosts is not None:
        assert (arguments["host"], arguments["port"]) == (hosts, ports)
    assert (arguments["user"], arguments["dbname"]) == ("u", "db")


def test_all_hosts_of_a_journal_url_are_shown() -> None:
    shown = "postgresql://u:***@h1:5432,[::1]:77/db"
    assert url_without_password("postgresql://u:geheim@h1,[::1]:77/db?sslmode=require") == shown


@pytest.mark.parametrize("wanted", ["standby", "prefer-standby", "read-only"])
def test_a_journal_url_may_not_ask_for_a_standby(
    monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    monkeypatch.setenv("ECS_TRUST_PUBLISHERS", "true")
    monkeypatch.setenv("ECS_JOURNAL_URL", f"postgresql://u@h1,h2/db?target_session_attrs={wanted}")
    with pytest.raises(ConfigurationError, match=r"^ECS_JOURNAL_URL: has target_session_attrs"):
        load_settings()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geheim@h/db?password=geheim",
        "postgresql://u:12,geheim/geheim@h/db",
        "postgresql://u@h/db?password=geh@geheim",
        "sqlite:///x.db?password=geheim",
    ],
)
def test_a_journal_url_is_shown_without_its_passwords(url: str) -> None:
    assert "geheim" not in url_without_password(url)


# What openstacksdk reads itself.


def test_a_variable_of_the_sdk_that_is_empty_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    clouds = {
        "clouds": {
            "one": {"region_name": "north", "auth": {}},
            "two": {"region_name": "south", "auth": {}},
        }
    }
    Path("clouds.yaml").write_text(json.dumps(clouds))
    for name in (
        "OS_CLIENT_CONFIG_FILE",
        "OS_CLOUD",
        "OS_USERNAME",
        "OS_REGION_NAME",
        "OS_AUTH_URL",
    ):
        monkeypatch.setenv(name, " ")
    assert region_name(CloudSettings(None, config_file="clouds.yaml"), "two") == "south"
    Path("other.json").write_text(
        json.dumps({"clouds": {"only": {"region_name": "east", "auth": {}}}})
    )
    assert region_name(CloudSettings(None, config_file="other.json"), None) == "east"
    with pytest.raises(Transient):
        region_name(CloudSettings(None, config_file="missing.yaml"), "two")


@pytest.mark.parametrize(
    ("entry", "secret"),
    [
        ({"region_name": "north"}, None),
        ({"region_name": "north,south"}, None),
        ({"region_name": "north", "regions": ["west", "east"]}, None),
        ({"region_name": "north", "profile": "shared"}, None),
        ({"region_name": "{username}"}, None),
        ({"region_name": "north"}, {"region_name": "east"}),
        ({"region_name": 7}, None),
        ({}, None),
    ],
)
def test_the_region_is_the_one_that_the_sdk_would_use(
    entry: dict[str, Any], secret: dict[str, Any] | None
) -> None:
    entry = {"auth": {"auth_url": "http://k"}, "username": "a", **entry}
    Path("one.yaml").write_text(json.dumps({"clouds": {"one": entry}}))
    Path("clouds-public.yaml").write_text(
        json.dumps({"public-clouds": {"shared": {"regions": ["central"]}}})
    )
    if secret is not None:
        Path("secure.yaml").write_text(json.dumps({"clouds": {"one": secret}}))
    ask = "region_name(CloudSettings(None, config_file='one.yaml'), 'one')"
    script = (
        "import sys\n"
        "from openstack.config import OpenStackConfig\n"
        "from handlers.openstack.sessions import CloudSettings, region_name\n"
        f"ours = {ask}\n"
        "sdks = OpenStackConfig(config_files=['one.yaml']).get_one('one', validate=False)\n"
        "assert (ours or '') == str(sdks.region_name or ''), (ours, sdks.region_name)\n"
    )
    # Where files of secrets are looked for is found out as the SDK is imported.
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_region_that_stands_in_the_entry_is_read_without_the_sdk() -> None:
    Path("one.yaml").write_text(json.dumps({"clouds": {"one": {"region_name": "north"}}}))
    script = (
        "import sys\n"
        "from handlers.openstack.sessions import CloudSettings, region_name\n"
        "print(region_name(CloudSettings(None, config_file='one.yaml'), 'one'))\n"
        "assert 'openstack' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("north\n", "")


def test_all_that_is_wrong_is_named_at_once_and_none_of_it_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "ECS_TRUST_PUBLISHERS": "true",
        "ECS_BROKER_URL": "http://u:geheim@h",
        "ECS_JOURNAL_URL": "mysql://u:geheim@h",
        "ECS_PREFETCH": "geheim",
        "ECS_RETRY_DELAYS": "5,0",
        "ECS_BILLING_TIMEZONE": "Mars/Base",
        "ECS_COMMAND_TIMEOUT": "-1",
        "ECS_LOG_FORMAT": "xml",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    named = {problem.partition(":")[0] for problem in caught.value.problems}
    assert named == {
        "ECS_BROKER_URL",
        "ECS_JOURNAL_URL",
        "ECS_PREFETCH",
        "ECS_RETRY_DELAYS",
        "ECS_BILLING_TIMEZONE",
        "ECS_COMMAND_TIMEOUT",
        "ECS_LOG_FORMAT",
    }
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ECS_JWT_JWKS": " "},
        {"ECS_TRUST_PUBLISHERS": "true", "ECS_JWT_JWKS": "keys.json"},
        {"ECS_TRUST_PUBLISHERS": "true", "ECS_JWT_JWKS": "https://iam/certs"},
    ],
)
def test_somebody_must_say_who_asks(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str]
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="ECS_TRUST_PUBLISHERS"):
        load_settings()


@pytest.mark.parametrize(
    "source",
    [
        "https://iam.example/realms/picp/certs",
        "http://127.0.0.1:8080/certs?x=1",
        "http://[::1]/certs",
        "here.json",
    ],
)
def test_tokens_are_verified_with_the_keys_of_a_url_or_a_file(
    monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    Path("here.json").write_text("{}")
    for name, value in {
        "ECS_JWT_JWKS": source,
        "ECS_JWT_ISSUER": "https://iam.example/realms/picp",
        "ECS_JWT_AUDIENCE": "",
        "ECS_TOKENLESS_PUBLISHERS": "billing, dunning,",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.jwt_jwks, settings.jwt_audience, settings.jwt_tenant_claim) == (
        source,
        None,
        "project",
    )
    assert settings.tokenless_publishers == ("billing", "dunning")


@pytest.mark.parametrize(
    "source",
    [
        "missing.json",
        ".",
        "ftp://iam/certs",
        "file:///etc/keys.json",
        "https://",
        "https:///certs",
        "https://u:geheim@iam/certs",
        "https://iam/certs#x",
        "https://iam/a b",
        "https://iam:port/certs",
        "https://iam:99999/certs",
        "http://[::1/certs",
    ],
)
def test_what_no_key_set_can_be_read_from_is_named(
    monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setenv("ECS_JWT_JWKS", source)
    monkeypatch.setenv("ECS_PREFETCH", "0")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    named = [problem.partition(":")[0] for problem in caught.value.problems]
    assert named == ["ECS_JWT_JWKS", "ECS_PREFETCH"]
    assert "geheim" not in str(caught.value)


def test_that_nobody_says_who_asks_is_said_with_all_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ECS_PREFETCH", "0")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    named = [problem.partition(":")[0] for problem in caught.value.problems]
    assert named == ["ECS_TRUST_PUBLISHERS", "ECS_PREFETCH"]
