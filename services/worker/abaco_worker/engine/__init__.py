"""The container engine: the port, its adapter for Docker, and the images of a host."""
