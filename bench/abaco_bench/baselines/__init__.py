"""What the platform is compared with: Docker, runc, the kernel."""
