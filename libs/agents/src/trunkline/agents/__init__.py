"""Agent files: read, filled in, checked, watched."""

from trunkline.agents.errors import AgentFileError
from trunkline.agents.folder import AgentFolder, read_agent

__all__ = ["AgentFileError", "AgentFolder", "read_agent"]
