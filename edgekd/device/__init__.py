"""Reaching a device: the link to an agent, the machine's fingerprint, the agent's zipapp."""
