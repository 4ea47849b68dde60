"""The commands of ``abaco``, by section of its help."""
