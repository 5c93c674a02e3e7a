"""The broker's URL and TLS files: what is wrong is told by its variable, and nothing of a password
is shown.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from workers.amqp.broker import Broker, BrokerUnusable, check_files, read_urls
from workers.settings import ConfigurationError, load_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("ECS_", "OS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ECS_TRUST_PUBLISHERS", "true")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_the_url_is_shown_without_password_and_options() -> None:
    (found,) = read_urls("amqps://us%40er:ge%2Fheim@[::1]/shop?heartbeat=7")
    assert (found.host, found.port, found.user, found.password) == ("::1", 5671, "us@er", "ge/heim")
    assert str(found) == "amqps://us@er:***@[::1]:5671/shop"
    assert "geheim" not in repr(Broker("amqp://u:geheim@h"))
    assert "ge/heim" not in repr(found)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://u:gehe/im@host:5672//",
        "amqp://u:12/geheim@host//",
        "amqp://u:12?geheim@host//",
        "amqp://u:12#geheim@host//",
        "amqp://u:gehe#im@host//",
        "amqp://u:[geheim@host//",
        "amqp://u:geheim@",
        "amqp://u:geheim@host:70000/",
        "amqp://u:geheim@host:x/",
        "http://u:geheim@host/",
        "amqp:geheim",
        "geheim",
        "amqp://u:geheim@h1,",
        "amqp://u:geheim@h1//,",
        "amqp://u:geheim@h1,,amqp://u:geheim@h2",
        "amqp://u:geheim@h1,h2:5672/",
        "amqp://u:geheim@h1:5672,h2:5672/",
        "amqp://u:geheim@h1/shop,h2/shop",
        "amqp://u:geheim@h1?heartbeat=5,h2",
        "amqp://u:geheim@h1,http://u:geheim@h2",
        "amqp://u:geheim@h1 amqp://u:geheim@h2",
        "amqp://u:geheim@h1;amqp://u:geheim@h2",
        "amqp://u:geheim@h1,amqp://u:gehe/im@h2",
        "amqp://u:geheim@h1,amqps://u:geheim@h2",
        "amqp://u:geheim@h1/a,amqp://u:geheim@h2/b",
        "amqp://u:geheim@:5672/",
        "amqp://u:geheim@h1:0/",
    ],
)
def test_a_url_that_cannot_be_read_is_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECS_BROKER_URL", url)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    (problem,) = caught.value.problems
    assert problem.startswith("ECS_BROKER_URL: ")
    assert "heim" not in problem
    assert "gehe" not in problem


def test_several_urls_are_the_nodes_of_one_cluster() -> None:
    text = "amqps://u:p%2Cq@h1/shop?heartbeat=5, amqps://v:p,q@[::1]:5672/shop,\namqps://h3/shop"
    assert [
        (one.host, one.port, one.user, one.password, one.virtual_host, dict(one.options))
        for one in read_urls(text)
    ] == [
        ("h1", 5671, "u", "p,q", "shop", {"heartbeat": 5}),
        ("::1", 5672, "v", "p,q", "shop", {}),
        ("h3", 5671, "guest", "guest", "shop", {}),
    ]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("amqp://h2/a/b@", "URL 2 of 2: is no URL"),
        ("amqp://h2/?hearbeat=5", "URL 2 of 2: the option hearbeat is not known"),
        ("amqps://h2/", "all with amqp://"),
        ("amqp://h2/b", "same virtual host"),
    ],
)
def test_which_of_several_urls_is_wrong_is_said(second: str, said: str) -> None:
    with pytest.raises(BrokerUnusable, match=said):
        read_urls(f"amqp://h1/,{second}")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ("ssl_options={'cert_reqs': 0}", "always checked"),
        ("verify=verify_none", "always checked"),
        ("cacertfile=/x", "ECS_BROKER_CA_FILE"),
        ("ssl_cert_reqs=CERT_NONE", "always checked"),
        ("heartbeat=x", "must be a number"),
        ("heartbeat=-1", "from 0 to 65535"),
        ("heartbeat=nan", "a number"),
        ("socket_timeout=nan", "from 0.1"),
        ("heartbeat=1&heartbeat=2", "twice"),
        ("hearbeat=1", "heartbeat"),
        ("password=geheim", "not known"),
        ("frame_max=1", "from 4096"),
        ("connection_attempts=0", "from 1"),
    ],
)
def test_an_option_that_would_not_count_is_refused(options: str, word: str) -> None:
    with pytest.raises(BrokerUnusable, match=word) as caught:
        read_urls(f"amqps://u:p@h/?{options}")
    assert "geheim" not in str(caught.value)


def test_every_known_option_is_taken() -> None:
    url = (
        "amqp://h//?heartbeat=0&connection_attempts=3&retry_delay=0.5&socket_timeout=4&stack_timeout=9"
        "&channel_max=100&frame_max=8192"
    )
    assert read_urls(url)[0].options == {
        "heartbeat": 0,
        "connection_attempts": 3,
        "retry_delay": 0.5,
        "socket_timeout": 4.0,
        "stack_timeout": 9.0,
        "channel_max": 100,
        "frame_max": 8192,
    }


FILES: dict[str, tuple[Callable[[Authority, Path], dict[str, str]], dict[str, str]]] = {
    "missing": (
        lambda _a, p: {
            "CA": str(p / "no-ca"),
            "CERT": str(p / "no-cert"),
            "KEY": str(p / "no-key"),
        },
        {"CA": "No such file", "CERT": "No such file"},
    ),
    "a folder": (lambda _a, p: {"CA": str(p)}, {"CA": "Is a directory"}),
    "no certificate in the CA file": (
        lambda a, _p: {"CA": str(a.issue("x").key)},
        {"CA": "no certificate"},
    ),
    "key alone": (
        lambda a, _p: {"KEY": str(a.issue("x").key)},
        {"KEY": "of no use without ECS_BROKER_CERT_FILE"},
    ),
    "certificate alone": (
        lambda a, _p: {"CERT": str(a.issue("x").certificate)},
        {"KEY": "must name the private key"},
    ),
    "exchanged": (
        lambda a, _p: {"CERT": str(a.issue("x").key), "KEY": str(a.issue("x").certificate)},
        {"CERT": "no certificate"},
    ),
    "no key in the key file": (
        lambda a, _p: {"CERT": str(a.issue("x").certificate), "KEY": str(a.issue("y").certificate)},
        {"KEY": "no private key"},
    ),
    "another's key": (
        lambda a, _p: {"CERT": str(a.issue("x").certificate), "KEY": str(a.issue("y").key)},
        {"KEY": "not that of"},
    ),
    "with a passphrase": (
        lambda a, _p: {
            "CERT": str(a.issue("x", passphrase=b"geheim").certificate),
            "KEY": str(_p / "x.key"),
        },
        {"KEY": "has a passphrase"},
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_used_is_named_by_its_variable(
    case: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, wanted = FILES[case]
    monkeypatch.setenv("ECS_BROKER_URL", "amqps://u:geheim@h")
    monkeypatch.setenv("ECS_PREFETCH", "none")  # said together with it
    for name, file in given(authority, tmp_path).items():
        monkeypatch.setenv(f"ECS_BROKER_{name}_FILE", file)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    problems = dict(one.split(": ", 1) for one in caught.value.problems)
    assert problems.pop("ECS_PREFETCH")
    assert problems.keys() == {f"ECS_BROKER_{name}_FILE" for name in wanted}
    for name, text in wanted.items():
        assert text in problems[f"ECS_BROKER_{name}_FILE"]
    assert "geheim" not in str(caught.value)
    assert "\n" not in "".join(caught.value.problems)


def test_files_for_tls_with_a_url_without_it_are_refused(authority: Authority) -> None:
    pair = authority.issue("x")
    broker = Broker("amqp://h", str(authority.certificate), str(pair.certificate), str(pair.key))
    assert [one.variable for one in check_files(broker)] == [
        "ECS_BROKER_CA_FILE",
        "ECS_BROKER_CERT_FILE",
        "ECS_BROKER_KEY_FILE",
    ]
    assert all("amqps://" in one.problem for one in check_files(broker))


def test_a_certificate_and_its_key_may_be_one_file(authority: Authority, tmp_path: Path) -> None:
    pair, both = authority.issue("x"), tmp_path / "both.pem"
    both.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    assert check_files(Broker("amqps://h", str(authority.certificate), str(both))) == []
