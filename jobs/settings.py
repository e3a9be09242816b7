"""One frozen settings object, read from TEXTMILL_* variables, `*_FILE` secrets and `textmill.toml`."""

import os
import re
from ipaddress import ip_network
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from jobs.errors import InvalidSettings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PREFIX = "TEXTMILL_"
REDIS_SCHEMES = ("redis://", "rediss://")
SECRETS = ("database_url", "redis_url")
"""Settings whose value may hold a password: also read from the file named by TEXTMILL_<NAME>_FILE."""


class Settings(BaseSettings):
    """Everything that can be configured; passed in where needed, never read at import."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", toml_file="textmill.toml")

    home: Path = Field(default=Path("~/.textmill"), validate_default=True)
    """Where the embedded database, broker, logs and fetched models live."""
    database_url: str | None = None
    """SQLAlchemy URL (postgresql://... or sqlite:///...). Default: SQLite in `home`."""
    redis_url: str | None = None
    """redis:// or rediss:// URL. Default: the embedded Valkey of `home`."""
    models: Path | None = None
    """A TOML file of models, synced into the registry at start."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    dtype: str = Field(default="float32", pattern=r"^(float32|bfloat16|float16)$")
    """For models whose registry entry names none."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads of one worker. Default: all cores."""
    max_batch_tokens: int | None = Field(default=None, ge=16, le=4_194_304)
    """Most tokens in one forward pass, padding included. Default: 4,096 on a CPU, 65,536 on a GPU."""
    memory_share: float = Field(default=0.8, gt=0, le=1)
    """Share of the device's memory that loaded models may take together."""
    lease_s: float = Field(default=60.0, ge=1, le=3600)
    shift_s: float = Field(default=300.0, ge=0.1, le=86_400)
    """A shift returns to Celery after this long even when work is left."""
    lookahead_items: int = Field(default=4096, ge=1, le=1_000_000)
    """Items a worker claims and tokenizes ahead of the device."""
    lookahead_tokens: int = Field(default=262_144, ge=256, le=100_000_000)
    """Estimated tokens a worker claims ahead of the device."""
    dedup: bool = False
    """Equal items of a job run once and share the output, where nothing is drawn by chance."""
    cache_bytes: int = Field(default=0, ge=0)
    """Outputs kept in the database, to be used again by any job of the same tenant; the same for workers and upkeep.
    0: none."""
    idle_claim_s: float = Field(default=5.0, ge=0.05, le=3600)
    """A worker without a hint for this long (+-50 %) looks into the database by itself."""
    step_timeout_s: float = Field(default=600.0, ge=0.5, le=86_400)
    """A device step without progress for this long ends the process with exit code 75."""
    grace_s: float = Field(default=30.0, ge=0, le=3600)
    """How long a worker goes on with what it holds after SIGTERM; the rest is released."""
    upkeep_s: float = Field(default=1.0, ge=0.05, le=60)
    """Time between two rounds of upkeep."""
    leader_ttl_s: float = Field(default=10.0, ge=1, le=300)
    idle_transaction_s: float = Field(default=600.0, ge=0)
    """PostgreSQL sessions, anyone's, that idle in a transaction for longer are ended: they slow claims. 0: never."""
    remote_control: bool = True
    """Celery remote control and heartbeat events, for `celery inspect` and Flower."""
    queues: Annotated[tuple[str, ...], NoDecode] = Field(default=("default",), min_length=1)
    """Queues a worker serves; in the environment a list with commas."""
    key_prefix: str = Field(default="textmill:", pattern=r"^[A-Za-z0-9_.:{}-]{0,64}$")
    """Prefix of every Redis key, so that several deployments can share one server."""
    max_line_bytes: int = Field(default=16 * 2**20, ge=1024, le=2**30)
    """Longest input line; a longer one is refused."""
    max_text_chars: int = Field(default=10_000_000, ge=1, le=2**30)
    """Longest text of one item."""
    retention_days: float | None = Field(default=None, gt=0)
    """Days after which a job that has ended is deleted, with its items and results. Default: never."""
    max_job_items: int = Field(default=100_000_000, ge=1)
    """Most items of one job."""
    max_job_bytes: int = Field(default=2**40, ge=1)
    """Most bytes of one job's items, as they came in."""
    max_params_bytes: int = Field(default=4 * 2**20, ge=1024)
    """Longest `params` of a job, as JSON."""
    loading_timeout_s: float = Field(default=86_400.0, ge=1)
    """A job whose items stop arriving for this long fails as abandoned."""
    api_host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    """Where the HTTP API listens. Other than loopback only once there is a key (`textmill keys create`)."""
    api_port: int = Field(default=8460, ge=0, le=65_535)
    """Its port; 0: any free one."""
    api_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names under which the API is reached, beside loopback ones; `*`: any. In the environment a list with commas."""
    connections: Path | None = None
    """A TOML file of sources and sinks, which callers of the HTTP API may name (docs/corpora.md)."""
    files_url: str | None = Field(default=None, min_length=1)
    """Where uploaded files lie, as an fsspec URL (`s3://bucket/files`). Default: `files` in `home`."""
    webhook_networks: Annotated[tuple[str, ...], NoDecode] = ()
    """Networks that webhooks may reach although they are not public (`10.0.0.0/8`); commas between."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Most requests of a tenant to one server of the HTTP API, where the tenant has no limit of its own."""
    upload_timeout_s: float = Field(default=86_400.0, ge=1, le=31_536_000)
    """A resumable upload to which nothing is added for this long expires."""
    max_request_bytes: int = Field(default=64 * 2**20, ge=1024, le=2**31)
    """Largest body of a request to the API, but for uploads."""
    max_index_bytes: int = Field(default=2 * 2**30, ge=2**20)
    """Vectors that the API keeps in memory for searches; a job that has more is not searched over HTTP."""
    metrics_address: str | None = Field(default=None, pattern=r"^.+:\d{1,5}$")
    """`host:port` where a worker, and upkeep, serve their own metrics; further workers of a machine take the ports
    behind it. Default: nowhere."""
    log_format: str = Field(default="text", pattern=r"^(text|json)$")
    """Lines for people, or a JSON object a line."""
    log_level: str = Field(default="info", pattern=r"^(debug|info|warning|error)$")

    @field_validator("queues", "api_hosts", "webhook_networks", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("webhook_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)  # its ValueError says what is wrong
        return value

    @field_validator("home", "models", "connections")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value is not None else None

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(REDIS_SCHEMES):
            raise ValueError(f"a Redis URL begins with {' or '.join(REDIS_SCHEMES)}")
        if value is not None:
            _check_place(value)
            if {"username", "password"} & parse_qs(urlsplit(value).query).keys():
                raise ValueError("user and password stand before the host: redis://USER:PASSWORD@HOST")  # Kombu's rule
        return value

    @property
    def effective_database_url(self) -> str:
        """The URL the store opens, with the driver named: `postgresql+psycopg://` or `sqlite://`."""
        if self.database_url is None:
            return f"sqlite:///{self.home / 'textmill.db'}"
        for scheme in ("postgresql://", "postgres://"):
            if self.database_url.startswith(scheme):
                return "postgresql+psycopg://" + self.database_url.removeprefix(scheme)
        return self.database_url

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, the environment over secret files, those over the TOML file."""
        return (init_settings, env_settings, _SecretFiles(settings_cls), TomlConfigSettingsSource(settings_cls))


def _check_place(url: str) -> None:
    """Raises ValueError for a port or a database number that is none, without repeating the URL."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError("the port of a Redis URL is a number from 0 to 65535") from error
    if not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError("a Redis URL ends in the number of its database: redis://HOST:PORT/0")


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads TEXTMILL_DATABASE_URL_FILE and the like: the secret is the file's text, stripped."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{PREFIX}{field_name.upper()}_FILE") if field_name in SECRETS else None
        return (Path(path).read_text(encoding="utf-8").strip() if path else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(None, name)[0] for name in SECRETS}
        return {name: value for name, value in found.items() if value is not None}


def load_settings(**overrides: Any) -> Settings:
    """The settings in force. Raises InvalidSettings naming each wrong value and what is allowed."""
    try:
        settings = Settings(**overrides)
        if settings.home.is_file():
            raise InvalidSettings(f"home: {settings.home} is a file; the home is a folder")
        return settings
    except ValidationError as error:
        raise InvalidSettings("wrong settings:\n  " + "\n  ".join(map(_told, error.errors()))) from error
    except (OSError, SettingsError, TOMLDecodeError) as error:
        raise InvalidSettings(f"the settings cannot be read: {error}") from error


def _told(detail: "ErrorDetails") -> str:
    """One wrong setting. What may be a password is not repeated."""
    name, message = ".".join(map(str, detail["loc"])), detail["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" + ("" if name in SECRETS else f" (given {detail['input']!r})")
