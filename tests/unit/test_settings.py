"""The configuration: all that is wrong at once, nothing of it shown."""

from pathlib import Path

import pytest

from workers.settings import ConfigurationError, load_settings
from workers.topology import DEFAULT_RETRY_DELAYS


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
    assert (settings.prefetch, settings.openstack_threads, settings.http_port) == (500, 32, 8080)
    assert (settings.command_timeout, settings.order_timeout, settings.max_age) == (30, 1500, 86400)
    assert settings.retry_delays == DEFAULT_RETRY_DELAYS == (5, 30, 120, 600, 1800)
    assert (settings.billing_timezone, settings.require_fee_data) == ("Asia/Shanghai", True)


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("ECS_TRUST_PUBLISHERS=true\nECS_PREFETCH=7\nECS_HTTP_PORT=9\nOS_CLOUD=filed\n")
    monkeypatch.setenv("ECS_PREFETCH", "8")
    settings = load_settings()
    assert (settings.prefetch, settings.http_port, settings.os_cloud) == (8, 9, "filed")


def test_all_that_is_wrong_is_named_at_once_and_none_of_it_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ECS_TRUST_PUBLISHERS": "true", "ECS_BROKER_URL": "http://u:geheim@h", "ECS_JOURNAL_URL": "mysql://u:geheim@h",
        "ECS_PREFETCH": "geheim", "ECS_RETRY_DELAYS": "5,0", "ECS_BILLING_TIMEZONE": "Mars/Base",
        "ECS_COMMAND_TIMEOUT": "-1", "ECS_LOG_FORMAT": "xml",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    named = {problem.partition(":")[0] for problem in caught.value.problems}
    assert named == {
        "ECS_BROKER_URL", "ECS_JOURNAL_URL", "ECS_PREFETCH", "ECS_RETRY_DELAYS", "ECS_BILLING_TIMEZONE",
        "ECS_COMMAND_TIMEOUT", "ECS_LOG_FORMAT",
    }  # fmt: skip
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {}, {"ECS_JWT_JWKS": " "}, {"ECS_TRUST_PUBLISHERS": "true", "ECS_JWT_JWKS": "keys.json"},
        {"ECS_TRUST_PUBLISHERS": "true", "ECS_JWT_JWKS": "https://iam/certs"},
    ],
)  # fmt: skip
def test_somebody_must_say_who_asks(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="ECS_TRUST_PUBLISHERS"):
        load_settings()


@pytest.mark.parametrize(
    "source",
    ["https://iam.example/realms/picp/certs", "http://127.0.0.1:8080/certs?x=1", "http://[::1]/certs", "here.json"],
)
def test_tokens_are_verified_with_the_keys_of_a_url_or_a_file(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    Path("here.json").write_text("{}")
    for name, value in {
        "ECS_JWT_JWKS": source, "ECS_JWT_ISSUER": "https://iam.example/realms/picp", "ECS_JWT_AUDIENCE": "",
        "ECS_TOKENLESS_PUBLISHERS": "billing, dunning,",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.jwt_jwks, settings.jwt_audience, settings.jwt_tenant_claim) == (source, None, "project")
    assert settings.tokenless_publishers == ("billing", "dunning")


@pytest.mark.parametrize(
    "source",
    [
        "missing.json", ".", "ftp://iam/certs", "file:///etc/keys.json", "https://", "https:///certs", "https://u:geheim@iam/certs",
        "https://iam/certs#x", "https://iam/a b", "https://iam:port/certs", "https://iam:99999/certs", "http://[::1/certs",
    ],
)  # fmt: skip
def test_what_no_key_set_can_be_read_from_is_named(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setenv("ECS_JWT_JWKS", source)
    monkeypatch.setenv("ECS_PREFETCH", "0")
    monkeypatch.setenv("ECS_JWT_TENANT_CLAIM", " ")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    named = [problem.partition(":")[0] for problem in caught.value.problems]
    assert named == ["ECS_JWT_JWKS", "ECS_JWT_TENANT_CLAIM", "ECS_PREFETCH"]
    assert "geheim" not in str(caught.value)


def test_that_nobody_says_who_asks_is_said_with_all_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECS_PREFETCH", "0")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    named = [problem.partition(":")[0] for problem in caught.value.problems]
    assert named == ["ECS_TRUST_PUBLISHERS", "ECS_PREFETCH"]
