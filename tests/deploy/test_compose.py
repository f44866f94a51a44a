"""The compose file and the image, as far as they can be checked without a container engine: against each other, and
against the settings and the commands of the code that will run in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.settings import CommonSettings, MemorySettings

ROOT = Path(__file__).parents[2]
PREFIX = "NIGHTSHIFT_"
SETTINGS = {"api": "api.settings", "worker": "worker.settings", "scheduler": "jobs.settings"}
"""Where the role that a service starts reads its environment."""
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<rule>:-|:\?)(?P<rest>[^}]*))?\}")


def settings_of(service: str) -> type[CommonSettings]:
    module = pytest.importorskip(SETTINGS[service])
    found: type[CommonSettings] = getattr(module, "Settings" if service != "scheduler" else "CommonSettings")
    return found


def load_compose() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


COMPOSE = load_compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ROLES = sorted(name for name, service in SERVICES.items() if service["image"] == "nightshift")


def environment(service: str) -> dict[str, str | None]:
    return SERVICES[service].get("environment", {})


def resolve(value: str, given: dict[str, str]) -> str:
    """The value as compose would hand it over when only `given` is set around it."""

    def substitute(match: re.Match[str]) -> str:
        name, rule, rest = match["name"], match["rule"], match["rest"]
        if name in given:
            return given[name]
        assert rule == ":-", f"{name} must be given"
        return rest

    return VARIABLE.sub(substitute, value).replace("$$", "$")


def instructions(dockerfile: str) -> list[list[tuple[str, str]]]:
    """The build stages of a Dockerfile, each as its (INSTRUCTION, arguments) in order."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stages: list[list[tuple[str, str]]] = []
    for line in joined.splitlines():
        word, _, arguments = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, arguments.strip()))
    return stages


BUILDER, FINAL = instructions((ROOT / "deploy/Dockerfile").read_text(encoding="utf-8"))


def arguments(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for instruction, rest in stage if instruction == word]


# ---- what the services are told


@pytest.mark.parametrize("service", sorted(SETTINGS))
def test_every_variable_is_one_that_the_role_reads(service: str) -> None:
    settings = settings_of(service)
    known = {f"{PREFIX}{name}".upper() for name in settings.model_fields}
    used = {name for name in environment(service) if name.startswith(PREFIX)}
    assert used
    assert used <= known, f"{SETTINGS[service]} does not read {sorted(used - known)}"


@pytest.mark.parametrize("service", sorted(SETTINGS))
def test_the_role_accepts_what_compose_hands_over(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"NIGHTSHIFT_ADMIN_KEY": "ns_" + "x" * 40}
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    handed = {name: resolve(value, given) for name, value in environment(service).items() if value is not None}
    for name, value in handed.items():
        monkeypatch.setenv(name, value)
    settings = settings_of(service)()
    assert settings.redis_url == "redis://redis:6379/0"
    assert settings.data_dir == Path("/var/lib/nightshift")
    assert settings.log_format == "json"


def test_only_our_prefix_and_names_that_are_not_ours() -> None:
    used = {name for service in ROLES for name in environment(service)}
    assert {name for name in used if not name.startswith(PREFIX)} <= {"ANTHROPIC_API_KEY"}


def test_no_secret_is_written_down() -> None:
    secret = re.compile(r"KEY|TOKEN|SECRET|PASSWORD")
    values = {
        (service, name): value
        for service in SERVICES
        for name, value in environment(service).items()
        if secret.search(name)
    }
    assert ("api", "NIGHTSHIFT_ADMIN_KEY") in values
    assert all(value is None or VARIABLE.fullmatch(value) for value in values.values())


def test_compose_refuses_to_start_without_an_admin_key() -> None:
    value = environment("api")["NIGHTSHIFT_ADMIN_KEY"]
    assert value is not None
    match = VARIABLE.fullmatch(value)
    assert match is not None
    assert match["rule"] == ":?"
    assert match["rest"], "the refusal says what to do"


def test_the_default_agents_are_in_the_image() -> None:
    if not (ROOT / "examples").is_dir():
        pytest.skip("there are no examples yet")
    assert "examples/ /app/examples/" in arguments(FINAL, "COPY")
    value = environment("worker")["NIGHTSHIFT_AGENTS"]
    assert value is not None
    for path in resolve(value, {}).split(","):
        assert (ROOT / Path(path).relative_to("/app")).is_file()


@pytest.mark.parametrize("service", ROLES)
def test_every_command_is_a_real_one(service: str) -> None:
    nightshift = Path(sys.executable).with_name("nightshift")
    if not (ROOT / "cli/main.py").is_file():
        pytest.skip("there is no command line yet")
    # --help makes it parse the whole line and then do nothing.
    done = subprocess.run(
        [nightshift, *SERVICES[service]["command"], "--help"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


# ---- how the services run


def test_the_platform_is_all_there() -> None:
    assert set(SERVICES) == {"api", "worker", "scheduler", "simulator", "redis", "qdrant"}
    started = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert started == {"api", "worker", "scheduler", "redis", "qdrant"}


def test_there_are_two_workers_with_time_to_drain() -> None:
    worker = SERVICES["worker"]
    assert worker["deploy"]["replicas"] == 2
    assert "container_name" not in worker
    assert "ports" not in worker
    grace = re.fullmatch(r"(\d+)s", worker["stop_grace_period"])
    drain = environment("worker")["NIGHTSHIFT_DRAIN_SECONDS"]
    assert grace is not None
    assert drain is not None
    assert int(grace[1]) > int(drain)


def test_redis_keeps_what_it_acknowledged() -> None:
    words = SERVICES["redis"]["command"]
    assert words[0] == "redis-server"
    options = {name: resolve(value, {}) for name, value in zip(words[1::2], words[2::2], strict=True)}
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "noeviction"
    assert "--maxmemory" in options
    assert "redis:/data" in SERVICES["redis"]["volumes"]


def test_volumes_are_declared_and_the_data_directory_is_shared() -> None:
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert mounted == set(COMPOSE["volumes"])
    for service in ("api", "worker"):
        path = environment(service)["NIGHTSHIFT_DATA_DIR"]
        assert f"files:{path}" in SERVICES[service]["volumes"]
    assert "qdrant:/qdrant/storage" in SERVICES["qdrant"]["volumes"]


def test_only_the_api_is_published_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8080:8080"]}


def test_api_and_workers_share_a_memory_that_nothing_waits_for() -> None:
    told = {service: {k: v for k, v in environment(service).items() if "QDRANT" in k or "EMBEDDER" in k}
            for service in ROLES}  # fmt: skip
    assert told["api"] == told["worker"] != {}
    assert told["scheduler"] == told["simulator"] == {}
    assert set(told["api"]) == {f"{PREFIX}{name.upper()}" for name in MemorySettings.__annotations__}
    url = told["api"]["NIGHTSHIFT_QDRANT_URL"]
    assert url is not None
    assert resolve(url, {}) == "http://qdrant:6333"


def test_the_qdrant_is_one_that_the_client_is_made_for() -> None:
    client = re.search(
        r"^qdrant-client==(\d+\.\d+)\.", (ROOT / "requirements/run.txt").read_text(encoding="utf-8"), re.M
    )
    assert client is not None
    assert SERVICES["qdrant"]["image"].startswith(f"qdrant/qdrant:v{client[1]}.")


def test_roles_wait_for_a_redis_that_answers() -> None:
    for service in ("api", "worker", "scheduler"):
        assert SERVICES[service]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_what_is_not_the_image_s_own_role_has_its_own_healthcheck() -> None:
    # The image's check asks the API; a role that serves something else would never be healthy.
    for service in sorted(set(SERVICES) - {"api"}):
        assert SERVICES[service]["healthcheck"], service
    assert "healthcheck" not in SERVICES["api"]


def test_roles_run_with_no_privilege() -> None:
    for service in ROLES:
        assert SERVICES[service]["cap_drop"] == ["ALL"]
        assert SERVICES[service]["read_only"] is True
        assert "no-new-privileges:true" in SERVICES[service]["security_opt"]
        assert "privileged" not in SERVICES[service]


def test_images_are_pinned() -> None:
    images = [service["image"] for service in SERVICES.values() if service["image"] != "nightshift"]
    stages = [arguments(stage, "FROM")[0].split(" AS ")[0] for stage in (BUILDER, FINAL)]
    for image in images + stages:
        tag = image.rpartition(":")[2]
        assert re.match(r"v?\d", tag), f"{image} has no version"


# ---- the image


def test_dependencies_are_installed_with_hashes() -> None:
    installs = [
        command.strip()
        for run in arguments(BUILDER, "RUN")
        for command in run.split("&&")
        if re.search(r"\b(pip (install|sync)|uv build)\b", command)
    ]
    assert any("requirements/run.txt" in command for command in installs)
    for command in installs:
        assert "--require-hashes" in command or "--no-deps" in command, command
    for path in re.findall(r"requirements/\w+\.txt", " ".join(installs)):
        assert "--hash=sha256:" in (ROOT / path).read_text(encoding="utf-8")


def test_the_final_stage_runs_as_a_user_without_privilege() -> None:
    assert len(arguments(FINAL, "USER")) == 1
    user = arguments(FINAL, "USER")[0].split(":")[0]
    assert user.isdigit()
    assert int(user) > 0
    after = [word for word, _ in FINAL[[word for word, _ in FINAL].index("USER") :]]
    assert not {"RUN", "COPY", "ADD"} & set(after), "what comes after USER would be written by it"


def test_the_final_stage_has_no_compiler_and_no_installer() -> None:
    run = " ".join(arguments(FINAL, "RUN"))
    assert not re.search(r"gcc|\buv\b|\bpip\b", run)
    installed = re.findall(r"apt-get install ([^&]*)&&", run)
    assert [word for words in installed for word in words.split() if not word.startswith("-")] == ["bubblewrap"]


def test_the_image_starts_the_api_and_checks_it() -> None:
    assert arguments(FINAL, "ENTRYPOINT") == ['["nightshift"]']
    assert arguments(FINAL, "CMD") == ['["api", "--host", "0.0.0.0"]']
    assert "/healthz" in arguments(FINAL, "HEALTHCHECK")[0]


def test_what_the_build_copies_is_let_in() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line.removeprefix("!").rstrip("/") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.search(r"^packages = \[(.*)\]$", project, re.MULTILINE)
    assert packages is not None
    assert set(re.findall(r'"(\w+)"', packages[1])) <= let_in
    assert {"LICENSE", "README.md", "pyproject.toml", "requirements/*.txt", "examples"} <= let_in
