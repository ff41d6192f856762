"""Settings: where they come from, what is refused and how that is said."""

from __future__ import annotations

import json
import pickle
import re
from decimal import Decimal
from pathlib import Path

import pytest

from alphapulse import config
from alphapulse.config.loading import LEAVES, variable_of
from alphapulse.config.values import MASK, parse_size
from alphapulse.errors import ConfigError
from tests.support import ROOT


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "alphapulse.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path.resolve()


def refusal(text: str = "", **environ: str) -> str:
    """What is said of a file and an environment that can't be used."""
    with pytest.raises(ConfigError) as caught:
        config.load(write(text), environ)
    return str(caught.value)


def test_defaults_are_those_of_the_contract() -> None:
    settings = config.load(environ={})
    assert settings == config.Settings()
    assert settings.api.port == 3001
    assert settings.stream.port == 8765
    assert settings.stream.depth == 100
    assert settings.store.buffer_size == 1000
    assert settings.store.batch_timeout_ms == 100
    assert settings.store.redis_url == ""
    assert settings.ring.prefix == "alphapulse"
    assert settings.ring.size_bytes == 64 * 2**20
    assert {settings.api.host, settings.stream.host} == {"127.0.0.1"}
    assert list(settings.venues.enabled()) == ["coinbase", "kraken", "binance_us"]
    assert settings.venues.kraken.depth == 1000
    assert settings.venues.coinbase.ws_url == "wss://ws-feed.exchange.coinbase.com"


def test_file_is_overridden_by_environment_and_that_by_the_command_line() -> None:
    write("[api]\nport = 1\nmax_limit = 7\n[stream]\nport = 1\n[venues.kraken]\ndepth = 25\n")
    environ = {"API_PORT": "2", "STREAM_PORT": "2", "ALPHAPULSE__STREAM__PORT": "3"}
    settings = config.load(environ=environ, overrides={"api.port": 4, "stream.host": None})
    assert settings.api.max_limit == 7
    assert settings.stream.port == 3, "the long name wins over the short one"
    assert settings.stream.host == "127.0.0.1"
    assert settings.api.port == 4
    assert settings.venues.kraken.depth == 25


def test_file_is_named_by_argument_or_variable_or_lies_here() -> None:
    write("[api]\nport = 1\n")
    named = write("[api]\nport = 2\n", "named.toml")
    given = write("[api]\nport = 3\n", "given.toml")
    assert config.load(environ={}).api.port == 1
    assert config.load(environ={"ALPHAPULSE_CONFIG": str(named)}).api.port == 2
    assert config.load(given, {"ALPHAPULSE_CONFIG": str(named)}).api.port == 3


def test_a_named_file_has_to_exist() -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: can't be read: No such file"):
        config.load("absent.toml", {})


def test_a_file_that_is_no_toml_is_named_with_the_place() -> None:
    assert re.search(r"alphapulse\.toml: is no TOML: .*line 1", refusal("[api\nport = 1"))


@pytest.mark.parametrize("variable", sorted(config.SHORT_VARIABLES))
def test_an_empty_short_variable_counts_as_absent(variable: str) -> None:
    assert config.load(environ={variable: ""}) == config.Settings()


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("ALPHAPULSE_API_PORT", "api.port"),
        ("ALPHAPULSE_REDIS_URL", "store.redis_url"),
        ("ALPHAPULSE_STORE_PATH", "store.path"),
        ("ALPHAPULSE_VENUES__KRAKEN_DEPTH", "venues.kraken.depth"),
        ("alphapulse__venues__kraken__depth", "venues.kraken.depth"),
    ],
)
def test_a_variable_with_a_wrong_separator_is_refused(variable: str, key: str) -> None:
    message = refusal("", **{variable: "7"})
    assert message == f"{key}: {variable} isn't how it is set; write {variable_of(key)}"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALPHAPULSE_SOAK_SECONDS", "7"),
        ("ALPHAPULSE_API_PORT", ""),
        # As Kubernetes gives it to pods beside a service of the name alphapulse-api.
        ("ALPHAPULSE_API_PORT", "tcp://10.0.0.7:3001"),
    ],
)
def test_a_variable_for_other_ends_is_let_be(variable: str, value: str) -> None:
    assert config.load(environ={variable: value}) == config.Settings()


def test_values_from_the_environment() -> None:
    settings = config.load(
        environ={
            "REDIS_URL": "redis://127.0.0.1:6379/0",
            "BUFFER_SIZE": "5",
            "BATCH_TIMEOUT_MS": "20",
            "LOG_LEVEL": "WARNING",
            "ALPHAPULSE__RING__SIZE_BYTES": "8 MiB",
            "ALPHAPULSE__LOG__JSON": "yes",
            "ALPHAPULSE__VENUES__KRAKEN__DEPTH": "100",
            "ALPHAPULSE__VENUES__KRAKEN__SYMBOLS": "xbt/usd, DOGE-USD",
            "ALPHAPULSE__VENUES__BINANCE_US__SYMBOLS": '["BTC-USDT"]',
            "ALPHAPULSE__VENUES__BINANCE_US__ENABLED": "0",
            "ALPHAPULSE__VENUES__COINBASE__SILENCE_SECONDS": "2.5",
        }
    )
    assert settings.store.redis_url == "redis://127.0.0.1:6379/0"
    assert settings.store.buffer_size == 5
    assert settings.store.batch_timeout_ms == 20
    assert settings.log.level == "warning"
    assert settings.log.json is True
    assert settings.ring.size_bytes == 8 * 2**20
    assert settings.venues.kraken.depth == 100
    assert settings.venues.kraken.symbols == ("BTC-USD", "DOGE-USD")
    assert settings.venues.binance_us.symbols == ("BTC-USDT",)
    assert settings.venues.coinbase.silence_seconds == 2.5
    assert list(settings.venues.enabled()) == ["coinbase", "kraken"]


def test_basis_points_are_exact() -> None:
    file = write("[arbitrage]\nmin_bps = 0.1\n[arbitrage.fees_bps]\nkraken = 26\ncoinbase = 2.5\n")
    environ = {"ALPHAPULSE__ARBITRAGE__FEES_BPS__BINANCE_US": "1e1"}
    arbitrage = config.load(file, environ).arbitrage
    assert str(arbitrage.min_bps) == "0.1"
    fees = arbitrage.fees_bps
    assert (str(fees.kraken), str(fees.coinbase), str(fees.binance_us)) == ("26", "2.5", "10")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("65536", 65536), ("64MiB", 2**26), ("64 mib", 2**26), ("2KB", 2000), ("1G", None)],
)
def test_sizes(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(ValueError, match="no size"):
            parse_size(text)
    else:
        assert parse_size(text) == size


def test_coinbase_address_follows_the_feed_unless_given() -> None:
    advanced = write('[venues.coinbase]\nfeed = "advanced"\n')
    coinbase = config.load(advanced, {}).venues.coinbase
    assert coinbase.ws_url == "wss://advanced-trade-ws.coinbase.com"
    assert config.CoinbaseSettings(feed="advanced").ws_url == coinbase.ws_url
    given = {"ALPHAPULSE__VENUES__COINBASE__WS_URL": "ws://127.0.0.1:9/feed"}
    assert config.load(advanced, given).venues.coinbase.ws_url == "ws://127.0.0.1:9/feed"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[ring]\nsize_byte = 1", "ring.size_byte: unknown setting (FILE); did you mean ring.size"),
        ("redis_url = ''", "redis_url: unknown setting (FILE); did you mean store.redis_url?"),
        ("[venue.kraken]\ndepth = 1", "venue: unknown setting (FILE); did you mean venues?"),
        ("[venues.krakken]\ndepth = 10", "(FILE); did you mean venues.kraken?"),
        ("[venues.coinbase]\ndepth = 10", "did you mean venues.kraken.depth?"),
        ("zzz = 1", "(FILE); the sections are api, arbitrage, arbitrage.fees_bps, log, met"),
        ("ring = 5", "ring: is a table, not 5; write [ring] (FILE)"),
    ],
)
def test_unknown_keys_are_refused_by_name(text: str, said: str) -> None:
    assert said.replace("FILE", str(Path("alphapulse.toml").resolve())) in refusal(text)


def test_unknown_variables_are_refused_by_name() -> None:
    message = refusal(ALPHAPULSE__RING__SIZE="1")
    assert "ring.size: unknown setting (environment ALPHAPULSE__RING__SIZE)" in message
    assert "did you mean ring.size_bytes (ALPHAPULSE__RING__SIZE_BYTES)?" in message
    assert "venues.kraken:" in refusal(ALPHAPULSE__VENUES__KRAKEN="1")


def test_unknown_overrides_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"api\.prt: unknown setting \(command line\).*api\.port"):
        config.load(environ={}, overrides={"api.prt": 1})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[api]\nport = 65536", "api.port: 65536 can't be used; expected a port, 0"),
        ("[api]\nport = -1", "api.port: -1 can't be used"),
        ("[api]\nport = '3001'", "api.port: '3001' can't be used"),
        ("[api]\nport = true", "api.port: True can't be used"),
        ("[api]\nport = 1.0", "api.port: 1.0 can't be used"),
        ("[stream]\nbehind_seconds = nan", "stream.behind_seconds: nan can't be used"),
        ("[stream]\nbehind_seconds = inf", "expected a number of seconds above 0"),
        ("[stream]\norigins = ['example.org']", "stream.origins: ['example.org'] can't be used"),
        ("[stream]\ntoken = 'two words'", f"stream.token: {MASK} can't be used"),
        ("[ring]\nprefix = 'a/b'", "ring.prefix: 'a/b' can't be used; expected 1 to 64 letters"),
        ("[ring]\nprefix = 'a.b'", "ring.prefix: 'a.b' can't be used"),
        ("[ring]\nsize_bytes = '1 furlong'", "expected a size in bytes, as a number or like"),
        ("[venues.kraken]\ndepth = 50", "50 can't be used; expected one of 10, 25, 100, 500, 1000"),
        ("[venues.kraken]\nsymbols = []", '["BTC-USD", "ETH-USD"], at least one'),
        ("[venues.kraken]\nchannels = []", "venues.kraken.channels: [] can't be used"),
        ("[venues.kraken]\nsymbols = ['BTCUSD']", "'BTCUSD' is no symbol; write BASE-QUOTE"),
        ("[venues.kraken]\nsymbols = ['BTC-USD', 'XBT/USD']", "BTC-USD more than once"),
        ("[venues.kraken]\nsymbols = 'BTC-USD'", "venues.kraken.symbols: 'BTC-USD' can't be used"),
        ("[venues.kraken]\nws_url = 'http://x'", "expected an address like wss://host/path"),
        ("[venues.kraken]\nchannels = ['trade']", "a list of 'orderbook', 'trades' or both"),
        ("[venues.coinbase]\nfeed = 'full'", "expected one of 'exchange', 'advanced'"),
        ("[arbitrage]\nmin_bps = -1", "arbitrage.min_bps: -1 can't be used (out of range)"),
        ("[arbitrage]\nmin_bps = nan", "expected a number of basis points from 0 to 9999"),
        ("[arbitrage]\nmin_bps = 0.0000001", "min_bps: 1e-07 can't be used (7 decimal places)"),
        ("[arbitrage]\nmin_bps = true", "arbitrage.min_bps: True can't be used"),
        ("[arbitrage.fees_bps]\nkraken = 10000", "arbitrage.fees_bps.kraken: 10000 can't be"),
        ("[arbitrage.fees_bps]\nkrakn = 1", "did you mean arbitrage.fees_bps.kraken?"),
        ("[log]\nlevel = 'loud'", "expected one of 'debug', 'info', 'warning', 'error'"),
        ("[log]\njson = 1", "log.json: 1 can't be used; expected true or false"),
    ],
)
def test_bad_values_name_key_value_and_what_would_be_right(text: str, said: str) -> None:
    assert said in refusal(text)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("API_PORT", "http"),
        ("ALPHAPULSE__LOG__JSON", "maybe"),
        ("ALPHAPULSE__VENUES__KRAKEN__DEPTH", "ten"),
        ("ALPHAPULSE__VENUES__KRAKEN__SYMBOLS", "[1"),
        ("ALPHAPULSE__STREAM__BEHIND_SECONDS", ""),
        ("ALPHAPULSE__RING__SIZE_BYTES", "9" * 400),
    ],
)
def test_bad_variables_are_named(variable: str, value: str) -> None:
    message = refusal(**{variable: value})
    assert f"{value!r} can't be used; expected " in message or "can't be used (" in message
    assert f"(environment {variable})" in message


def test_an_error_tells_no_secret() -> None:
    assert "hunter2" not in refusal(REDIS_URL="http://user:hunter2@host")
    assert "hunter2" not in refusal(ALPHAPULSE__VENUES__COINBASE__API_SECRET="hunter2 ")


def test_a_coinbase_key_needs_all_three_parts() -> None:
    message = refusal("[venues.coinbase]\napi_key = 'k'\napi_passphrase = 'p'")
    assert message.startswith("venues.coinbase.api_secret: is empty; ")


SECRETS = {
    "ALPHAPULSE__VENUES__COINBASE__API_KEY": "hunter2",
    "ALPHAPULSE__VENUES__COINBASE__API_SECRET": "hunter2",
    "ALPHAPULSE__VENUES__COINBASE__API_PASSPHRASE": "hunter2",
    "ALPHAPULSE__VENUES__BINANCE_US__API_KEY": "hunter2",
    "ALPHAPULSE__API__TOKEN": "hunter2",
    "ALPHAPULSE__STREAM__TOKEN": "hunter2",
    "REDIS_URL": "rediss://me:hunter2@host/0",
}


def test_secrets_are_hidden_wherever_settings_are_shown() -> None:
    settings = config.load(environ=SECRETS)
    assert settings.api.token == "hunter2"
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(list(settings.store.__rich_repr__()))
    described = {item.key: item.value for item in config.describe(environ=SECRETS)}
    assert "hunter2" not in str(described)
    assert described["api.token"] == MASK
    assert described["store.redis_url"] == f"rediss://{MASK}@host/0"


def test_describe_gives_every_setting_with_its_origin() -> None:
    file = write("[api]\nport = 1\n[stream]\nport = 1\n[venues.coinbase]\nfeed = 'advanced'\n")
    described = config.describe(file, {"STREAM_PORT": "2"}, {"log.json": True})
    origins = {item.key: item.origin for item in described}
    values = {item.key: item.value for item in described}
    assert list(origins) == config.setting_keys()
    assert origins["api.port"] == str(file)
    assert origins["stream.port"] == "environment STREAM_PORT"
    assert origins["log.json"] == "command line"
    assert origins["api.host"] == "default"
    assert values["stream.port"] == 2
    assert values["venues.coinbase.ws_url"] == "wss://advanced-trade-ws.coinbase.com"


def test_every_setting_has_a_variable() -> None:
    def text_of(value: object) -> str:
        return ",".join(value) if isinstance(value, tuple) else str(value)

    environ = {variable_of(key): text_of(leaf.default) for key, leaf in LEAVES.items()}
    assert config.load(environ=environ) == config.Settings()


def test_settings_reach_other_processes_unchanged() -> None:
    settings = config.load(environ=SECRETS)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_the_example_file_is_valid_and_says_the_defaults() -> None:
    assert config.load(ROOT / "alphapulse.example.toml", {}) == config.Settings()
    text = (ROOT / "alphapulse.example.toml").read_text(encoding="utf-8")
    uncommented = re.sub(r"^# ?(?=[a-z_]+ = |\[)", "", text, flags=re.MULTILINE)
    settings = config.load(write(uncommented), {})
    assert settings == config.Settings()


def test_the_manual_lists_every_setting_with_its_default() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z_.*]+)` \| `([^`]*)` \|", text, flags=re.MULTILINE))
    used = set()
    for item in config.describe(environ={}):
        value = list(item.value) if isinstance(item.value, tuple) else item.value
        common = re.sub(r"^venues\.\w+\.", "venues.*.", item.key)
        row = item.key if item.key in rows else common
        if isinstance(value, Decimal):
            value = int(value) if value == int(value) else float(value)
        assert rows.get(row) == json.dumps(value), item.key
        used.add(row)
    assert used == set(rows), "the manual lists a setting that doesn't exist"


def test_the_manual_lists_the_short_variables() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([a-z_.]+)` \|", text, flags=re.MULTILINE))
    assert rows == config.SHORT_VARIABLES


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("::ffff:10.0.0.1", False),
        ("example.org", False),
    ],
)
def test_listening_beyond_loopback_needs_a_token_or_force(host: str, loopback: bool) -> None:
    assert config.is_loopback(host) is loopback
    server = config.ApiSettings(host=host)
    if loopback:
        config.refuse_exposure("api", server)
    else:
        with pytest.raises(ConfigError, match=r"api\.host: .*api\.allow_without_token = true"):
            config.refuse_exposure("api", server)
    config.refuse_exposure("api", config.ApiSettings(host=host, token="t"))
    config.refuse_exposure("api", config.ApiSettings(host=host, allow_without_token=True))
