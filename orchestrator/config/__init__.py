"""The only reader of YAML and of the environment: files in, core objects out.

`load_settings` reads holdfast.yaml, `load_job` a job file; both raise `UserError` with the file,
line and path of every mistake.
"""

from orchestrator.config.jobs import JobFile, Launch, agent_launch, load_job
from orchestrator.config.models import Strict
from orchestrator.config.scalars import SecretRef, duration, spell
from orchestrator.config.settings import ClusterSettings, Settings, SlackSettings, load_settings

__all__ = [
    "ClusterSettings",
    "JobFile",
    "Launch",
    "SecretRef",
    "Settings",
    "SlackSettings",
    "Strict",
    "agent_launch",
    "duration",
    "load_job",
    "load_settings",
    "spell",
]
