"""What the platform is measured against. Each module runs as a process of its own and prints one JSON line."""
