"""What runs inside FreeRADIUS, and the messages that it exchanges with mfad (PROTOCOL.md)."""
