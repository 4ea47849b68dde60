"""Pure decisions: the state of the cluster in, events to append out. No I/O and no clock."""
