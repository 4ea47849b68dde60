"""The network of sandboxes: the bridge template, and netlink."""
