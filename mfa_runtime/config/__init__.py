"""The configuration: YAML in, one frozen value out, or every problem at once with its file and line.

Room rule: nothing outside this package knows YAML or the names of keys, and nothing inside it opens what a key points to.
``document`` reads text into plain values and remembers lines; ``notation`` knows how single values are written; ``sections``
and ``rules`` name every key; ``loading`` puts them together. A new door adds its section in ``sections`` and nothing else.
"""

from mfa_runtime.config.loading import DEFAULTS, Config, load_config, load_config_text
from mfa_runtime.config.problem import ConfigurationProblems, Problem

__all__ = ["DEFAULTS", "Config", "ConfigurationProblems", "Problem", "load_config", "load_config_text"]
