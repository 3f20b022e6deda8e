"""The rules of an authority as its hosts get them: one text of JSON.

Room rule: what is written here is read here, with the same keys as in the file. Beside the policy there are only the settings
without which a rule would mean something else on a host: whose name is the same name, which zone its hours are of, and how far
a code may be off.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import tzinfo

from pydantic import Field, ValidationError, field_validator

from mfa_core.errors import ConfigurationError
from mfa_core.identity import IdentityRules
from mfa_core.model import Door
from mfa_core.policy import Policy, problems
from mfa_runtime.config.document import Document
from mfa_runtime.config.notation import Zone
from mfa_runtime.config.rules import RuleSection
from mfa_runtime.config.section import Section, written
from mfa_runtime.config.sections import Identity, Settings, Totp

MAX_RULES_CHARS = 2 << 20
"""A file has at most 1 MiB, and JSON writes what is not ASCII in up to six characters for two octets."""
_CURE = "bring mfad on this host to the version of the authority"


@dataclass(frozen=True, slots=True)
class SharedRules:
    """What a host has from its authority in place of settings of its own. ``window`` and ``max_drift`` are steps."""

    policy: Policy
    identity: IdentityRules
    window: int
    max_drift: int
    time_zone: tzinfo


class _Document(Section):
    format: int
    identity: Identity = Field(default_factory=Identity)
    max_drift: int = Totp.model_fields["max_drift"].default
    policy: tuple[RuleSection, ...] = ()
    time_zone: Zone = written("UTC")
    window: int = Totp.model_fields["window"].default

    @field_validator("format", mode="after")
    @classmethod
    def _is_known(cls, value: int) -> int:
        if value != 1:
            raise ValueError("expected format 1")
        return value


def write_rules(document: Document, settings: Settings) -> str:
    """The rules of a file that was read without a problem. The same file gives the same text."""
    return json.dumps(
        {
            "format": 1,
            "identity": {"fold_case": settings.identity.fold_case, "realms": list(settings.identity.realms)},
            "max_drift": settings.totp.max_drift,
            "policy": document.root.get("policy") or [],
            "time_zone": document.root.get("time_zone", "UTC"),
            "window": settings.totp.window,
        },
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )


def read_rules(text: str) -> SharedRules:
    """What an authority sent.

    Raises:
        ConfigurationError: it cannot be read here as it was meant: keep what was there before, and decide nothing by it.
    """
    if len(text) > MAX_RULES_CHARS:
        raise ConfigurationError(f"rules of {len(text)} characters, expected at most {MAX_RULES_CHARS}", cure=_CURE)
    try:
        read = _Document.model_validate(json.loads(text))
    except ValidationError as err:
        place = ".".join(map(str, err.errors()[0]["loc"]))
        raise ConfigurationError(f"the authority's rules cannot be read here: {place or 'the whole'}", cure=_CURE) from None
    except (ValueError, RecursionError):
        raise ConfigurationError("the authority's rules are not JSON", cure=_CURE) from None
    fold = str.lower if read.identity.fold_case else str
    policy = Policy([section.rule(zone=read.time_zone, fold=fold) for section in read.policy])
    problem = next(iter(problems(policy, frozenset(Door))), None)
    if problem is not None:
        raise ConfigurationError(f"the authority's rule {problem.rule} cannot be used here: {problem.key}", cure=_CURE)
    return SharedRules(policy, read.identity.rules(), read.window, read.max_drift, read.time_zone)
