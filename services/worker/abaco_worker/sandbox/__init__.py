"""SandboxStore: how they are made, kept idle, connected to their launchers, and removed."""
