"""Pure parts of the streams: selection, encoding, the ring of recent events, output as text."""
